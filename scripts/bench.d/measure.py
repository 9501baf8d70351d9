"""Runs commands as the lab's ordinary user and says what they took.

A figure counts the whole tree of processes, helpers that outlive the command too: this process is the subreaper, so they
become its children when their parents have ended."""

import ctypes
import os
import pwd
import select
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field

LAB = "/lab"
USER = pwd.getpwuid(int(os.environ.get("LAB_OWNER", os.getuid())))
WORK = f"{LAB}/bench"
TMP = f"{WORK}/tmp"
REGISTRY, REGISTRY_TLS = "127.0.0.1:5000", "127.0.0.1:5001"
ENVIRONMENT = {
    "PATH": "/opt/bench:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": USER.pw_dir,
    "USER": USER.pw_name,
    "LOGNAME": USER.pw_name,
    "LANG": "C.UTF-8",
    "TMPDIR": TMP,
    "APPTAINER_TMPDIR": TMP,
    "XDG_RUNTIME_DIR": f"/run/user/{USER.pw_uid}",
    "SLIPWAY_STORE_DIR": f"{WORK}/store",
}
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Failed(Exception):
    """A command did not do what it was asked to; the text is the last line of what it said."""


@dataclass
class Sample:
    """What one run took. Memory is that of the largest process; a process counts as what it was before its exec, too, so
    about 20 MB are the harness itself."""

    wall: float = 0.0
    cpu: float = 0.0
    rss_mb: float = 0.0
    peak_disk_mb: float = 0.0
    left_disk_mb: float = 0.0
    output: str = ""
    # Processes that outlived their parent: name to (CPU seconds, MB).
    helpers: dict = field(default_factory=dict)

    def count(self, name, usage, is_helper):
        self.cpu += usage.ru_utime + usage.ru_stime
        self.rss_mb = max(self.rss_mb, usage.ru_maxrss / 1024)
        if is_helper:
            cpu, rss = self.helpers.get(name, (0.0, 0.0))
            self.helpers[name] = (cpu + usage.ru_utime + usage.ru_stime, max(rss, usage.ru_maxrss / 1024))


def median(samples, what="wall"):
    """The middle of one figure of some samples, or of plain numbers."""
    return statistics.median(getattr(s, what) if isinstance(s, Sample) else s for s in samples)


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def drop_caches():
    """Empties this machine's page cache, as far as it is clean. A hypervisor may keep one of its own."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def warm(directory):
    """Has the page cache hold every file of a directory."""
    for top, _, names in os.walk(directory):
        for name in names:
            with open(f"{top}/{name}", "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def become_user():
    os.setsid()
    os.setgroups([USER.pw_gid])
    os.setgid(USER.pw_gid)
    os.setuid(USER.pw_uid)


def used_disk():
    status = os.statvfs(WORK)
    return (status.f_blocks - status.f_bfree) * status.f_frsize / 1e6


def children():
    found = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found |= {int(word) for word in file.read().split()}
        except OSError:
            pass
    return found


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def collect(process, sample, known, grace):
    """Waits for a process, and for `grace` seconds more for the helpers that it has left, and counts them all. `known` are
    children that were there before: containers that shall run on."""
    ended_at, code = None, None
    while True:
        try:
            option = os.WNOHANG if ended_at else 0
            ready = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | option)
        except ChildProcessError:
            break
        if ready is None:
            if time.perf_counter() - ended_at > grace or not children() - known:
                break
            time.sleep(0.002)
            continue
        now, name = time.perf_counter(), name_of(ready.si_pid)
        _, status, usage = os.wait4(ready.si_pid, 0)
        if ready.si_pid == process.pid:
            ended_at, code = now, os.waitstatus_to_exitcode(status)
            process.returncode = code
        if ready.si_pid not in known:
            sample.count(name, usage, ready.si_pid != process.pid)
    return ended_at, code


def run(command, *, env=None, cold=False, disk=False, grace=3.0, timeout=900, check=True):
    """Runs a shell command and measures it."""
    if cold:
        drop_caches()
        time.sleep(0.1)
    sample, known = Sample(), children()
    before = used_disk()
    peak, stop = [before], threading.Event()

    def watch():
        while not stop.wait(0.05):
            peak[0] = max(peak[0], used_disk())

    watcher = threading.Thread(target=watch)
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            preexec_fn=become_user,
            cwd=TMP,
            env=ENVIRONMENT | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        killer = threading.Timer(timeout, lambda: os.killpg(process.pid, signal.SIGKILL))
        killer.start()
        if disk:
            watcher.start()
        ended_at, code = collect(process, sample, known, grace)
        killer.cancel()
        stop.set()
        if disk:
            watcher.join()
        output.seek(0)
        sample.output = output.read().decode(errors="replace")
    sample.wall = ended_at - start
    sample.peak_disk_mb = peak[0] - before
    sample.left_disk_mb = used_disk() - before
    if check and code != 0:
        lines = sample.output.strip().splitlines() or ["it said nothing"]
        first = next((line for line in lines if line.startswith("error")), lines[-1])
        raise Failed(f"exit code {code}: {first[:300]}")
    return sample


def works(command, **how):
    """Whether a command succeeds, and the last line of what it said if not."""
    try:
        run(command, **how)
    except Failed as failure:
        return str(failure)
    return None


class Session:
    """A probe inside a mount or container, which is asked for one figure after the other."""

    def __init__(self, command, env=None):
        self.known = children()
        # Root's own errors are of no interest to the table, those of the session are: its last line is kept.
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            preexec_fn=become_user,
            cwd=TMP,
            env=ENVIRONMENT | (env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        try:
            self.line(60)
        except Failed:
            self.close()
            raise

    def line(self, timeout):
        text = b""
        until = time.monotonic() + timeout
        while not text.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise Failed(f"no answer in {timeout} s")
            piece = os.read(self.process.stdout.fileno(), 4096)
            if not piece:
                self.errors.seek(0)
                said = self.errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise Failed(said[-1][:300])
            text += piece
        return text.decode().strip()

    def ask(self, order, timeout=300):
        """The seconds that an order took, and its number."""
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.line(timeout)
        if answer.startswith("error"):
            raise Failed(answer)
        took, number = answer.split()
        return float(took), int(number)

    def close(self, grace=3.0):
        """Ends it, and says what it and its helpers have taken."""
        sample = Sample()
        self.process.stdin.close()
        killer = threading.Timer(60, lambda: os.killpg(self.process.pid, signal.SIGKILL))
        killer.start()
        collect(self.process, sample, self.known, grace)
        killer.cancel()
        self.process.stdout.close()
        self.errors.close()
        return sample


def turns(rounds, ways, env=None):
    """Starts commands in turn: name to (how many at once, command). The answer is name to seconds of each round that
    succeeded in full; the first rounds only warm the caches."""
    warming = 2
    listing = f"{TMP}/turns"
    with open(listing, "w", encoding="utf-8") as file:
        for name, (crowd, command) in ways.items():
            file.write(f"{name}\t{crowd}\t{command}\n")
    sample = run(f"probe turns {rounds + warming} {listing}", env=env, grace=1.0)
    times = {name: [] for name in ways}
    seen = dict.fromkeys(ways, 0)
    for line in sample.output.splitlines():
        name, took, code = line.split("\t")
        seen[name] += 1
        if seen[name] > warming and code == "0":
            times[name].append(float(took))
    return times
