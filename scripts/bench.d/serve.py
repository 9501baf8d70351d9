"""Serving: the files of one image, read in one mount after the other. Each session is a fresh mount; its first answer is the
cold figure, made with empty caches, and its second the warm one."""

import os
import subprocess
import time
from contextlib import contextmanager

import files
from measure import Failed, Sample, Session, collect, children, drop_caches, median, say, run, TMP, USER, WORK
from page import Table, show
from start import BATCH

OPENED = 10000


@contextmanager
def session(command, top, env=None):
    """A probe and the directory whose files it shall see."""
    probe = Session(command, env)
    probe.top = top
    probe.taken = None
    try:
        yield probe
    finally:
        probe.taken = probe.close()


@contextmanager
def squashfuse(sif):
    """squashfuse_ll on the very file, and a probe that looks at the mount from outside."""
    place = f"{TMP}/squashfuse"
    run(f"mkdir -p {place}")
    known = children()
    server = subprocess.Popen(
        ["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups", "squashfuse_ll", "-f"]
        + ["-o", f"offset={files.offset(sif)}", sif, place],
        stderr=subprocess.DEVNULL,
    )
    try:
        # Not asked of the mount itself: it is closed to root.
        wait_for(lambda: f" {place} " in open("/proc/self/mounts", encoding="utf-8").read(), "squashfuse_ll mounts nothing")
        with session(f"exec {files.PROBE} serve", place) as probe:
            yield probe
    finally:
        subprocess.run(["umount", place], check=False)
        sample = Sample()
        collect(server, sample, known, 3.0)
    probe.taken = sample


