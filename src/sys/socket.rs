//! Sockets between our own processes, which keep message borders: pairs over which fds travel, and such that wait by a
//! name in a directory.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Errno, Result};

/// Most fds that one message carries: one for each server thread, far below the kernel's 253 (SCM_MAX_FD).
pub const MAX_FDS: usize = 64;

/// Two connected sockets that keep message borders, closed on exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// From here on [`receive`] and [`send`] give up with EAGAIN after so long.
pub fn set_patience(line: &OwnedFd, patience: Duration) -> Result<()> {
    let seconds = i64::try_from(patience.as_secs()).map_err(|_| Errno::EINVAL)?;
    let time = TimeVal::new(seconds, patience.subsec_micros().into());
    setsockopt(line, sockopt::ReceiveTimeout, &time)?;
    setsockopt(line, sockopt::SendTimeout, &time)
}

/// A socket that waits by the name `name` in an opened directory for those who connect. An older one of that name goes.
///
/// The kernel takes at most 107 bytes of a path, and directories have longer ones: procfs gives a short one for any.
pub fn listen_in(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let place = short_path(directory, name);
    match nix::unistd::unlink(place.as_str()) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(place.as_str())?)?;
    nix::sys::socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// Connects to the socket `name` in an opened directory.
pub fn connect_in(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let socket =
        nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(short_path(directory, name).as_str())?)?;
    Ok(socket)
}

/// Somebody who has connected; EAGAIN if nobody has.
pub fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    nix::sys::socket::accept4(listener, SockFlag::SOCK_CLOEXEC)
}

fn short_path(directory: BorrowedFd<'_>, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

/// Sends a message without waiting; EAGAIN if the other side has not taken enough of the earlier ones.
pub fn try_send(socket: &OwnedFd, text: &[u8]) -> Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(text)], &[], flags, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
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
