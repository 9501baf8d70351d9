"""The files that several tables share: our .sif, the same tree as a plain directory, apptainer's .sif."""

import os

from measure import Failed, REGISTRY, USER, WORK, run, say

PLACES = "usr var etc opt"
PROBE = "/opt/bench/probe"


def offset(sif):
    """Where the squashfs of a .sif begins: its superblock's magic stands on a page's border."""
    with open(sif, "rb") as file:
        for page in range(1, 1 << 12):
            file.seek(page * 4096)
            if file.read(4) == b"hsqs":
                return page * 4096
    raise Failed(f"no squashfs in {sif}")


def our_sif(image):
    """Made anew by each run of the harness: it is this version's work that is measured."""
    path = f"{WORK}/files/{image}.sif"
    if path not in MADE:
        say(f"making {path}")
        run(f"rm -f {path}*; slipway convert -q -F docker://{REGISTRY}/{image}:latest {path}")
        os.sync()
        MADE.add(path)
    return path


MADE = set()


def directory(image):
    """The same tree, unpacked."""
    path = f"{WORK}/files/{image}.dir"
    if not os.path.exists(f"{path}/usr"):
        sif = our_sif(image)
        say(f"making {path}")
        # 2 is what it says of device files, which only root can make.
        run(f"rm -rf {path}*; unsquashfs -n -q -o {offset(sif)} -d {path}.part {sif} || [ $? = 2 ]")
        # Mount points that bwrap and ch-run expect of an image.
        run(f"cd {path}.part && mkdir -p dev proc sys tmp home mnt && touch etc/hosts etc/resolv.conf && mv {path}.part {path}")
        os.sync()
    return path


def apptainer_sif(image):
    path = f"{WORK}/files/{image}.apptainer.sif"
    if not os.path.exists(path):
        say(f"making {path}")
        run(f"apptainer -q pull --no-https -F {path} docker://{REGISTRY}/{image}:latest; rm -rf {USER.pw_dir}/.apptainer/cache")
    return path


def below(top):
    """The directories that are read, in one way of serving them."""
    return " ".join(f"{top.rstrip('/')}/{place}" for place in PLACES.split())


def in_slipway(sif, flags=""):
    return f"slipway run {flags} -v {PROBE}:/probe:ro {sif}"


def in_bwrap(tree):
    return f"bwrap --ro-bind {tree} / --dev /dev --proc /proc --tmpfs /tmp --ro-bind /opt/bench /mnt"
