//! `slipway sbatch`: a job script for a command in an image.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Session, locate};
use crate::cli::args::SbatchArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// torchrun's own port, from which jobs that share a node are spread.
const TORCH_PORT: u32 = 29_500;

pub(in crate::cli) fn run(args: &SbatchArgs, session: &Session) -> Result<(), Failure> {
    let mut words = Vec::new();
    for word in &args.words {
        let word = word.to_str().ok_or_else(|| {
            Failure::new(format!("`{}` is no text, which a script must be", word.to_string_lossy()), None)
        })?;
        words.push(word.to_owned());
    }
    let (image, command) = words.split_first().ok_or_else(|| Failure::new("no image was named", None))?;
    let script = script(args, image, &resolved(image, session)?, command);
    if !args.submit {
        return term::print(&script);
    }
    submit(&script)
}

/// The image so that it is the same when the job starts: a file by its whole path, a name with its digest.
fn resolved(image: &str, session: &Session) -> Result<String, Failure> {
    if locate::is_file(OsStr::new(image)) {
        let path = Path::new(image).canonicalize().map_err(|error| {
            Failure::new(format!("cannot use the image `{image}`: {error}"), "check the path")
        })?;
        return path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::new(format!("the path of `{image}` is no text, which a script must be"), None)
        });
    }
    let store = session.store()?;
    if store.find_image(image)?.is_none() {
        term::warn(&format!(
            "`{image}` is not in the store: the job downloads it, or run `slipway pull {image}` before it starts"
        ));
        return Ok(image.to_owned());
    }
    // The name may mean another image when the job starts, its id cannot.
    let (found, _) = locate::image(&store, image)?;
    Ok(found.record.config.to_string())
}

/// The script's text.
fn script(args: &SbatchArgs, asked: &str, image: &str, command: &[String]) -> String {
    let program = command.first().map_or("job", String::as_str);
    let name = Path::new(program).file_stem().map_or("job".into(), OsStr::to_string_lossy);
    let tasks_per_node = if args.torchrun { Some(1) } else { args.ntasks_per_node };
    let number = |count: Option<u32>| count.map(|count| count.to_string());
    let log = if args.array.is_some() { "%x-%A_%a.out" } else { "%x-%j.out" };
    let options = [
        ("job-name", Some(args.job_name.clone().unwrap_or_else(|| name.into_owned()))),
        ("partition", args.partition.clone()),
        ("account", args.account.clone()),
        ("nodes", number(args.nodes)),
        ("ntasks", number(args.ntasks)),
        ("ntasks-per-node", number(tasks_per_node)),
        ("cpus-per-task", number(args.cpus_per_task)),
        ("gpus", args.gpus.clone()),
        ("gpus-per-node", args.gpus_per_node.clone()),
        ("gpus-per-task", args.gpus_per_task.clone()),
        ("mem", args.mem.clone()),
        ("time", args.time.clone()),
        ("array", args.array.clone()),
        ("output", Some(log.into())),
    ];
    let mut lines = vec!["#!/bin/bash".to_owned()];
    let given = options.into_iter().filter_map(|(name, value)| Some((name, value?)));
    lines.extend(given.map(|(name, value)| format!("#SBATCH --{name}={}", quoted(&value))));
    lines.push(String::new());
    if image.starts_with("sha256:") && asked != image {
        lines.push(format!("# The image is {asked}, as it is now."));
    }
    let is_many = |count: Option<u32>| count.is_some_and(|count| count > 1);
    let has_tasks = is_many(args.nodes) || is_many(args.ntasks) || is_many(args.ntasks_per_node);
    let mut line = Vec::new();
    if args.torchrun {
        lines.push("# The processes meet at the first node.".into());
        lines.push("first=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)".into());
        lines.push(format!("port=$(({TORCH_PORT} + SLURM_JOB_ID % 1000))"));
        line.push("srun".to_owned());
    } else if let Some(kind) = &args.mpi {
        line.extend(["srun".to_owned(), format!("--mpi={}", quoted(kind))]);
    } else if has_tasks {
        line.push("srun".to_owned());
    }
    line.extend(["slipway".to_owned(), "run".to_owned()]);
    line.extend(args.run.iter().map(|flag| quoted(flag)));
    line.push(quoted(image));
    if args.torchrun {
        line.push(
            "torchrun --nnodes=\"$SLURM_NNODES\" --nproc-per-node=\"${SLURM_GPUS_ON_NODE:-1}\" \
             --rdzv-id=\"$SLURM_JOB_ID\" --rdzv-backend=c10d --rdzv-endpoint=\"$first:$port\""
                .to_owned(),
        );
    }
    line.extend(command.iter().map(|word| quoted(word)));
    lines.push(line.join(" "));
    lines.join("\n") + "\n"
}

