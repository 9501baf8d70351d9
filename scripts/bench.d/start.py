"""Starting: from exec to the end of `true`, beside the rivals, and containers that run on."""

import files
import measure
from measure import REGISTRY, TMP, USER, WORK, median, run, say, turns, works
from page import Table

CROWD = 32
# What makes a start one of several in a batch script: they share a mount for a while.
BATCH = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node"}


def start_table(image, rounds):
    page = Table(
        "Start",
        f"`true` in `{image}`, milliseconds from exec to exit, one command after the other in turn, all caches warm. "
        f"The crowd is {CROWD} at once, to the end of the last. CPU is that of all processes, without what fork and exec of `true` "
        "take in the harness; it is the figure that other work on the machine disturbs least.",
        head=["way", "median ms", "smallest ms", "CPU ms", f"{CROWD} at once ms"],
    )
    sif, tree, theirs = files.our_sif(image), files.directory(image), files.apptainer_sif(image)
    ways = {
        "fork and exec": "/bin/true",
        "bwrap, directory": f"bwrap --ro-bind {tree} / --proc /proc --dev /dev /bin/true",
        "slipway run, .sif": f"slipway run {sif} true",
        "ch-run, directory": f"ch-run {tree} -- true",
        "apptainer exec, its .sif": f"apptainer -q exec {theirs} true",
        "slipway exec": "slipway exec bench-up true",
        "podman exec": "podman exec bench-up true",
    }
    slow = ("apptainer exec, its .sif", "podman exec")

    def up():
        run("slipway rm -f bench-up", check=False)
        run(f"slipway run -d --name bench-up {sif} sleep 3600", grace=0.2)

    def podman_up():
        run(f"podman rm -f -t0 bench-up; podman run -d --name bench-up --network=host --tls-verify=false {REGISTRY}/{image}:latest sleep 3600", grace=0.5)

    try:
        page.attempt("slipway run -d", up)
        page.attempt("podman run -d", podman_up)
        for way, command in list(ways.items()):
            problem = works(command, grace=0.5)
            if problem:
                page.failed(way, problem)
                del ways[way]
        alone, crowd = in_turn(ways, slow, rounds)
        cpu = {way: [] for way in ways}
        for _ in range(few(rounds)):
            for way, command in ways.items():
                cpu[way].append(run(f"exec {command}", grace=0.5).cpu)
    finally:
        run("slipway rm -f bench-up", check=False)
        forget_podman()
    joins = ("slipway run, joining", "bwrap beside it")
    ways |= {way: ways.get(like, "/bin/false") for way, like in zip(joins, ("slipway run, .sif", "bwrap, directory"))}
    say("start in a batch script")
    alone |= turns(rounds, {way: (1, ways[way]) for way in joins}, BATCH)
    crowd |= turns(few(rounds), {way: (CROWD, ways[way]) for way in joins}, BATCH)

    ms = {way: 1e3 * median(times) for way, times in alone.items() if times}
    many = {way: 1e3 * median(times) for way, times in crowd.items() if times}
    for way in ways:
        took = 1e3 * (median(cpu[way]) - median(cpu["fork and exec"])) if way in cpu else None
        figures = (ms.get(way), 1e3 * min(alone[way]) if alone[way] else None, took, many.get(way))
        page.rows.append((way, *("" if f is None else f"{f:.2f}" for f in figures)))

    def goals():
        us = ms["slipway run, .sif"]
        page.at_most("`run IMAGE.sif true`", 1.5, us, ms["bwrap, directory"], "ms", "bwrap")
        page.faster("`run IMAGE.sif true`", 20, us, ms["apptainer exec, its .sif"], "ms", "`apptainer exec`")
        page.faster("`run IMAGE.sif true`", 1, us, ms["ch-run, directory"], "ms", "`ch-run` on a directory")

    def join_goals():
        us, theirs = (ms[way] for way in joins)
        page.goal("second start in a batch script", "≤ 3 ms", f"{us:.2f} ms", "", "", us <= 3)
        page.at_most("second start in a batch script", 1, us, theirs, "ms", "bwrap")
        page.at_most(f"{CROWD} such starts at once", 1.5, *(many[way] for way in joins), "ms", "bwrap")

    def crowd_goals():
        page.at_most(f"{CROWD} starts at once, each alone", 1.5, many["slipway run, .sif"], many["bwrap, directory"], "ms", "bwrap")

    def exec_goals():
        us = ms["slipway exec"]
        page.goal("`exec`", "≤ 4 ms", f"{us:.2f} ms", "", "", us <= 4)
        page.faster("`exec`", 20, us, ms["podman exec"], "ms", "`podman exec`")

    page.attempt("goals", goals)
    page.attempt("goals of a batch script", join_goals)
    page.attempt("goals of the crowd", crowd_goals)
    page.attempt("goals of exec", exec_goals)
    page.attempt("detached", detached, page, sif, rounds)
    page.attempt("calls", calls, page, sif, tree)
    return page


def few(rounds):
    return max(3, rounds // 10)


def in_turn(ways, slow, rounds):
    """Seconds of each way, one at a time and in a crowd; the slow ones have fewer rounds."""
    quick = [way for way in ways if way not in slow]
    slow = [way for way in slow if way in ways]
    say(f"start, {rounds} rounds")
    alone = turns(rounds, {way: (1, ways[way]) for way in quick})
    alone |= turns(few(rounds), {way: (1, ways[way]) for way in slow})
    say(f"start, {CROWD} at once")
    crowd = turns(few(rounds), {way: (CROWD, ways[way]) for way in quick})
    crowd |= turns(1, {way: (CROWD, ways[way]) for way in slow})
    return alone, crowd


def detached(page, sif, rounds):
    """A container's life: each step is a command of its own."""
    say("detached containers")
    steps = {
        "run -d": f"slipway run -d --name bench-% {sif} sleep 3600",
        "stop": "slipway stop bench-%",
        "rm": "slipway rm bench-%",
    }
    for step, times in turns(max(5, rounds // 5), {step: (1, command) for step, command in steps.items()}).items():
        if not times:
            raise measure.Failed(f"`slipway {step}` fails")
        ms = 1e3 * median(times)
        page.goal(f"`slipway {step}`", "≤ 15 ms", f"{ms:.2f} ms", "", "", ms <= 15)


def calls(page, sif, tree):
    """System calls of a start. Of ours, those of the process that becomes the workload: a tracer of the file server would
    wait for itself. Of bwrap, those of both its processes. The workload's own are in both."""
    listing = f"{TMP}/calls"
    ways = {
        "slipway run": f"strace -c -o {listing} slipway run {sif} true",
        "bwrap": f"strace -f -c -o {listing} bwrap --ro-bind {tree} / --proc /proc --dev /dev /bin/true",
    }
    for way, command in ways.items():
        run(command)
        with open(listing, encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip() and line.split()[0][0].isdigit()]
        total = next(line for line in lines if line[-1] == "total")
        page.goal(f"system calls of `{way} … true`", "listed", total[3], "", "", None)
        counts = sorted(((int(line[3]), line[-1]) for line in lines if line[-1] != "total"), reverse=True)
        page.remarks.append(f"calls of `{way}`: " + ", ".join(f"{name} {count}" for count, name in counts))


def forget_podman():
    """Ends what podman leaves: containers, and a process that keeps its namespaces."""
    run("podman rm -fa -t0; podman rmi -fa", check=False)
    run(f"kill $(cat /run/user/{USER.pw_uid}/libpod/tmp/pause.pid)", check=False)


def clean():
    run(f"rm -rf {WORK}/acquire {WORK}/store {TMP}", check=False)
