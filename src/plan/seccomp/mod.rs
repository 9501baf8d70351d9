//! Filters of system calls: rules by name, and their translation to the kernel's instructions.
//!
//! ```text
//! arch? ─▶ number ─▶ a tree of comparisons over ranges of numbers ─▶ arguments, where a rule asks for them ─▶ answer
//! ```
//!
//! The tree makes a call cost some ten instructions; kernels from 5.11 on remember which numbers are always allowed and
//! run none at all.

mod docker;
mod profile;

use std::collections::BTreeMap;

use crate::sys::seccomp::{Instruction, MAX_INSTRUCTIONS};
use crate::sys::syscalls;

pub use profile::ProfileError;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and the kernel's log tells so.
    Log,
    /// It fails with this errno.
    Errno(u16),
    /// The thread gets SIGSYS.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

/// A demand on one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub argument: u8,
    /// The bits that count.
    pub mask: u64,
    /// Their value.
    pub value: u64,
    /// True if they must have that value, false if they must not.
    pub equal: bool,
}

/// One rule of a call: the action, where all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub action: Action,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// A filter by rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For a known call that no rule fits.
    default: Action,
    /// For a call that is newer than our table.
    unknown: Action,
    /// By number; the first rule that fits counts.
    rules: BTreeMap<u32, Vec<Rule>>,
}

/// A filter cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the filter of system calls has {count} instructions, more than the {MAX_INSTRUCTIONS} that the kernel takes"
)]
pub struct TooLong {
    /// How many it has.
    count: usize,
}

// Codes of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;

// Places in `struct seccomp_data`, linux/seccomp.h.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

// Answers of linux/seccomp.h.
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_KILL_THREAD: u32 = 0;
const RETURN_TRAP: u32 = 0x0003_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

impl Action {
    fn answer(self) -> u32 {
        match self {
            Self::Allow => RETURN_ALLOW,
            Self::Log => RETURN_LOG,
            Self::Errno(errno) => RETURN_ERRNO | u32::from(errno),
            Self::Trap => RETURN_TRAP,
            Self::KillThread => RETURN_KILL_THREAD,
            Self::KillProcess => RETURN_KILL_PROCESS,
        }
    }
}

impl Filter {
    /// A filter without rules.
    fn new(default: Action, unknown: Action) -> Self {
        Self { default, unknown, rules: BTreeMap::new() }
    }

    /// Adds a rule for a call by name; a name that this architecture lacks is none.
    fn add(&mut self, name: &str, rule: Rule) {
        if let Some(number) = syscalls::number(name) {
            self.put(number, rule);
        }
    }

    fn put(&mut self, number: u32, rule: Rule) {
        self.rules.entry(number).or_default().push(rule);
    }

    /// The kernel's form.
    pub fn compile(&self) -> Result<Vec<Instruction>, TooLong> {
        let mut code = vec![
            plain(LOAD, ARCHITECTURE_AT),
            branch(JUMP_EQUAL, syscalls::AUDIT_ARCHITECTURE, 1, 0),
            // Another architecture's numbers mean other calls.
            plain(RETURN, RETURN_KILL_PROCESS),
            plain(LOAD, NUMBER_AT),
        ];
        code.extend(tree(&self.ranges()));
        if code.len() > MAX_INSTRUCTIONS {
            return Err(TooLong { count: code.len() });
        }
        Ok(code)
    }

    /// What to do from which number on, in rising order, the first from 0.
    fn ranges(&self) -> Vec<(u32, Vec<Instruction>)> {
        let unknown = vec![plain(RETURN, self.unknown.answer())];
        let default = vec![plain(RETURN, self.default.answer())];
        let mut known: Vec<u32> = syscalls::all().map(|(_, number)| number).collect();
        known.sort_unstable();
        let mut ranges: Vec<(u32, Vec<Instruction>)> = vec![(0, unknown.clone())];
        let mut push = |from: u32, code: Vec<Instruction>| match ranges.last_mut() {
            Some((_, last)) if *last == code => {}
            Some((start, last)) if *start == from => *last = code,
            _ => ranges.push((from, code)),
        };
        for number in known {
            push(number, self.rules.get(&number).map_or_else(|| default.clone(), |rules| self.leaf(rules)));
            push(number + 1, unknown.clone());
        }
        // A range that got the code of the one before it when the gap between them closed.
        ranges.dedup_by(|next, before| next.1 == before.1);
        ranges
    }

    /// The rules of one call.
    fn leaf(&self, rules: &[Rule]) -> Vec<Instruction> {
        let mut code = Vec::new();
        for rule in rules {
            code.extend(check_all(&rule.conditions, rule.action.answer()));
            if rule.conditions.is_empty() {
                return code;
            }
        }
        code.push(plain(RETURN, self.default.answer()));
        code
    }
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, value }
}

fn branch(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

/// Finds the range of the number that was loaded, by halves.
fn tree(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(_, code)] => code.clone(),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let pivot = high.first().map_or(0, |(from, _)| *from);
            let (low, high) = (tree(low), tree(high));
            // A branch reaches 255 instructions, a jump any number.
            let over = u32::try_from(low.len()).unwrap_or(u32::MAX);
            let mut code = vec![branch(JUMP_NOT_BELOW, pivot, 0, 1), plain(JUMP, over)];
            code.extend(low);
            code.extend(high);
            code
        }
    }
}

/// `answer` where all conditions hold; else the code goes on behind.
fn check_all(conditions: &[Condition], answer: u32) -> Vec<Instruction> {
    // Built from the end, so that it is known how far the end is.
    let mut code = vec![plain(RETURN, answer)];
    for condition in conditions.iter().rev() {
        let rest = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut checks = check(condition, rest);
        checks.extend(code);
        code = checks;
    }
    code
}

/// Falls through where the condition holds, else leaves out the `rest` behind it.
fn check(condition: &Condition, rest: u8) -> Vec<Instruction> {
    let at = ARGUMENTS_AT + 8 * u32::from(condition.argument);
    let word = |value: u64, high: bool| {
        let value = if high { value >> 32 } else { value & u64::from(u32::MAX) };
        u32::try_from(value).unwrap_or(u32::MAX)
    };
    let half = |high: bool| {
        let mut code = vec![plain(LOAD, if high { at + 4 } else { at })];
        let mask = word(condition.mask, high);
        if mask != u32::MAX {
            code.push(plain(AND, mask));
        }
        (code, word(condition.value, high))
    };
    let ((mut code, high), (low_code, low)) = (half(true), half(false));
    let low_length = u8::try_from(low_code.len() + 1).unwrap_or(u8::MAX);
    let to_end = rest.saturating_add(low_length);
    if condition.equal {
        code.push(branch(JUMP_EQUAL, high, 0, to_end));
        code.extend(low_code);
        code.push(branch(JUMP_EQUAL, low, 0, rest));
    } else {
        // A difference in the upper half is enough.
        code.push(branch(JUMP_EQUAL, high, 0, low_length));
        code.extend(low_code);
        code.push(branch(JUMP_EQUAL, low, rest, 0));
    }
    code
}

#[cfg(test)]
mod tests;
