//! An instance's log: two files of JSON lines, written by its supervisor, and those of its copies, and read by the agent.
//!
//! Bounded in every direction: a line at [`MAX_LINE_BYTES`], a file at [`MAX_FILE_BYTES`], two files. Texts
//! that the server was given as secrets are replaced before anything is written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use toolyard_types::agent::{LogLine, LogStream};
use toolyard_types::{Redaction, Secret, Timestamp};

/// The longest text of one line; more is cut off.
pub(crate) const MAX_LINE_BYTES: usize = 8 << 10;
/// How much more of a line is read, so that a secret across its bound is known before it is cut.
const MARGIN_BYTES: usize = 4 << 10;
/// A file is rotated when it has grown to this.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The directory of a log, below that of what it is of.
pub(crate) const LOGS: &str = "logs";

/// Where the log of the instance in `dir` is.
pub(crate) fn current_file(dir: &Path) -> PathBuf {
    dir.join("logs/current.jsonl")
}

fn previous_file(dir: &Path) -> PathBuf {
    dir.join("logs/previous.jsonl")
}

/// How much of a line is told as the reason why a server ended.
const MAX_REASON_CHARS: usize = 300;

/// What most likely says why, in the end of what a server wrote to standard error: the last line that names an error
/// and is not indented, as a stack and its causes are; else the very last line.
pub(crate) fn telling_line(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let indented = |line: &str| line.starts_with(char::is_whitespace);
    let last = |wanted: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| wanted(line));
    let at = last(&|line| names_error(line) && !indented(line))
        .or_else(|| last(&names_error))
        .or_else(|| lines.len().checked_sub(1))?;
    let mut told = lines[at].trim().to_owned();
    // Rust says in the next line what the panic was.
    if told.contains("panicked at")
        && let Some(next) = lines.get(at + 1)
    {
        told = format!("{told} {}", next.trim());
    }
    let told: String = told.chars().take(MAX_REASON_CHARS).collect();
    Some(toolyard_types::name::printable(&told))
}

/// Whether a line is one in which a runtime or a program says what went wrong.
fn names_error(line: &str) -> bool {
    let line = line.trim_start();
    let first = line.split([':', ' ', '(', '[']).next().unwrap_or_default();
    let word = first.to_ascii_lowercase();
    let kind = first.ends_with("Error") || first.ends_with("Exception");
    let said = matches!(word.as_str(), "error" | "fatal" | "panic" | "critical" | "exception" | "uncaught");
    kind || said || line.contains("panicked at")
}

/// Writes a log and rotates it, beside others who write the same one.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: PathBuf,
    file: Option<File>,
    redaction: Redaction,
    mark: String,
}

