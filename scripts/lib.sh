# shellcheck shell=bash
# What the scripts share: messages, root or not, packages, an ordinary user. Sourced, never run.

# The repository.
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Debian keeps daemons and mkfs-like tools here; an ordinary user's PATH lacks it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

note() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT]: the same form as the program's own errors.
die() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

has() { command -v "$1" >/dev/null 2>&1; }

# now: milliseconds since the epoch, without a fork where bash knows them.
now() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "${t%???}"; }

# is_debian12: whether packages can be installed by the names used here.
is_debian12() {
    has apt-get && (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ])
}

# missing_packages PACKAGE=PROGRAM…: the packages whose program is not there. A path stands for itself.
missing_packages() {
    local pair
    for pair in "$@"; do
        case ${pair#*=} in
        /*) [ -e "${pair#*=}" ] ;;
        *) has "${pair#*=}" ;;
        esac || printf '%s\n' "${pair%%=*}"
    done | sort -u
}

# What a build needs beside Rust: a linker and the C library's start files, for all crates, and a C compiler for some.
BUILD_PACKAGES=(gcc=cc libc6-dev=/usr/include/stdlib.h)

# need_packages PACKAGE=PROGRAM…: installs what is missing as root on Debian 12; elsewhere returns 1 after it has said what
# is missing and how to get it.
need_packages() {
    local missing
    missing=$(missing_packages "$@" | paste -sd' ')
    [ -n "$missing" ] || return 0
    if is_root && is_debian12; then
        note "installing $missing"
        # Daemons must not start by themselves: the tests start their own.
        local policy=/usr/sbin/policy-rc.d made=
        [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 0755 "$policy"; made=1; }
        # Left behind, it would keep every service of the machine from starting for ever.
        # shellcheck disable=SC2064
        [ -z "$made" ] || trap "rm -f '$policy'" EXIT INT TERM
        local failed=
        # shellcheck disable=SC2086
        apt_install $missing || failed=1
        [ -z "$made" ] || { rm -f "$policy"; trap - EXIT INT TERM; }
        [ -z "$failed" ] || die "apt-get could not install: $missing" "see its messages above"
        return 0
    fi
    note "missing on this machine: $missing"
    if is_debian12; then
        note "  as root: apt-get install --no-install-recommends $missing"
    else
        note "  these are the names of Debian 12's packages; install what your system calls them"
    fi
    return 1
}

apt_install() {
    local log
    log=$(mktemp)
    # The lists of a fresh machine may be empty or old, so a first failure asks for new ones.
    if DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1 ||
        { apt-get update -q >"$log" 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
}

# need_cargo: a Rust that is new enough, from the PATH or from rustup's usual place.
need_cargo() {
    has cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$TOP/Cargo.toml")
    has cargo || die "Rust is not installed: there is no cargo" "install Rust $wanted or newer from https://rustup.rs"
    # From within the repository, so that a toolchain set for it counts.
    have=$(cd "$TOP" && cargo --version | awk '{print $2}')
    [ "$(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1)" = "$wanted" ] ||
        die "cargo is $have, and slipway needs $wanted" "run: rustup update stable"
    need_packages "${BUILD_PACKAGES[@]}" || die "Rust programs cannot be built here without a C compiler and the C library's headers"
}

# userns_problem [AS…]: why user namespaces cannot be made, in words; nothing if they can. AS is a prefix that runs a
# command as somebody else.
userns_problem() {
    local value
    value=$(cat /proc/sys/user/max_user_namespaces 2>/dev/null || echo missing)
    case $value in
    missing) echo "this kernel has no user namespaces" ;;
    0) echo "user namespaces are off here: user.max_user_namespaces = 0" ;;
    *)
        # `true` in the new namespaces is run by its path: the user's PATH may be another one.
        "$@" unshare --user --mount --map-root-user /bin/true 2>/dev/null ||
            echo "user namespaces are forbidden here for ordinary users (a sysctl, AppArmor, or an outer container)"
        ;;
    esac
}

# fuse_problem [AS…]: the same for /dev/fuse.
fuse_problem() {
    if [ ! -e /dev/fuse ]; then
        echo "there is no /dev/fuse (module fuse is not loaded, or an outer container hides it)"
    elif ! "$@" /bin/sh -c ': <>/dev/fuse' 2>/dev/null; then
        echo "/dev/fuse may not be opened by ordinary users (its mode is $(stat -c %a /dev/fuse), udev gives it 666)"
    fi
}

# open_fuse: makes /dev/fuse what udev makes it. Some containers and VMs without udev have it 0600.
open_fuse() {
    is_root && [ -c /dev/fuse ] || return 0
    [ "$(stat -c %a /dev/fuse)" = 666 ] || chmod 0666 /dev/fuse 2>/dev/null || true
}

# make_test_user: the unprivileged user that root's tests and demonstrations become.
TEST_USER=slipway-test
make_test_user() {
    getent passwd "$TEST_USER" >/dev/null && return 0
    useradd --system --create-home --home-dir "/var/lib/$TEST_USER" --shell /bin/sh "$TEST_USER"
}

# make_work_directory NAME: a place in WORK, removed at the end, where an ordinary user can work: bin, and a home that is
# its own. RUN_UID and RUN_GID are that user: oneself, or for root the one who called sudo, the user of the tests, or nobody.
make_work_directory() {
    # Not below TMPDIR: root's own may be closed to others.
    WORK=$(mktemp -d "/tmp/$1.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    RUN_UID=$(id -u) RUN_GID=$(id -g)
    if is_root; then
        local name=${SUDO_USER:-$TEST_USER}
        getent passwd "$name" >/dev/null && [ "$(id -u "$name")" != 0 ] || name=nobody
        RUN_UID=$(id -u "$name") RUN_GID=$(id -g "$name")
    fi
    # Also where root's umask is 077.
    chmod 0755 "$WORK"
    mkdir -m 0755 "$WORK/bin"
    mkdir -m 0700 "$WORK/home"
    ! is_root || chown "$RUN_UID:$RUN_GID" "$WORK/home"
}

# as_user COMMAND…: runs it as that user, in its home, with a clean environment.
as_user() {
    local become=()
    ! is_root || become=(setpriv --reuid "$RUN_UID" --regid "$RUN_GID" --clear-groups --)
    (cd "$WORK/home" && exec "${become[@]}" env -i HOME="$WORK/home" LANG=C.UTF-8 PATH="$WORK/bin:/usr/bin:/bin:/usr/sbin:/sbin" "$@")
}

# debian_root TAR: a minimal Debian root file system, made by debootstrap from the mirror that apt uses here. Needs root.
debian_root() {
    local work mirror log
    work=$(mktemp -d "$1.XXXXXX")
    log=$work/log
    mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    mirror=${mirror:-$(awk '/^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { print $i; exit } }' /etc/apt/sources.list 2>/dev/null || true)}
    # shellcheck disable=SC2086
    debootstrap --variant=minbase bookworm "$work/root" $mirror >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        rm -rf "$work"
        die "debootstrap could not make a Debian root" "it needs root and a Debian mirror"
    }
    tar -C "$work/root" --numeric-owner --xattrs -cf "$work/tar" .
    mv "$work/tar" "$1"
    rm -rf "$work"
}

# ---- a Docker image from the files of this host -------------------------------------------------------------------

# put ROOT FILE…: copies files to the same paths below ROOT, links followed. The links of a merged /usr (bin -> usr/bin)
# are made as the host has them.
put() {
    local root=$1 link file
    shift
    if [ ! -d "$root" ]; then
        mkdir -p "$root"
        for link in bin sbin lib lib64; do
            [ ! -L "/$link" ] || { mkdir -p "$root/$(readlink "/$link")" && cp -P "/$link" "$root/"; }
        done
    fi
    for file in "$@"; do
        [ -e "$root$file" ] || install -D -m "$(stat -L -c %a "$file")" "$file" "$root$file"
    done
}

# put_programs ROOT NAME…: programs of the PATH with every library that they load.
put_programs() {
    local root=$1 name program
    shift
    for name in "$@"; do
        program=$(type -P "$name") || die "\`$name\` is not on this machine"
        put "$root" "$program"
        # A line is `name => /path (0x…)`, or `/path (0x…)` for the loader; a static program has none.
        { ldd "$program" 2>/dev/null || true; } | sed -n 's/^\(.*=>\)\{0,1\}[[:space:]]*\(\/[^ ]*\) (0x.*/\2/p' |
            while read -r library; do put "$root" "$library"; done
    done
}

# docker_archive OUT NAME CMD-JSON ROOT…: what `docker save NAME` writes: an OCI layout with a manifest.json beside it, one
# layer for each ROOT, base first.
docker_archive() {
    local out=$1 name=$2 cmd=$3 work root digest diff_ids='' layers='' paths='' config manifest descriptor
    shift 3
    work=$(mktemp -d "$out.XXXXXX")
    mkdir -p "$work/blobs/sha256"
    for root in "$@"; do
        tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer" .
        digest=$(blob "$work" "$work/layer")
        diff_ids+="${diff_ids:+,}\"sha256:$digest\""
        layers+="${layers:+,}$(descriptor "$work" application/vnd.oci.image.layer.v1.tar "$digest")"
        paths+="${paths:+,}\"blobs/sha256/$digest\""
    done
    printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=%s"],"Cmd":%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(goarch)" /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$cmd" "$diff_ids" >"$work/json"
    config=$(blob "$work" "$work/json")
    printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' application/vnd.oci.image.manifest.v1+json \
        "$(descriptor "$work" application/vnd.oci.image.config.v1+json "$config")" "$layers" >"$work/json"
    manifest=$(blob "$work" "$work/json")
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
    descriptor=$(descriptor "$work" application/vnd.oci.image.manifest.v1+json "$manifest")
    printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
        "${descriptor%\}}" "$name" "${name##*:}" >"$work/index.json"
    printf '[{"Config":"blobs/sha256/%s","RepoTags":["%s"],"Layers":[%s]}]' "$config" "$name" "$paths" >"$work/manifest.json"
    tar -C "$work" -cf "$out" blobs index.json manifest.json oci-layout
    rm -rf "$work"
}

# blob LAYOUT FILE: moves the file into the layout and prints its digest.
blob() {
    local digest
    digest=$(sha256sum "$2" | cut -d' ' -f1)
    mv "$2" "$1/blobs/sha256/$digest"
    echo "$digest"
}

# descriptor LAYOUT TYPE DIGEST
descriptor() {
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$2" "$3" "$(stat -c %s "$1/blobs/sha256/$3")"
}

goarch() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
    esac
}
