"""Acquisition: an image from a loopback registry to something that runs."""

import json
import os
import shlex

import measure
from measure import LAB, REGISTRY, TMP, USER, WORK, run
from page import Table, show

# What the lab's enroot took for `pysci`, beside apptainer on the same day, in seconds: it is in no distribution, so its
# time here is apptainer's time here in that proportion.
ENROOT_SECONDS, APPTAINER_SECONDS = 21.3, 47.7
KEPT = f"{WORK}/kept.json"


def manifest(image):
    """The layers of an image, and the bytes of its blobs."""
    layout = f"{LAB}/images/{image}"
    with open(f"{layout}/index.json", encoding="utf-8") as file:
        digest = json.load(file)["manifests"][0]["digest"]
    with open(f"{layout}/blobs/{digest.replace(':', '/')}", encoding="utf-8") as file:
        layers = json.load(file)["layers"]
    return [layer["digest"] for layer in layers], sum(layer["size"] for layer in layers)


def ways(image):
    """Name to (command, result, what to remove before the next run)."""
    target = f"{WORK}/acquire/{image}"
    source = f"docker://{REGISTRY}/{image}:latest"
    layers = " ".join(manifest(image)[0])
    by_hand = (
        f"mkdir -p {target}.dir && for layer in {layers}; do "
        f"curl -fs http://{REGISTRY}/v2/{image}/blobs/$layer | gzip -dc | "
        f"tar -x -C {target}.dir --no-same-owner --exclude='dev/*' --delay-directory-restore || exit 1; done"
    )
    return {
        "slipway convert": (f"slipway convert -q -F {source} {target}.sif", f"{target}.sif", f"{target}.sif"),
        "slipway pull": (f"slipway pull -q {REGISTRY}/{image}:latest", f"{WORK}/store", f"{WORK}/store"),
        "curl, gzip -dc, tar x": (by_hand, f"{target}.dir", f"{target}.dir"),
        "apptainer pull": (
            f"apptainer -q pull --no-https -F {target}.apptainer.sif {source}",
            f"{target}.apptainer.sif",
            f"{target}.apptainer.sif {USER.pw_dir}/.apptainer/cache",
        ),
    }


def size_mb(path):
    """The bytes that a file or directory holds on disk."""
    return int(run(f"du -s --block-size=1 {path}").output.split()[0]) / 1e6


def clean(what):
    run(f"for each in {what}; do [ ! -d $each ] || chmod -R u+rwX $each; done; rm -rf {what}", check=False)


def once(way):
    command, result, rubbish = way
    clean(rubbish)
    os.sync()
    sample = run(command, disk=True, grace=1.0, timeout=1800)
    sample.result_mb = size_mb(result)
    clean(rubbish)
    return sample


def kept(key, fresh, make):
    """A figure that takes minutes to make is made once for each lab."""
    known = {}
    if os.path.exists(KEPT):
        with open(KEPT, encoding="utf-8") as file:
            known = json.load(file)
    if fresh or key not in known:
        sample = make()
        known[key] = {name: value for name, value in vars(sample).items() if isinstance(value, float)}
        with open(KEPT, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        return sample
    sample = measure.Sample()
    vars(sample).update(known[key])
    sample.kept = True
    return sample


def table(image, rounds, fresh):
    """Measures all ways in turn. Apptainer takes minutes, so it has one run."""
    page = Table(
        f"Acquisition of `{image}`",
        "Loopback registry, its blobs in the page cache. Disk is what the file system lost: at its peak, and of that what "
        "neither the result nor kept blobs explain. Other work on the machine only adds to it, so the smallest of the runs counts.",
        head=["way", "runs", "wall s", "CPU s", "largest process MB", "disk peak MB", "of it temporary MB", "result MB"],
    )
    measure.warm(f"{LAB}/registry")
    samples = {}
    slow = "apptainer pull"
    for round_number in range(rounds):
        for name, way in ways(image).items():
            if name != slow:
                measure.say(f"acquire {image}, round {round_number + 1}: {name}")
                sample = page.attempt(f"{image}: {name}", once, way)
                samples.setdefault(name, []).extend([sample] if sample else [])
    measure.say(f"acquire {image}: {slow}")
    sample = page.attempt(f"{image}: {slow}", kept, f"{image}: {slow}", fresh, lambda: once(ways(image)[slow]))
    samples[slow] = [sample] if sample else []

    for name, of_way in samples.items():
        if of_way:
            peak = min(s.peak_disk_mb for s in of_way)
            left = min(s.peak_disk_mb - s.left_disk_mb for s in of_way)
            runs = f"{len(of_way)}{', kept' if hasattr(of_way[0], 'kept') else ''}"
            figures = (measure.median(of_way), measure.median(of_way, "cpu"), max(s.rss_mb for s in of_way), peak, left)
            page.rows.append((name, runs, *(show(f, "") for f in figures), show(of_way[0].result_mb, "")))

    def goals():
        ours, hand = samples["slipway convert"], samples["curl, gzip -dc, tar x"]
        wall = measure.median(ours)
        if samples[slow]:
            theirs = samples[slow][0]
            which = "`apptainer pull`, kept figure" if hasattr(theirs, "kept") else "`apptainer pull`"
            page.faster(f"{image} to a .sif", 12, wall, theirs.wall, against=which)
            enroot = theirs.wall * ENROOT_SECONDS / APPTAINER_SECONDS
            page.faster(f"{image} to a .sif", 6, wall, enroot, against="`enroot import` (computed)")
        page.at_most(f"{image} to a .sif", 1, wall, measure.median(hand), against="`curl | gzip -dc | tar x`")
        pulls = samples["slipway pull"]
        if pulls:
            page.at_most(f"{image}, pull into the store", 1, measure.median(pulls), measure.median(hand), against="the same")
        left = min(s.peak_disk_mb - s.left_disk_mb for s in ours)
        share = 100 * left / ours[0].result_mb
        page.goal(f"{image}, temporary disk", "< 5 % of the image", show(left, "MB"), "", f"{share:.1f} %", share < 5)
        rss = max(s.rss_mb for s in ours + pulls)
        page.goal(f"{image}, largest process", "< 512 MiB", show(rss, "MiB"), "", "", rss < 512)
        if samples[slow]:
            page.at_most(f"{image}, size of the .sif", 1.1, ours[0].result_mb, theirs.result_mb, "MB", "gzip-9 squashfs (apptainer's)")

    page.attempt(f"{image}: goals", goals)
    page.remarks.append(
        f"`enroot import` is no Debian package. Its time is computed: apptainer's here, times {ENROOT_SECONDS} / {APPTAINER_SECONDS}, "
        "which is what both took for `pysci` on one machine."
    )
    clean(f"{WORK}/acquire/{shlex.quote(image)}*")
    return page
