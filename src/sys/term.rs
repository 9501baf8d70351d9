//! The terminal: a line typed unseen.

use std::io;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// Puts the terminal back as it was.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // If the terminal has gone, nobody needs its echo.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Reads a line from the terminal on standard input without showing it, and without its end.
pub fn read_hidden_line() -> io::Result<String> {
    let before = tcgetattr(io::stdin())?;
    let mut quiet = before.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    let _restore = Restore(before);
    tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