/// A word as bash reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn submit(script: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot run Slurm's `sbatch`: {error}"), "leave out --submit to see the script")
    };
    let mut child = Command::new("sbatch").stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(failed)?;
    }
    // sbatch has said why.
    if child.wait().map_err(failed)?.success() { Ok(()) } else { Err(Failure::quiet_own()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{self, Command as Verb};

    fn script_of(words: &[&str]) -> String {
        let words = ["slipway", "sbatch"].iter().chain(words).map(std::ffi::OsString::from);
        let Verb::Sbatch(args) = args::parse(words).unwrap().command else { panic!() };
        let words: Vec<_> = args.words.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        script(&args, &words[0], &words[0], &words[1..])
    }

    #[test]
    fn one_task() {
        assert_eq!(
            script_of(&[
                "-G",
                "1",
                "-t",
                "1:00:00",
                "--run=-v",
                "--run=/data:/data",
                "x.sif",
                "python",
                "train.py",
                "a b",
                "it's"
            ]),
            "#!/bin/bash\n#SBATCH --job-name=python\n#SBATCH --gpus=1\n#SBATCH --time=1:00:00\n\
             #SBATCH --output=%x-%j.out\n\nslipway run -v /data:/data x.sif python train.py 'a b' 'it'\\''s'\n"
        );
    }

    #[test]
    fn many_tasks_mpi_and_arrays() {
        let text = script_of(&["-N2", "--ntasks-per-node=4", "--gpus-per-task=1", "-Jtrain", "x.sif", "./a"]);
        assert!(text.ends_with("\n\nsrun slipway run x.sif ./a\n"), "{text}");
        assert!(
            text.contains("--nodes=2\n#SBATCH --ntasks-per-node=4\n#SBATCH --gpus-per-task=1\n"),
            "{text}"
        );
        let text = script_of(&["-n8", "--mpi", "x.sif", "./a"]);
        assert!(text.ends_with("\nsrun --mpi=pmix slipway run x.sif ./a\n"), "{text}");
        let text = script_of(&["-n8", "--mpi=pmi2", "x.sif", "./a"]);
        assert!(text.ends_with("\nsrun --mpi=pmi2 slipway run x.sif ./a\n"), "{text}");
        let text = script_of(&["-a0-9", "x.sif", "./a"]);
        assert!(text.contains("--array=0-9\n#SBATCH --output=%x-%A_%a.out\n\nslipway run"), "{text}");
    }

    #[test]
    fn torchrun_on_each_node() {
        let text = script_of(&["-N2", "--gpus-per-node=8", "--torchrun", "x.sif", "train.py"]);
        assert_eq!(
            text,
            "#!/bin/bash\n#SBATCH --job-name=train\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n\
             #SBATCH --gpus-per-node=8\n#SBATCH --output=%x-%j.out\n\n\
             # The processes meet at the first node.\n\
             first=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)\n\
             port=$((29500 + SLURM_JOB_ID % 1000))\n\
             srun slipway run x.sif torchrun --nnodes=\"$SLURM_NNODES\" \
             --nproc-per-node=\"${SLURM_GPUS_ON_NODE:-1}\" --rdzv-id=\"$SLURM_JOB_ID\" --rdzv-backend=c10d \
             --rdzv-endpoint=\"$first:$port\" train.py\n"
        );
    }
}
