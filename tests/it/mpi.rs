//! Ranks of real MPI programs, Open MPI and MPICH, in containers under Slurm and under their own launchers.

use std::path::PathBuf;
use std::process::Command;

use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::{Output, Sandbox};
use super::support::slurm::Slurm;

/// Sends 8 MiB to the neighbour and back, so that libraries take their way for large messages.
const PROGRAM: &str = r#"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    int rank, size, bytes = 8 << 20, wrong = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    char *own = malloc(bytes), *other = malloc(bytes);
    memset(own, rank + 1, bytes);
    int right = (rank + 1) % size, left = (rank + size - 1) % size;
    MPI_Sendrecv(own, bytes, MPI_BYTE, right, 0, other, bytes, MPI_BYTE, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 0; i < bytes; i++) wrong += other[i] != left + 1;
    printf("rank %d of %d: %d wrong\n", rank, size, wrong);
    MPI_Finalize();
    return wrong != 0;
}
"#;

/// Says once that one rank reads or writes the memory of another.
const WITNESS: &str = r#"
#define _GNU_SOURCE
#include <sys/uio.h>
#include <sys/syscall.h>
#include <unistd.h>
static ssize_t pass(long call, pid_t pid, const struct iovec *l, unsigned long n, const struct iovec *r, unsigned long m, unsigned long f) {
    static int said;
    ssize_t count = syscall(call, pid, l, n, r, m, f);
    if (count > 4096 && !said++) write(2, "single copy\n", 12);
    return count;
}
ssize_t process_vm_readv(pid_t p, const struct iovec *l, unsigned long n, const struct iovec *r, unsigned long m, unsigned long f) {
    return pass(SYS_process_vm_readv, p, l, n, r, m, f);
}
ssize_t process_vm_writev(pid_t p, const struct iovec *l, unsigned long n, const struct iovec *r, unsigned long m, unsigned long f) {
    return pass(SYS_process_vm_writev, p, l, n, r, m, f);
}
"#;

/// A sandbox with a small image, a program of an MPI and the witness. The libraries of the MPI come from the host by binds: what is
/// tested is how ranks find each other, not what an image holds.
struct Ranks {
    sandbox: Sandbox,
    program: PathBuf,
}

impl Ranks {
    fn new(compiler: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut image = TestImage::busybox();
        // Mount points that an image lacks and that several ranks add at once are `keeper`'s to test.
        let places = ["usr", "lib", "lib64", "etc/openmpi", "etc/alternatives"];
        let layer = places.iter().fold(Tar::new(), |tar, place| tar.directory(place, 0o755));
        image.layers.push(layer.finish());
        image.convert(&sandbox, "mpi.sif");
        sandbox.make_directory("code");
        let compile = |compiler: &str, name: &str, code: &str, flags: &[&str]| {
            let source = sandbox.write(&format!("code/{name}.c"), code);
            let target = sandbox.path("code").join(name);
            let status =
                Command::new(compiler).args(flags).arg("-o").arg(&target).arg(source).status().unwrap();
            assert!(status.success(), "{compiler}");
            target
        };
        let program = compile(compiler, "ring", PROGRAM, &["-O1"]);
        compile("cc", "witness.so", WITNESS, &["-shared", "-fPIC", "-w"]);
        Self { sandbox, program }
    }

