//! Filters of system calls: the form in which the kernel takes them, and loading one.

use super::{Errno, Result};

/// One instruction of a filter (`struct sock_filter`, linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to leave out where a comparison holds.
    pub jump_true: u8,
    /// How many where it does not.
    pub jump_false: u8,
    /// The operand.
    pub value: u32,
}

/// Most instructions of a filter (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Loads a filter for this process and all that it becomes or starts. no-new-privileges must be set before.
///
/// SPEC_ALLOW: without it kernels before 5.16 turn on a mitigation of speculative stores that costs some programs a
/// third of their speed.
pub fn load(filter: &[Instruction]) -> Result<()> {
    let instructions: Vec<libc::sock_filter> = filter
        .iter()
        .map(|one| libc::sock_filter { code: one.code, jt: one.jump_true, jf: one.jump_false, k: one.value })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the program points to `len` instructions that live during the call; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}
