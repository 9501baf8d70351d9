//! A pair of sockets between the launcher and its file server, over which device fds travel.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use super::Result;

/// Most fds that one message carries: one for each server thread, far below the kernel's 253 (SCM_MAX_FD).
pub const MAX_FDS: usize = 64;

/// Two connected sockets that keep message borders, closed on exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends `text` and the fds in one message. EPIPE means that the other side is gone; no signal is raised.
pub fn send(socket: &OwnedFd, text: &[u8], fds: &[OwnedFd]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &control[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(text)], control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Waits for one message. `None` means that the other side closed. Fds arrive close-on-exec.
pub fn receive(socket: &OwnedFd, max_bytes: usize) -> Result<Option<Message>> {
    receive_with(socket, max_bytes, MsgFlags::empty())
}

/// As [`receive`], but EAGAIN where it would wait.
pub fn try_receive(socket: &OwnedFd, max_bytes: usize) -> Result<Option<Message>> {
    receive_with(socket, max_bytes, MsgFlags::MSG_DONTWAIT)
}

/// The bytes of a message and the fds that came with it.
pub type Message = (Vec<u8>, Vec<OwnedFd>);

fn receive_with(socket: &OwnedFd, max_bytes: usize, flags: MsgFlags) -> Result<Option<Message>> {
    let mut text = vec![0; max_bytes];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        flags | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            // SAFETY: the kernel has just made these fds for this process, and nobody else knows their numbers.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let count = message.bytes;
    if count == 0 && fds.is_empty() {
        return Ok(None);
    }
    text.truncate(count);
    Ok(Some((text, fds)))
}