    /// `slipway run` with the program.
    fn line(&self, more: &[&str]) -> Vec<String> {
        let code = self.sandbox.path("code").display().to_string();
        let mut words = vec![self.sandbox.program().display().to_string(), "run".into()];
        for place in ["/usr", "/lib", "/lib64", "/etc/openmpi", "/etc/alternatives", &code] {
            if std::path::Path::new(place).exists() {
                words.extend(["-v".into(), format!("{place}:{place}:ro")]);
            }
        }
        words.extend(["-e".into(), format!("LD_PRELOAD={code}/witness.so")]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words.extend(["mpi.sif".into(), self.program.display().to_string()]);
        words
    }

    /// Executes it as a step, with options of srun and of `slipway run`.
    fn under(&self, slurm: &Slurm, mpi: &str, options: &[&str], more: &[&str]) -> Output {
        let line = self.line(more);
        let line = line.iter().map(String::as_str);
        let words: Vec<&str> = ["srun", mpi].into_iter().chain(options.iter().copied()).chain(line).collect();
        // From a directory that shows nothing of Slurm's.
        slurm.command(&self.sandbox, &words).run()
    }

    /// All ranks got the right bytes, without complaint and by one copy.
    fn check(&self, output: &Output, ranks: usize, one_copy: bool) {
        assert_eq!(output.code, Some(0), "{output}");
        let mut lines: Vec<_> = output.stdout.lines().filter(|line| line.starts_with("rank ")).collect();
        lines.sort_unstable();
        let expected: Vec<_> = (0..ranks).map(|rank| format!("rank {rank} of {ranks}: 0 wrong")).collect();
        assert_eq!(lines, expected, "{output}");
        assert_eq!(output.stderr.contains("single copy"), one_copy, "{output}");
        let others = output.stderr.lines().filter(|line| *line != "single copy");
        assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{output}");
        self.sandbox.assert_nothing_left();
    }
}

#[test]
fn mpich_under_slurm() {
    need!(root, slurm, userns, fuse, tool "busybox", tool "mpicc.mpich");
    let ranks = Ranks::new("mpicc.mpich");
    let slurm = Slurm::start_with(None, &["--no-cgroup"]);
    let run = |options: &[&str], more: &[&str]| ranks.under(&slurm, "--mpi=pmi2", options, more);
    ranks.check(&run(&["-n2", "-N1"], &[]), 2, true);
    ranks.check(&run(&["-n4", "-N1"], &[]), 4, true);
    // Two nodes. These are one machine, where UCX would try memory that real ones do not share.
    ranks.check(&run(&["-n2", "-N2"], &["-e", "UCX_TLS=tcp,self"]), 2, false);
}

#[test]
fn open_mpi_under_slurm() {
    need!(root, slurm, userns, fuse, tool "busybox", tool "mpicc.openmpi");
    let ranks = Ranks::new("mpicc.openmpi");
    let slurm = Slurm::start_with(None, &["--no-cgroup"]);
    let run = |options: &[&str], more: &[&str]| ranks.under(&slurm, "--mpi=pmix", options, more);
    ranks.check(&run(&["-n2", "-N1"], &[]), 2, true);
    // /tmp of its own: PMIx's directories are there all the same.
    ranks.check(&run(&["-n2", "-N1"], &["--contain"]), 2, true);
}

#[test]
fn launchers_of_their_own() {
    need!(userns, fuse, tool "busybox", tool "mpicc.openmpi", tool "mpicc.mpich");
    for (compiler, launcher) in [("mpicc.openmpi", "mpirun.openmpi"), ("mpicc.mpich", "mpiexec.hydra")] {
        let ranks = Ranks::new(compiler);
        let open_mpi = ["--oversubscribe", "--mca", "plm", "isolated"];
        let mut words: Vec<String> = vec!["-n".into(), "2".into()];
        if launcher.ends_with("openmpi") {
            words.extend(open_mpi.map(String::from));
        }
        words.extend(ranks.line(&[]));
        let output = ranks.sandbox.command(launcher, &words).run();
        ranks.check(&output, 2, true);
    }
}

#[test]
fn rank_0_may_end_first() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "mpi.sif");
    let slurm = Slurm::start_with(None, &["--no-cgroup"]);
    let script = "[ $SLURM_PROCID = 0 ] && exit 0; sleep 1; cat /etc/os-release >/dev/null && echo $SLURM_PROCID reads on";
    let program = sandbox.program().display().to_string();
    let words = ["srun", "-n3", "-N1", &program, "run", "mpi.sif", "sh", "-c", script];
    let output = slurm.command(&sandbox, &words).run();
    let mut lines: Vec<_> = output.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!((output.code, lines), (Some(0), vec!["1 reads on", "2 reads on"]), "{output}");
    sandbox.assert_nothing_left();
}
