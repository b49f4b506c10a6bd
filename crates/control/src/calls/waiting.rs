//! Call records that the database does not take now: on disk, bounded, until it does.
//!
//! They are lines of JSON in files of a few megabytes, the oldest first. A file goes when all of it was written; one
//! of which a part was written is replaced by what is left, so that nothing is written twice.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use toolyard_types::snapshot::CallRecord;

/// A file is ended when it is as long as this; it is read as a whole.
const FILE_BYTES: u64 = 2 << 20;
/// All of them together: half a million records or more.
const MAX_BYTES: u64 = 256 << 20;
const SUFFIX: &str = ".jsonl";

/// The records that wait, in a directory of their own.
#[derive(Debug)]
pub(super) struct Waiting {
    dir: PathBuf,
    max_bytes: u64,
    files: VecDeque<Waited>,
}

#[derive(Debug)]
struct Waited {
    number: u64,
    bytes: u64,
}

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<CallRecord>,
    /// Lines that cannot be read, as the last one of a process that was killed.
    pub(super) broken: usize,
}

impl Waiting {
    /// Finds what an earlier process left in `dir`, which is made with the first record.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Self::bounded(dir, MAX_BYTES)
    }

    fn bounded(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut files = Vec::new();
        match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name();
                    let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
                    if let Some(number) = number {
                        files.push(Waited { number, bytes: entry.metadata()?.len() });
                    }
                }
            }
        }
        files.sort_unstable_by_key(|file| file.number);
        Ok(Self { dir: dir.to_owned(), max_bytes, files: files.into() })
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Appends records; returns how many there was no more room for, which are the last.
    ///
    /// # Errors
    /// When the disk does not take them; then none was taken.
    pub(super) fn add(&mut self, records: &[CallRecord]) -> io::Result<usize> {
        let mut room = self.max_bytes.saturating_sub(self.files.iter().map(|file| file.bytes).sum());
        let mut lines = Vec::new();
        let mut taken = 0;
        for record in records {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            let bytes = line.len() as u64;
            if bytes > room {
                break;
            }
            room -= bytes;
            lines.extend_from_slice(&line);
            taken += 1;
        }
        if taken > 0 {
            self.append(&lines)?;
        }
        Ok(records.len() - taken)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.files.back().is_none_or(|file| file.bytes >= FILE_BYTES) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let number = self.files.back().map_or(0, |file| file.number + 1);
            self.files.push_back(Waited { number, bytes: 0 });
        }
        let Some(file) = self.files.back_mut() else { return Ok(()) };
        let path = path(&self.dir, file.number);
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut opened| write_whole(&mut opened, file.bytes, lines));
        match written {
            Ok(()) => file.bytes += lines.len() as u64,
            Err(error) => {
                if file.bytes == 0 {
                    let _ = std::fs::remove_file(&path);
                    self.files.pop_back();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// What the oldest file holds that can be read.
    pub(super) fn oldest(&mut self) -> Found {
        while let Some(file) = self.files.front() {
            let path = path(&self.dir, file.number);
            match read(&path) {
                Ok(found) => return found,
                // It stays there for whoever can read it; those behind it do not wait for that.
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "call records that waited on disk cannot be read");
                    self.files.pop_front();
                }
            }
        }
        Found::default()
    }

    /// Replaces what the oldest file holds by what is left of it.
    pub(super) fn keep(&mut self, left: &[CallRecord]) -> io::Result<()> {
        let Some(file) = self.files.front_mut() else { return Ok(()) };
        let at = path(&self.dir, file.number);
        if left.is_empty() {
            std::fs::remove_file(at)?;
            self.files.pop_front();
            return Ok(());
        }
        let mut lines = Vec::new();
        for record in left {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        let new = at.with_extension("new");
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        opened.write_all(&lines)?;
        std::fs::rename(new, at)?;
        file.bytes = lines.len() as u64;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(record) => found.records.push(record),
            Err(_) => found.broken += 1,
        }
    }
    Ok(found)
}

/// All of it or nothing: half of a line would make the next one unreadable too.
fn write_whole(file: &mut File, length: u64, lines: &[u8]) -> io::Result<()> {
    let written = file.write_all(lines);
    if written.is_err() {
        file.set_len(length)?;
    }
    written
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use toolyard_types::snapshot::CallOutcome;
    use toolyard_types::{OrganizationId, Timestamp};

    use super::*;

    fn records(count: usize) -> Vec<CallRecord> {
        let organization = OrganizationId::generate();
        let record = |number| CallRecord {
            at: Timestamp::from_ms(0),
            organization,
            actor: "api_key:1".into(),
            server: None,
            toolset: None,
            method: "tools/call".into(),
            target: format!("tool-{number}\n"),
            outcome: CallOutcome::Ok,
            duration_us: 1,
            request_bytes: 1,
            response_bytes: 1,
            request_id: "r".into(),
            revision: None,
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn what_waits_is_there_after_a_restart_and_goes_when_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("waiting");
        let records = records(3);
        assert_eq!(Waiting::open(&dir).expect("open").add(&records[..2]).expect("added"), 0);
        let mut waiting = Waiting::open(&dir).expect("open");
        waiting.add(&records[2..]).expect("added");
        assert_eq!(waiting.oldest().records, records);
        waiting.keep(&records[1..]).expect("kept");
        assert_eq!(Waiting::open(&dir).expect("open").oldest().records, records[1..]);
        waiting.keep(&[]).expect("kept");
        assert!(waiting.is_empty() && Waiting::open(&dir).expect("open").is_empty());
    }

    #[test]
    fn they_are_bounded_and_what_has_no_room_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut waiting = Waiting::bounded(dir.path(), 10_000).expect("open");
        let refused = waiting.add(&records(100)).expect("added");
        assert!((1..100).contains(&refused), "{refused}");
        assert_eq!(waiting.oldest().records.len(), 100 - refused);
        assert_eq!(waiting.add(&records(1)).expect("added"), 1);
        waiting.keep(&[]).expect("kept");
        assert_eq!(waiting.add(&records(1)).expect("added"), 0);
    }

    #[test]
    fn a_line_that_was_cut_costs_itself_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut waiting = Waiting::open(dir.path()).expect("open");
        waiting.add(&records(2)).expect("added");
        let file = path(dir.path(), 0);
        let text = std::fs::read(&file).expect("read");
        std::fs::write(&file, &text[..text.len() - 5]).expect("written");
        let found = waiting.oldest();
        assert_eq!((found.records.len(), found.broken), (1, 1));
    }

    #[test]
    fn a_file_that_cannot_be_read_stays_and_holds_up_none_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut waiting = Waiting::open(dir.path()).expect("open");
        let records = records(5000);
        while waiting.files.len() < 2 {
            waiting.add(&records).expect("added");
        }
        let first = path(dir.path(), 0);
        std::fs::remove_file(&first).expect("removed");
        std::fs::create_dir(&first).expect("something else in its place");
        assert!(!waiting.oldest().records.is_empty());
        waiting.keep(&[]).expect("kept");
        assert!(waiting.is_empty() && first.exists());
    }

    #[test]
    fn many_records_are_in_several_files_and_read_one_by_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut waiting = Waiting::open(dir.path()).expect("open");
        let records = records(5000);
        for _ in 0..4 {
            waiting.add(&records).expect("added");
        }
        let mut count = 0;
        while !waiting.is_empty() {
            count += waiting.oldest().records.len();
            waiting.keep(&[]).expect("kept");
        }
        assert_eq!(count, 20_000);
    }
}
