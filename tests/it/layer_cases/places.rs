//! Groups 14 and 15: what images have at places that a container covers, and what an unprivileged image cannot keep.

use super::*;

#[test]
fn group_14_system_places() {
    let device =
        |typeflag, name: &str, numbers| Member { device: numbers, ..member(typeflag, name) }.mode(0o666);
    case("device nodes")
        .layer(&[dir("dev"), device(b'3', "dev/null", (1, 3)), device(b'4', "dev/sda", (8, 300)), member(b'6', "dev/pipe")])
        .unlike_umoci("without root it makes empty files of devices; a squashfs holds them, and no mount of ours lets them work")
        .gives("d755 dev\n c666 dev/null 1,3\n p755 dev/pipe\n b666 dev/sda 8,300");
    case("a console that is a file")
        .layer(&[dir("dev"), file("dev/console", "")])
        .gives("d755 dev\n f644 dev/console ``");
    case("content of /proc and /sys")
        .layer(&[dir("proc"), file("proc/cpuinfo", "1"), dir("sys").mode(0o555), dir("sys/fs")])
        .gives("d755 proc\n f644 proc/cpuinfo `1`\n d555 sys\n d755 sys/fs");
    case("links in /etc, none of which leads anywhere")
        .layer(&[
            dir("etc"),
            symlink("etc/mtab", "/proc/mounts"),
            symlink("etc/resolv.conf", "../run/systemd/stub"),
        ])
        .gives("d755 etc\n l etc/mtab -> /proc/mounts\n l etc/resolv.conf -> ../run/systemd/stub");
    case("a /tmp for its owner only").layer(&[dir("tmp").mode(0o755)]).gives("d755 tmp");
    case("links where directories are expected")
        .layer(&[
            dir("run"),
            dir("var"),
            symlink("var/run", "/run"),
            symlink("home", "usr/home"),
            dir("usr"),
            dir("usr/home"),
        ])
        .gives("l home -> usr/home\n d755 run\n d755 usr\n d755 usr/home\n d755 var\n l var/run -> /run");
    case("a home of root that others need")
        .layer(&[dir("root").mode(0o700), file("root/.bashrc", "x").mode(0o600)])
        .gives("d700 root\n f600 root/.bashrc `x`");
    assert_eq!(mode_of_root(&[&[dir("./").mode(0o700), file("a", "")]]), 0o700);
    case("what nobody may read, and a layer that writes into it")
        .layer(&[dir("d").mode(0o555), file("d/secret", "1").mode(0)])
        .layer(&[file("d/new", "2")])
        .layer(&[whiteout("d/secret")])
        .gives("d555 d\n f644 d/new `2`");
}

#[test]
fn group_15_privileges_and_attributes() {
    case("setuid and setgid, of another owner")
        .layer(&[
            Member { uid: 101, gid: 102, ..file("ping", "p").mode(0o4755) },
            file("wall", "w").mode(0o2755),
            dir("tmp").mode(0o1777),
        ])
        .gives("f4755 ping `p`\n d1777 tmp\n f2755 wall `w`");
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.b", b"2"),
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("SCHILY.xattr.security.ima", b"\x03"),
        ("SCHILY.xattr.security.selinux", b"system_u:object_r:bin_t:s0"),
        ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.fflags", b"schg"),
    ];
    case("attributes: the user's are kept, others mean privileges or steer an overlay")
        .layer(&[pax(records), file("f", ""), pax(records), dir("d")])
        .without_umoci()
        .gives("d755 d user.a=1 user.b=2\n f644 f `` user.a=1 user.b=2");
    case("attributes go with the file that has them")
        .layer(&[pax(&[("SCHILY.xattr.user.a", b"1")]), file("f", "1"), hard_link("g", "f")])
        .layer(&[file("f", "2")])
        .gives("f644 f `2`\n f644 g `1` user.a=1");
    case("owners beyond 32 bits, as packages of npm have")
        .layer(&[pax(&[("uid", b"99999999999"), ("gid", b"1516583083")]), file("f", "")])
        .without_umoci()
        .gives("f644 f ``");
    case("an attribute that is larger than Linux allows")
        .layer(&[pax(&[("SCHILY.xattr.user.big", &[b'x'; 65537])]), file("f", "")])
        .gives_error("attribute `user.big` of `f` in layer 0 from the top is larger than Linux allows");
}
