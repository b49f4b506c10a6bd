//! Values that are given with a command, most of them secrets: as text, in a file, or on standard input.
//!
//! On a terminal standard input is one line, which is asked for on standard error and not shown. Meanwhile Ctrl-C is a
//! key like any other, read here: no key ends the program while the echo is off, and every way out of the question puts
//! the terminal back as it was.

use std::io::{self, IsTerminal, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use toolyard_types::Secret;

use super::context::Failure;

/// A value given as text, `@FILE` or `-`; a newline at the end of a file or of standard input is dropped. On a terminal
/// `what` says what is asked for.
pub(crate) fn read_value(value: &str, what: &str) -> Result<Secret, Failure> {
    match value {
        "-" => read_input(what),
        _ => read_given(value),
    }
}

/// The same for a password that is being set: nobody sees a mistyped one, so a person types it twice.
pub(crate) fn read_new_password(value: &str) -> Result<Secret, Failure> {
    let first = read_value(value, "Password")?;
    if value == "-" && io::stdin().is_terminal() && ask("Password, again: ")? != first.expose() {
        return Err(Failure::new("the two passwords are not the same; nothing was changed"));
    }
    Ok(first)
}

fn read_given(value: &str) -> Result<Secret, Failure> {
    let Some(file) = value.strip_prefix('@') else { return Ok(Secret::new(value)) };
    let text = std::fs::read_to_string(file).map_err(|error| Failure::new(format!("cannot read `{file}`: {error}")))?;
    Ok(Secret::new(text.strip_suffix('\n').unwrap_or(&text)))
}

fn read_input(what: &str) -> Result<Secret, Failure> {
    if io::stdin().is_terminal() {
        let line = ask(&format!("{what}: "))?;
        return if line.is_empty() { Err(Failure::new("nothing was entered")) } else { Ok(Secret::new(line)) };
    }
    let text = io::read_to_string(io::stdin())
        .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    match text.strip_suffix('\n').unwrap_or(&text) {
        "" => Err(Failure::new(format!(
            "nothing came on standard input, where `{what}` was to come from; it can be read from a file with @FILE too"
        ))),
        text => Ok(Secret::new(text)),
    }
}

/// Asks on the terminal; what is typed is not shown.
fn ask(prompt: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot read from the terminal: {error}"));
    let quiet = Quiet::begin().map_err(failed)?;
    eprint!("{}", super::output::safe(prompt));
    let typed = typed_line(io::stdin().lock().bytes());
    drop(quiet);
    eprintln!();
    match typed.map_err(failed)? {
        Some(line) => String::from_utf8(line).map_err(|_| Failure::new("what was entered is not UTF-8")),
        None => Err(Failure::interrupted("interrupted; nothing was changed")),
    }
}

/// Ctrl-C, Ctrl-Z and Ctrl-\, which end or stop a program.
const INTERRUPTS: [u8; 3] = [0x03, 0x1a, 0x1c];
const END_OF_INPUT: u8 = 0x04;
const BACKSPACES: [u8; 2] = [0x08, 0x7f];
/// Ctrl-U.
const ERASE_LINE: u8 = 0x15;

/// A line as a person types it, with the keys that correct it; nothing when it was interrupted.
fn typed_line(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for key in keys {
        match key? {
            b'\n' | b'\r' | END_OF_INPUT => break,
            key if INTERRUPTS.contains(&key) => return Ok(None),
            key if BACKSPACES.contains(&key) => {
                // The whole character: what continues one in UTF-8 has these two bits.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            ERASE_LINE => line.clear(),
            key => line.push(key),
        }
    }
    Ok(Some(line))
}

/// A terminal that shows nothing of what is typed and hands on every key, until this is dropped.
struct Quiet(libc::termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let terminal = io::stdin().as_raw_fd();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the pointer is to room for what the call writes.
        Errno::result(unsafe { libc::tcgetattr(terminal, before.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so it was written.
        let before: libc::termios = unsafe { before.assume_init() };
        let mut quiet = before;
        quiet.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
        quiet.c_cc[libc::VMIN] = 1;
        quiet.c_cc[libc::VTIME] = 0;
        set(&quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that went away needs nothing.
        let _ = set(&self.0);
    }
}

fn set(modes: &libc::termios) -> io::Result<()> {
    // SAFETY: the modes are read only, and are whole.
    Errno::result(unsafe { libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSADRAIN, modes) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::typed_line;

    fn typed(keys: &[u8]) -> Option<String> {
        let line = typed_line(keys.iter().map(|key| Ok(*key))).expect("no key fails");
        line.map(|line| String::from_utf8(line).expect("text"))
    }

    #[test]
    fn a_line_ends_at_enter_and_is_corrected_by_the_keys_people_know() {
        assert_eq!(typed(b"secret\nnext\n").as_deref(), Some("secret"));
        assert_eq!(typed("geheimnis\u{e4}\u{7f}!\r".as_bytes()).as_deref(), Some("geheimnis!"));
        assert_eq!(typed(b"wrong\x15right\x08t\n").as_deref(), Some("right"));
        assert_eq!(typed(b"\x7f\x7fa\x04").as_deref(), Some("a"));
        assert_eq!(typed(b"").as_deref(), Some(""));
    }

    #[test]
    fn an_interrupt_gives_no_line() {
        for key in [b"half\x03\n", b"half\x1a\n", b"half\x1c\n"] {
            assert_eq!(typed(key), None);
        }
    }
}
