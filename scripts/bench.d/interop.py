"""Whether Apptainer and we run each other's files, and see the same trees."""

import os

import files
from measure import Failed, REGISTRY, USER, WORK, run, say, works
from page import Table

# Everything that a file of the image is, one line each, as one digest. What a runtime puts its own files over stays out.
LISTING = (
    "cd / && { find usr opt var/lib -xdev -printf '%p %y %m %l\\n'; find usr opt var/lib -xdev -type f -readable -printf '%p %s %T@\\n'; "
    "find usr opt var/lib -xdev -type f -readable -print0 | sort -z | xargs -0 sha256sum; } | LC_ALL=C sort | sha256sum"
)


def make(path, command):
    """A file of theirs, once for each lab."""
    if not os.path.exists(path):
        say(f"making {path}")
        run(command)
    return path


def interop_table(image):
    page = Table(f"Apptainer and we, with `{image}`", head=["what", "works"])
    ours, theirs = files.our_sif(image), files.apptainer_sif(image)
    base = f"{WORK}/files/{image}"
    source = f"docker://{REGISTRY}/{image}:latest"
    forget = f"rm -rf {USER.pw_dir}/.apptainer/cache"

    def check(what, command):
        say(f"interop: {what}")
        problem = works(command, grace=1.0)
        page.rows.append((what, problem or "yes"))
        page.goal(what, "works", "no" if problem else "yes", problem or "", "", not problem)

    def with_file(what, path, command):
        try:
            made = make(path, command)
        except Failed as failure:
            page.rows.append((what, f"Apptainer could not make it: {failure}"))
            return
        check(what, f"slipway run {made} sh -c 'test -e /etc/debian_version'")

    check("apptainer exec our.sif", f"apptainer -q exec {ours} true")
    check("apptainer run our.sif", f"echo exit | apptainer -q run {ours}")
    check("apptainer inspect our.sif", f"apptainer inspect {ours}")
    check("apptainer sif list our.sif", f"apptainer sif list {ours}")
    check("apptainer build --sandbox from our.sif", f"apptainer -q build -F --sandbox {base}.box {ours}; code=$?; rm -rf {base}.box; exit $code")
    check("we run apptainer's .sif (pull, gzip)", f"slipway run {theirs} true")
    with_file(
        "we run apptainer's .sif with zstd",
        f"{base}.zstd.sif",
        f"apptainer -q build --no-https --mksquashfs-args '-comp zstd -Xcompression-level 3' {base}.zstd.sif {source}; {forget}",
    )
    with_file(
        "we run apptainer's .sif made of a sandbox",
        f"{base}.of-box.sif",
        f"apptainer -q build --no-https --sandbox {base}.box {source} && apptainer -q build {base}.of-box.sif {base}.box; "
        f"code=$?; rm -rf {base}.box; {forget}; exit $code",
    )
    with_file(
        "we run apptainer's signed .sif",
        f"{base}.signed.sif",
        f"openssl genrsa -out {base}.pem 2048 && openssl rsa -in {base}.pem -pubout -out {base}.pub && cp {theirs} {base}.signed.part && "
        f"apptainer -q sign --key {base}.pem {base}.signed.part && apptainer -q verify --key {base}.pub {base}.signed.part && "
        f"mv {base}.signed.part {base}.signed.sif",
    )
    tree = files.directory(image)
    with_file("we run a bare squashfs", f"{base}.sqfs", f"mksquashfs {tree} {base}.sqfs -comp gzip -all-root -no-progress -quiet")
    with_file(
        "we run enroot's form (.sqsh: lzo, data not compressed)",
        f"{base}.sqsh",
        f"mksquashfs {tree} {base}.sqsh -comp lzo -noD -all-root -no-progress -quiet",
    )

    def trees():
        say("interop: trees")
        seen = {}
        for name, way in {
            "we on ours": f"slipway run {ours}",
            "we on theirs": f"slipway run {theirs}",
            "apptainer on ours": f"apptainer -q exec {ours}",
            "apptainer on theirs": f"apptainer -q exec {theirs}",
        }.items():
            with open(f"{WORK}/files/listing", "w", encoding="utf-8") as file:
                file.write(LISTING)
            seen[name] = run(f"{way} sh < {WORK}/files/listing").output.split()[0]
        same = len(set(seen.values())) == 1
        page.rows.append(("trees are equal, seen by both in both files", "yes" if same else ", ".join(f"{k}: {v[:12]}" for k, v in seen.items())))
        page.goal("trees are equal, seen by both in both files", "equal", "yes" if same else "no", "", "", same)

    page.attempt("trees", trees)
    return page
