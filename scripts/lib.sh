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

# missing_packages PACKAGE=PROGRAM…: the packages whose program is not there.
missing_packages() {
    local pair
    for pair in "$@"; do
        has "${pair#*=}" || printf '%s\n' "${pair%%=*}"
    done | sort -u
}

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
        local failed=
        # shellcheck disable=SC2086
        apt_install $missing || failed=1
        [ -z "$made" ] || rm -f "$policy"
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
    has cc || has gcc || has clang ||
        die "there is no C compiler, which the zstd and TLS crates need" "install the package gcc"
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
