//! Printing to people that never ends the program: standard output and standard error may be closed, or on a full disk, and
//! the standard library's macros panic then. These have their names, so that nobody takes those by mistake.

use std::fmt::Arguments;
use std::io::Write;

/// Prints a line on standard output.
macro_rules! println {
    () => { $crate::print::say(std::io::stdout(), format_args!(""), "\n") };
    ($($text:tt)*) => { $crate::print::say(std::io::stdout(), format_args!($($text)*), "\n") };
}

/// Prints on standard error.
macro_rules! eprint {
    ($($text:tt)*) => { $crate::print::say(std::io::stderr(), format_args!($($text)*), "") };
}

/// Prints a line on standard error.
macro_rules! eprintln {
    () => { $crate::print::say(std::io::stderr(), format_args!(""), "\n") };
    ($($text:tt)*) => { $crate::print::say(std::io::stderr(), format_args!($($text)*), "\n") };
}

pub(crate) fn say(mut to: impl Write, text: Arguments<'_>, end: &str) {
    // Where it cannot be said there is nobody to tell so.
    let _ = write!(to, "{text}{end}").and_then(|()| to.flush());
}
