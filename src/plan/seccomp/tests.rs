use crate::bundle::CapabilitySet;
use crate::sys::seccomp::Instruction;
use crate::sys::syscalls;

use super::{ARCHITECTURE_AT, ARGUMENTS_AT, Filter, RETURN_KILL_PROCESS, TooLong};

/// What the kernel would do, by its rules for these instructions.
fn answer(code: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let (mut at, mut loaded) = (0, 0_u32);
    loop {
        let one = code[at];
        at += 1;
        match one.code {
            super::LOAD => {
                loaded = match one.value {
                    0 => number,
                    ARCHITECTURE_AT => architecture,
                    place => {
                        let place = place - ARGUMENTS_AT;
                        let argument = arguments[usize::try_from(place / 8).unwrap()];
                        let shift = if place % 8 == 4 { 32 } else { 0 };
                        u32::try_from((argument >> shift) & u64::from(u32::MAX)).unwrap()
                    }
                }
            }
            super::AND => loaded &= one.value,
            super::JUMP => at += usize::try_from(one.value).unwrap(),
            super::JUMP_EQUAL | super::JUMP_NOT_BELOW => {
                let holds =
                    if one.code == super::JUMP_EQUAL { loaded == one.value } else { loaded >= one.value };
                at += usize::from(if holds { one.jump_true } else { one.jump_false });
            }
            super::RETURN => return one.value,
            other => panic!("{other:#x}"),
        }
    }
}

fn shown(filter: &Filter, name: &str, arguments: [u64; 6]) -> String {
    let code = filter.compile().unwrap();
    let number = syscalls::number(name).unwrap_or_else(|| name.parse().unwrap());
    match answer(&code, syscalls::AUDIT_ARCHITECTURE, number, arguments) {
        super::RETURN_ALLOW => "allow".into(),
        other if other & 0xffff_0000 == super::RETURN_ERRNO => format!("errno {}", other & 0xffff),
        other => format!("{other:#x}"),
    }
}

#[test]
fn dockers_filter_answers_as_dockers() {
    let filter = Filter::docker(CapabilitySet::DOCKER);
    for (name, first, expected) in [
        ("read", 0, "allow"),
        ("openat2", 0, "allow"),
        ("ptrace", 0, "allow"),
        ("mount", 0, "errno 1"),
        ("unshare", 0, "errno 1"),
        ("bpf", 0, "errno 1"),
        ("userfaultfd", 0, "errno 1"),
        ("io_uring_setup", 0, "errno 1"),
        ("clone3", 0, "errno 38"),
        ("clone", 0x0100, "allow"),
        ("clone", 0x1000_0000, "errno 1"),
        ("clone", 0x0002_0000, "errno 1"),
        ("socket", 2, "allow"),
        ("socket", 40, "errno 1"),
        ("socket", 1 << 40, "allow"),
        ("personality", 0x0002_0008, "allow"),
        ("personality", 0xffff_ffff, "allow"),
        ("personality", 0x0040_0000, "errno 1"),
        ("personality", 0x1_0000_0000, "errno 1"),
        // Newer than any table, and x32's numbers on x86-64.
        ("9999", 0, "errno 38"),
        ("1073741824", 0, "errno 38"),
    ] {
        assert_eq!(shown(&filter, name, [first, 0, 0, 0, 0, 0]), expected, "{name} {first:#x}");
    }
    let code = filter.compile().unwrap();
    assert_eq!(answer(&code, 0x4000_0003, 0, [0; 6]), RETURN_KILL_PROCESS);
    let admin = Filter::docker(CapabilitySet::ALL);
    for name in ["mount", "unshare", "clone3", "bpf", "kcmp", "mbind"] {
        assert_eq!(shown(&admin, name, [0; 6]), "allow", "{name}");
    }
    assert_eq!(shown(&admin, "userfaultfd", [0; 6]), "errno 1");
    // Each call of the table, by the tree, is what its rules say.
    for (name, number) in syscalls::all() {
        let has_rule = filter.rules.contains_key(&number);
        let found = shown(&filter, name, [u64::MAX; 6]);
        assert!(has_rule || found == "errno 1", "{name}: {found}");
    }
}

#[test]
fn reads_profiles_of_dockers_form() {
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[],"syscalls":[
        {"names":["mkdir","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"name":"getpid","action":"SCMP_ACT_KILL_PROCESS"},
        {"names":["dup"],"action":"SCMP_ACT_ERRNO","args":[
            {"index":0,"value":7,"op":"SCMP_CMP_EQ"},{"index":1,"value":240,"valueTwo":16,"op":"SCMP_CMP_MASKED_EQ"}]},
        {"names":["getppid"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["getuid"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["getgid"],"action":"SCMP_ACT_ERRNO","includes":{"arches":["s390x"]}}]}"#;
    let filter = Filter::parse("f", text, CapabilitySet::DOCKER).unwrap();
    for (name, arguments, expected) in [
        ("mkdirat", [0; 6], "allow"),
        ("getpid", [0; 6], "0x80000000"),
        ("dup", [7, 0x1f, 0, 0, 0, 0], "errno 1"),
        ("dup", [7, 0x2f, 0, 0, 0, 0], "allow"),
        ("dup", [8, 0x1f, 0, 0, 0, 0], "allow"),
        ("dup", [1 << 32 | 7, 0x1f, 0, 0, 0, 0], "allow"),
        ("getppid", [0; 6], "allow"),
        ("getuid", [0; 6], "errno 1"),
        ("getgid", [0; 6], "allow"),
    ] {
        assert_eq!(shown(&filter, name, arguments), expected, "{name}");
    }
    let error = |text: &str| Filter::parse("f", text, CapabilitySet::DOCKER).unwrap_err().to_string();
    assert!(error("{").starts_with("`f` is not a seccomp profile: "));
    assert_eq!(error(r#"{"defaultAction":"X"}"#), "`f`: there is no action `X`");
    let with = |rest: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["dup"],"action":"SCMP_ACT_ALLOW",{rest}}}]}}"#
        )
    };
    assert_eq!(
        error(&with(r#""args":[{"index":0,"value":1,"op":"SCMP_CMP_GT"}]"#)),
        "`f`: the comparison `SCMP_CMP_GT` of `dup` is not supported"
    );
    assert_eq!(
        error(&with(r#""args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]"#)),
        "`f`: `dup` has no argument 6"
    );
}

#[test]
fn a_filter_that_the_kernel_would_not_take_is_told() {
    let rule = |n: u64| {
        format!(
            r#"{{"names":["dup"],"action":"SCMP_ACT_ERRNO","args":[{{"index":0,"value":{n},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules: Vec<_> = (0..2000).map(rule).collect();
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","));
    let filter = Filter::parse("f", &text, CapabilitySet::DOCKER).unwrap();
    assert!(matches!(filter.compile(), Err(TooLong { .. })));
}
