//! What a monitor and an attached command say to each other, one message each way at a time.
//!
//! ```text
//! attach ─▶ monitor    i bytes        for the workload's standard input
//!                      e              no more input will come
//!                      w rows columns the window (two u16, little-endian)
//! monitor ─▶ attach    o bytes        from standard output, or the terminal
//!                      r bytes        from standard error
//! ```
//!
//! The line is closed when the container has ended and everything is sent. Nobody waits in a send: two that did could wait
//! for each other.

use crate::sys::pty::WindowSize;

use super::log::Stream;

/// The name of the monitor's socket in the container's directory.
pub(super) const SOCKET: &str = "attach";
/// Most bytes that one message carries beside its kind: well below a socket's buffer.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// The longest message.
pub(super) const MESSAGE_BYTES: usize = PIECE_BYTES + 1;

/// From an attached command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// For standard input.
    Input(Vec<u8>),
    /// No more input.
    EndOfInput,
    /// The window.
    Window(WindowSize),
}

impl Ask {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Input(bytes) => [b"i", bytes.as_slice()].concat(),
            Self::EndOfInput => b"e".to_vec(),
            Self::Window(size) => {
                [b"w".as_slice(), &size.rows.to_le_bytes(), &size.columns.to_le_bytes()].concat()
            }
        }
    }

    /// `None` for what a later version may say.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        Some(match message {
            [b'i', bytes @ ..] => Self::Input(bytes.to_vec()),
            [b'e'] => Self::EndOfInput,
            [b'w', r0, r1, c0, c1] => Self::Window(WindowSize {
                rows: u16::from_le_bytes([*r0, *r1]),
                columns: u16::from_le_bytes([*c0, *c1]),
            }),
            _ => return None,
        })
    }
}

/// Output as a message.
pub(super) fn output(stream: Stream, bytes: &[u8]) -> Vec<u8> {
    let kind = if stream == Stream::Stdout { b"o" } else { b"r" };
    [kind, bytes].concat()
}

/// The stream and bytes of a message of output.
pub(super) fn parse_output(message: &[u8]) -> Option<(Stream, &[u8])> {
    match message {
        [b'o', bytes @ ..] => Some((Stream::Stdout, bytes)),
        [b'r', bytes @ ..] => Some((Stream::Stderr, bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let size = WindowSize { rows: 300, columns: 7 };
        for ask in [Ask::Input(b"a\0b".to_vec()), Ask::EndOfInput, Ask::Window(size)] {
            assert_eq!(Ask::parse(&ask.to_bytes()), Some(ask));
        }
        assert_eq!(Ask::parse(b""), None);
        assert_eq!(Ask::parse(b"w1"), None);
        assert_eq!(parse_output(&output(Stream::Stderr, b"x")), Some((Stream::Stderr, b"x".as_slice())));
        assert_eq!(parse_output(b"?"), None);
    }
}
