"""scripts/bench --peers, the part inside the lab: measures every table that was asked for and writes the page."""

import argparse
import os
import subprocess
import time

import acquire
import interop
import measure
import serve
import start
from measure import LAB, TMP, USER, WORK, say
from page import Table, render

MODULES = {"pysci": "scipy.stats, pandas", "torch": "torch"}


def tables(asked, quick):
    """Every kind of work: a name for --only, and how it is measured."""
    few, some, many = (1, 1, 20) if quick else (3, 5, 100)
    return {
        "acquire-pysci": lambda: acquire.table("pysci", few, asked.fresh),
        "acquire-torch": lambda: acquire.table("torch", 1 if quick else 2, asked.fresh),
        "read": lambda: serve.read_table("pysci", few),
        "open": lambda: serve.open_table("pysci", few),
        "import-pysci": lambda: serve.import_table("pysci", MODULES["pysci"], some),
        "import-torch": lambda: serve.import_table("torch", MODULES["torch"], few),
        "start": lambda: start.start_table("small", many),
        "interop": lambda: interop.interop_table("small"),
    }


def machine():
    """The line that a reader needs to compare pages."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), os.uname().machine)
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = round(int(file.readline().split()[1]) / 1048576)
    return f"kernel {os.uname().release.split('-')[0]}, {model}, {os.cpu_count()} CPUs, {memory} GiB"


def peers():
    wanted = ["apptainer", "charliecloud", "podman", "bubblewrap", "squashfuse", "squashfs-tools"]
    listing = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *wanted], capture_output=True, text=True, check=False)
    return ", ".join(line.rsplit("-", 1)[0] for line in listing.stdout.splitlines())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="names of tables, or their beginnings, with commas")
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    parser.add_argument("--version", default="")
    parser.add_argument("--day", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("output")
    asked = parser.parse_args()

    for place in (WORK, TMP, f"{WORK}/files", f"{WORK}/acquire", f"{WORK}/store"):
        os.makedirs(place, exist_ok=True)
        os.chown(place, USER.pw_uid, USER.pw_gid)
    begun = time.monotonic()
    done = []
    wanted = [name for name in asked.only.split(",") if name]
    preamble = [
        f"slipway {asked.version}, {machine()}.",
        f"Beside it, from Debian: {peers()}.",
        "Everything runs as an ordinary user (the kernel's mounts excepted), the ways of a table in turn. Figures are medians. "
        "Loads of the machine, one minute's mean, at the beginning and the end: "
    ]
    load = os.getloadavg()[0]
    try:
        for name, table in tables(asked, asked.quick).items():
            if wanted and not any(name.startswith(one) for one in wanted):
                continue
            say(f"== {name}")
            broken = Table(name)
            page = broken.attempt(name, table) or broken
            done.append(page)
            loads = f"{load:.1f}, {os.getloadavg()[0]:.1f}. It took {(time.monotonic() - begun) / 60:.0f} minutes."
            # Written after each table, so that an end half-way leaves what is known.
            with open(asked.output, "w", encoding="utf-8") as file:
                file.write(render(f"Beside the others, {asked.day}", preamble[:2] + [preamble[2] + loads], done))
    finally:
        start.clean()


if __name__ == "__main__":
    main()