@contextmanager
def kernel(sif):
    """The kernel's squashfs on the very file, mounted by root."""
    place = f"{TMP}/kernel"
    os.makedirs(place, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "squashfs", "-o", f"ro,loop,offset={files.offset(sif)}", sif, place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(done.stderr.strip())
    try:
        with session(f"exec {files.PROBE} serve", place) as probe:
            yield probe
    finally:
        subprocess.run(["umount", place], check=True)
        probe.taken = Sample()


def wait_for(what, problem):
    for _ in range(500):
        if what():
            return
        time.sleep(0.01)
    raise Failed(problem)


def ours(sif, env=None):
    return session(f"exec {files.in_slipway(sif)} /probe serve", "/", env)


def plain(tree):
    return session(f"exec {files.PROBE} serve", tree)


def read_table(image, rounds):
    """Reads everything and walks everything, cold and then warm."""
    page = Table(
        f"Reading all files of `{image}`",
        "Seconds inside the mount; its making is not in them. Each figure is of a fresh mount with empty caches (cold), and of "
        "the same order again in the same mount (warm, the best of three). squashfuse_ll and the kernel mount our .sif itself. The kernel's "
        "squashfs has one decompressor in this kernel's configuration if `CONFIG_SQUASHFS_DECOMP_SINGLE` is set.",
        head=["way", "order", "cold s", "warm s", "server CPU s, all four passes", "server MB"],
    )
    sif, tree = files.our_sif(image), files.directory(image)
    ways = {
        "slipway": lambda: ours(sif),
        "squashfuse_ll": lambda: squashfuse(sif),
        "kernel squashfs": lambda: kernel(sif),
        "directory": lambda: plain(tree),
    }
    orders = {"1 reader": "read 1", "2 readers": "read 2", "8 readers": "read 8", "walk": "walk"}
    cold, warm, server, numbers = {}, {}, {}, {}

    def one(way, order):
        drop_caches()
        with ways[way]() as probe:
            command = f"{orders[order]} {files.below(probe.top)}"
            first, number = probe.ask(command)
            cold.setdefault((way, order), []).append(first)
            warm.setdefault((way, order), []).append(min(probe.ask(command)[0] for _ in range(3)))
            numbers.setdefault(order, {})[way] = number
        helpers = probe.taken.helpers.values() if way == "slipway" else [(probe.taken.cpu, probe.taken.rss_mb)]
        server.setdefault((way, order), []).append((sum(cpu for cpu, _ in helpers), max((rss for _, rss in helpers), default=0)))

    for round_number in range(rounds):
        for order in orders:
            say(f"read {image}, round {round_number + 1}: {order}")
            for way in ways:
                page.attempt(f"{image}: {way}, {order}", one, way, order)
    for (way, order), times in cold.items():
        cpu, rss = (median([taken[i] for taken in server[way, order]]) for i in (0, 1))
        has_server = way in ("slipway", "squashfuse_ll")
        page.rows.append(
            (way, order, show(median(times), ""), show(median(warm[way, order]), ""))
            + ((show(cpu, ""), show(rss, "")) if has_server else ("", ""))
        )
    for order, seen in numbers.items():
        page.remarks.append(f"{order}: the probe counted " + ", ".join(f"{number} ({way})" for way, number in seen.items()))

    def goals(order):
        us = median(cold["slipway", order])
        page.faster(f"{order}, cold", 2, us, median(cold["squashfuse_ll", order]), against="squashfuse_ll")
        factor = 0.9 if order == "1 reader" else 1.2
        page.faster(f"{order}, cold", factor, us, median(cold["kernel squashfs", order]), against="kernel squashfs")
        page.at_most(f"{order}, warm", 1.1, median(warm["slipway", order]), median(warm["directory", order]), against="a directory")

    def walk_goals():
        page.at_most("walk, cold", 0.7, median(cold["slipway", "walk"]), median(cold["squashfuse_ll", "walk"]), against="squashfuse_ll")
        page.at_most("walk, warm", 1.1, median(warm["slipway", "walk"]), median(warm["kernel squashfs", "walk"]), against="kernel squashfs")
        rss = max(rss for (way, _), taken in server.items() if way == "slipway" for _, rss in taken)
        page.goal("server's memory", "≤ 64 MiB + cache (256)", show(rss, "MiB"), "", "", rss <= 64 + 256)

    for order in list(orders)[:3]:
        page.attempt(f"goals of {order}", goals, order)
    page.attempt("goals of the walk", walk_goals)
    return page


def open_table(image, rounds):
    """Open, read 4 KiB, close, of many files whose pages are all there."""
    page = Table(
        "Warm open, read and close",
        f"{OPENED} files of `{image}`, 4 KiB of each, one thread; the second and later rounds of one mount.",
        head=["way", "µs for a file"],
    )
    sif, tree, memory = files.our_sif(image), files.directory(image), f"{WORK}/memory"
    os.makedirs(memory, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,mode=1777", "tmpfs", memory], check=True)
    try:
        subprocess.run(["cp", "-a", f"{tree}/usr", memory], check=True)
        ways = {
            "tmpfs": lambda: plain(memory),
            "directory": lambda: plain(tree),
            "slipway, no-open": lambda: ours(sif, {"SLIPWAY_FUSE_NO_OPEN": "on"}),
            "slipway, each open asked": lambda: ours(sif, {"SLIPWAY_FUSE_NO_OPEN": "off"}),
            "squashfuse_ll": lambda: squashfuse(sif),
            "kernel squashfs": lambda: kernel(sif),
        }
        times = {}

        def one(way):
            with ways[way]() as probe:
                order = f"open {OPENED} {probe.top.rstrip('/')}/usr"
                probe.ask(order)
                for _ in range(3):
                    took, count = probe.ask(order)
                    times.setdefault(way, []).append(1e6 * took / count)

        for round_number in range(rounds):
            say(f"open, round {round_number + 1}")
            for way in ways:
                page.attempt(way, one, way)
    finally:
        subprocess.run(["umount", memory], check=True)
    page.rows = [(way, show(median(taken), "")) for way, taken in times.items()]

    def goals():
        page.at_most("open, read, close with no-open", 1.6, median(times["slipway, no-open"]), median(times["tmpfs"]), "µs", "tmpfs")
        asked, memory_time = median(times["slipway, each open asked"]), median(times["tmpfs"])
        page.goal("the same without", "said", show(asked, "µs"), show(memory_time, "µs"), f"{asked / memory_time:.2f}x", None)

    page.attempt("goals", goals)
    return page


def import_table(image, modules, rounds):
    """Python starting up: the work that a cluster's users wait for."""
    page = Table(
        f"`import {modules}` in `{image}`",
        "Wall seconds of the whole command, container and interpreter in it, and of the second import in one container. "
        "The hot list was recorded by one start before (`slipway run --record-hot`).",
        head=["way", "caches", "wall s", "CPU s", "server CPU s", "server MB"],
    )
    sif, tree = files.our_sif(image), files.directory(image)
    hot = f"{WORK}/files/{image}.hot.sif"
    program = f"python3 -c 'import {modules}'"
    word = f"import~{modules}".replace(" ", "~")
    run(f"rm -f {hot}*; ln {sif} {hot}")
    commands = {
        "directory, bwrap": f"exec {files.in_bwrap(tree)} {program}",
        "slipway": f"exec slipway run {sif} {program}",
        "slipway, hot list": f"exec slipway run {hot} {program}",
    }
    # Python would write its byte code beside the modules of the one that is writable.
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    page.attempt("recording", run, f"slipway run --record-hot {hot} {program}")
    samples, within = {}, {}

    def one(way, caches):
        samples.setdefault((way, caches), []).append(run(commands[way], env=env, cold=caches == "cold"))

    def join():
        # The first start has the keeper made, which the second one finds.
        run(commands["slipway"], env=env | BATCH, grace=0.2)
        samples.setdefault(("slipway", "batch script"), []).append(run(commands["slipway"], env=env | BATCH, grace=0.2))

    def again(way, command):
        with session(f"exec {command} serve", "/", env) as probe:
            probe.ask(f"exec python3 -c {word}")
            within.setdefault(way, []).extend(probe.ask(f"exec python3 -c {word}")[0] for _ in range(2))

    for way in commands:
        page.attempt(way, run, commands[way])
    for round_number in range(rounds):
        say(f"import {modules}, round {round_number + 1}")
        for caches in ("warm", "cold"):
            for way in commands:
                page.attempt(f"{way}, {caches}", one, way, caches)
        page.attempt("slipway, joining", join)
        page.attempt("directory, again", again, "directory", f"{files.in_bwrap(tree)} /mnt/probe")
        page.attempt("slipway, again", again, "slipway", f"{files.in_slipway(sif)} /probe")
    for (way, caches), taken in sorted(samples.items()):
        served = [next((v for k, v in s.helpers.items() if k.startswith("slipway")), (0, 0)) for s in taken]
        page.rows.append(
            (way, "warm, second start in a batch script" if caches == "batch script" else f"{caches}, new mount", show(median(taken), ""), show(median(taken, "cpu"), ""))
            + tuple(show(median([one[i] for one in served]), "") if way != "directory, bwrap" else "" for i in (0, 1))
        )
    page.rows += [(way, "warm, same mount", show(median(taken), ""), "", "", "") for way, taken in within.items()]

    def goals():
        base = {caches: median(samples["directory, bwrap", caches]) for caches in ("warm", "cold")}
        page.at_most("warm, same mount", 1.05, median(within["slipway"]), median(within["directory"]), against="a directory")
        page.at_most("warm, second start in a batch script", 1.05, median(samples["slipway", "batch script"]), base["warm"], against="a directory")
        page.at_most("warm, new mount", 1.05, median(samples["slipway", "warm"]), base["warm"], against="a directory")
        page.at_most("warm, new mount, hot list", 1.05, median(samples["slipway, hot list", "warm"]), base["warm"], against="a directory")
        page.at_most("cold, hot list", 1.0, median(samples["slipway, hot list", "cold"]), base["cold"], against="a directory")
        cold = median(samples["slipway", "cold"])
        page.goal("cold, no hot list", "said", show(cold), show(base["cold"]), f"{cold / base['cold']:.2f}x", None)

    page.attempt("goals", goals)
    return page
