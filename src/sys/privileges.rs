//! What a process may do beyond its user: capabilities, and what an exec can gain.

use super::{Errno, Result};

/// From here on no exec gains privileges: setuid and file capabilities have no effect.
pub fn set_no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs()
}

/// Highest capability that prctl could know; kernels answer EINVAL above their own last one.
const MAX_CAPABILITY: u32 = 63;

/// Takes every capability but those of `keep` (a bit for each number) out of the bounding set, so that no later exec has
/// them: without CAP_SYS_ADMIN, root inside cannot make a read-only mount writable again or take it away. Those of `add`
/// outlive the exec of a user that is not root, too.
pub fn limit_capabilities(keep: u64, add: u64) -> Result<()> {
    let mut highest = MAX_CAPABILITY;
    for capability in 0..=MAX_CAPABILITY {
        // Those that stay are asked for, which says which is the kernel's last one.
        let act = if keep & (1 << capability) == 0 { libc::PR_CAPBSET_DROP } else { libc::PR_CAPBSET_READ };
        // SAFETY: both take a number and no pointer.
        let result = unsafe { libc::prctl(act, libc::c_ulong::from(capability), 0, 0, 0) };
        match Errno::result(result) {
            Err(Errno::EINVAL) => {
                highest = capability.saturating_sub(1);
                break;
            }
            other => other.map(drop)?,
        }
    }
    let add = add & keep & (u64::MAX >> (63 - highest.min(63)));
    if add == 0 { Ok(()) } else { keep_over_exec(add) }
}

/// struct __user_cap_header_struct and two of struct __user_cap_data_struct, linux/capability.h.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes capabilities ambient: an exec without set-user-ID bits or file capabilities keeps those.
fn keep_over_exec(add: u64) -> Result<()> {
    // _LINUX_CAPABILITY_VERSION_3: two words for each set.
    let header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: the header and the two data structures are as version 3 has them, and live during the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    for (word, half) in data.iter_mut().zip([add & u64::from(u32::MAX), add >> 32]) {
        word.inheritable |= u32::try_from(half).map_err(|_| Errno::EINVAL)? & word.permitted;
    }
    // SAFETY: as above; the kernel reads both.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    for capability in (0..=MAX_CAPABILITY).filter(|number| add & (1 << number) != 0) {
        let number = libc::c_ulong::from(capability);
        // SAFETY: takes numbers and no pointer.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) };
        Errno::result(result)?;
    }
    Ok(())
}