impl LogWriter {
    /// Opens the log of the instance in `dir`, continuing what is there. Every line begins with `mark`.
    pub(crate) fn open(dir: &Path, mark: &str, redact: Vec<Secret>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join(LOGS))?;
        let file = open_append(&current_file(dir))?;
        Ok(Self { dir: dir.to_owned(), file: Some(file), redaction: Redaction::of(&redact), mark: mark.to_owned() })
    }

    /// Writes one line. A full disk loses lines, never the server.
    pub(crate) fn write(&mut self, at: Timestamp, stream: LogStream, text: &str) {
        let text = format!("{}{}", self.mark, self.clean(text));
        let line = LogLine { at, stream, text, instance: None };
        let Ok(mut bytes) = serde_json::to_vec(&line) else { return };
        bytes.push(b'\n');
        if self.file.as_ref().is_none_or(|file| is_rotated(file, &self.dir)) {
            self.file = open_append(&current_file(&self.dir)).ok();
        }
        let size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        if size + bytes.len() as u64 > MAX_FILE_BYTES {
            self.rotate(MAX_FILE_BYTES.saturating_sub(bytes.len() as u64));
        }
        if let Some(file) = &mut self.file {
            // In one piece, at the end: lines of several writers do not mix.
            let _ = file.write_all(&bytes);
        }
    }

    /// `text` without secrets and not longer than a line may be.
    pub(crate) fn clean(&self, text: &str) -> String {
        bounded(self.redaction.clean(text).into_owned(), MAX_LINE_BYTES)
    }

    /// Begins a new file, unless the one that is there has room: then somebody else just did.
    fn rotate(&mut self, room_below: u64) {
        let lock = open_append(&self.dir.join("logs/lock")).ok();
        // Without the lock the worst is a file that is thrown away early.
        let _lock = lock.and_then(|file| Flock::lock(file, FlockArg::LockExclusive).ok());
        let current = current_file(&self.dir);
        let full = std::fs::metadata(&current).is_ok_and(|metadata| metadata.len() > room_below);
        // A rename that fails leaves the file to be truncated: bounded comes before complete.
        if full && std::fs::rename(&current, previous_file(&self.dir)).is_err() {
            let _ = OpenOptions::new().write(true).truncate(true).open(&current);
        }
        self.file = open_append(&current).ok();
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// `text` cut at a character boundary, with a mark where it was cut.
pub(crate) fn bounded(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let mut end = max_bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Splits a stream of bytes into lines without ever holding more than one line's bound.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    line: Vec<u8>,
}

impl LineSplitter {
    /// Adds bytes and calls `each` with every finished line, cut somewhat above [`MAX_LINE_BYTES`].
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = (MAX_LINE_BYTES + MARGIN_BYTES).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.finish(&mut each);
            }
        }
    }

    /// Hands out what is left without a line end.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(&str)) {
        if !self.line.is_empty() {
            each(String::from_utf8_lossy(&self.line).trim_end_matches('\r'));
        }
        self.line.clear();
    }
}

/// The last `count` lines of the instance in `dir`, and where to read on from.
pub(crate) fn tail(dir: &Path, count: usize) -> io::Result<(Vec<LogLine>, Follow)> {
    let mut follow = Follow { dir: dir.to_owned(), file: None, rest: Vec::new() };
    let mut lines = match File::open(previous_file(dir)) {
        Ok(mut file) => parse(&read_bounded(&mut file)?),
        Err(_) => Vec::new(),
    };
    lines.extend(follow.read()?);
    let from = lines.len().saturating_sub(count);
    Ok((lines.split_off(from), follow))
}

fn read_bounded(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(2 * MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Vec<LogLine> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// A place in a growing log; survives rotation.
#[derive(Debug)]
pub(crate) struct Follow {
    dir: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Follow {
    /// The lines written since the last call.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn read(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        if let Some(file) = &mut self.file {
            let bytes = read_bounded(file)?;
            lines.extend(self.take(&bytes));
        }
        if self.rotated()
            && let Ok(mut file) = File::open(current_file(&self.dir))
        {
            file.seek(SeekFrom::Start(0))?;
            self.rest.clear();
            let bytes = read_bounded(&mut file)?;
            lines.extend(self.take(&bytes));
            self.file = Some(file);
        }
        Ok(lines)
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<LogLine> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        parse(&whole)
    }

    fn rotated(&self) -> bool {
        self.file.as_ref().is_none_or(|file| is_rotated(file, &self.dir))
    }
}

/// Whether `file` is not the current one any more.
fn is_rotated(file: &File, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(current_file(dir))) {
        (Ok(held), Ok(now)) => held.ino() != now.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(dir: &Path) -> Vec<String> {
        tail(dir, 1_000_000).expect("a log").0.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_log_is_bounded_by_rotation_and_keeps_the_newest_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), "", vec![]).expect("a log");
        let text = "x".repeat(1000);
        for number in 0..5000 {
            log.write(Timestamp::from_ms(0), LogStream::Stderr, &format!("{number} {text}"));
        }
        let size: u64 = std::fs::read_dir(dir.path().join("logs"))
            .expect("logs")
            .map(|entry| entry.expect("a file").metadata().expect("metadata").len())
            .sum();
        assert!(size <= 2 * MAX_FILE_BYTES, "{size}");
        assert!(lines_of(dir.path()).last().expect("lines").starts_with("4999 "));
    }

    #[test]
    fn the_line_that_says_why_is_found_among_what_surrounds_it() {
        let node = "node:internal/modules/cjs/loader:1228\n  throw err;\n  ^\n\nError: Cannot find module './made.json'\n\
                    Require stack:\n- /x/start.js\n    at Module._load (node:internal:1)\n{\n  code: 'MODULE_NOT_FOUND',\n\
                    \x20 requireStack: [ '/x/start.js' ]\n}\n\nNode.js v20.20.2\n";
        assert_eq!(telling_line(node).as_deref(), Some("Error: Cannot find module './made.json'"));
        let python = "Traceback (most recent call last):\n  File \"x\", line 1\nKeyError: 'a'\n\nDuring handling:\n\n\
                      Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n";
        assert_eq!(telling_line(python).as_deref(), Some("ModuleNotFoundError: No module named 'x'"));
        let rust = "thread 'main' panicked at src/main.rs:1:2:\nno port\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(telling_line(rust).as_deref(), Some("thread 'main' panicked at src/main.rs:1:2: no port"));
        assert_eq!(telling_line("starting\nfatal: nothing to do\nbye\n").as_deref(), Some("fatal: nothing to do"));
        assert_eq!(telling_line("starting\n  bye \n\n").as_deref(), Some("bye"));
        assert_eq!(telling_line(" \n"), None);
    }

    #[test]
    fn a_secret_never_reaches_a_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), "", vec![Secret::new("hunter2")]).expect("a log");
        log.write(Timestamp::from_ms(0), LogStream::Stderr, "the key is hunter2, really hunter2");
        assert_eq!(lines_of(dir.path()), ["the key is [redacted], really [redacted]"]);
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let mut splitter = LineSplitter::default();
        let mut seen = Vec::new();
        for _ in 0..100 {
            splitter.push(&[b'y'; 1000], |line| seen.push(line.to_owned()));
        }
        splitter.push(b"\nnext\r\nla", |line| seen.push(line.to_owned()));
        splitter.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0].len(), MAX_LINE_BYTES + MARGIN_BYTES);
        assert_eq!(&seen[1..], ["next", "la"]);
    }

    #[test]
    fn following_survives_a_rotation() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), "", vec![]).expect("a log");
        log.write(Timestamp::from_ms(0), LogStream::Stderr, "before");
        let (first, mut follow) = tail(dir.path(), 10).expect("a log");
        assert_eq!(first.len(), 1);
        log.write(Timestamp::from_ms(0), LogStream::Stderr, "old file");
        log.rotate(0);
        log.write(Timestamp::from_ms(0), LogStream::Stderr, "new file");
        let texts: Vec<String> = follow.read().expect("lines").into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["old file", "new file"]);
    }

    #[test]
    fn several_write_one_log_and_whichever_fills_it_rotates_it_for_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut writers = ["", "[a] ", "[b] "].map(|mark| LogWriter::open(dir.path(), mark, vec![]).expect("a log"));
        let long = "x".repeat(MAX_LINE_BYTES / 2);
        let count = 4 * usize::try_from(MAX_FILE_BYTES).expect("it fits") / long.len();
        for number in 0..count {
            writers[number % 3].write(Timestamp::from_ms(0), LogStream::Stderr, &format!("{number} {long}"));
        }
        let sizes = [current_file(dir.path()), previous_file(dir.path())]
            .map(|file| std::fs::metadata(file).expect("a file").len());
        assert!(sizes.iter().all(|size| *size <= MAX_FILE_BYTES), "{sizes:?}");
        let lines = lines_of(dir.path());
        let numbers: Vec<usize> = lines
            .iter()
            .map(|line| {
                line.trim_start_matches("[a] ")
                    .trim_start_matches("[b] ")
                    .split(' ')
                    .next()
                    .expect("a word")
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert_eq!(numbers, (count - numbers.len()..count).collect::<Vec<_>>());
        assert!(lines.last().expect("lines").starts_with(["", "[a] ", "[b] "][(count - 1) % 3]));
    }
}
