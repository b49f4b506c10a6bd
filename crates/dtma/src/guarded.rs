//! Files and directories that no server gets by another name either: a bind mount, a hard link, or where a link in the data
//! directory leads. They are compared by where they are in their file system, and by device and number.
//!
//! A hard link has no place that tells whose it is, so our own files are gone through for those that have another name,
//! nearest first and for a limited time; where that was too short it says so ([`Guarded::is_cut_short`]). Left out is what
//! may be much of and is nobody's secret, and what servers write: a link that one of them makes guards nothing.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mountinfo::{Mounts, Place};

/// How many names are looked at for those that have another one, and how long.
const MOST_NAMES: usize = 20_000;
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Of the data directory: packages, and what is a server's in the directory of its instance.
const LEFT_OUT: [&str; 5] = ["packages", "probe", "root", "tmp", "work"];

/// A file, by its device and its number there.
pub(crate) type FileId = (u64, u64);

/// The file that somebody looked at.
pub(crate) fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// What is not to be had by another name.
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    places: Vec<Place>,
    files: HashSet<FileId>,
    /// Of the files those that have another name somewhere.
    linked: HashSet<FileId>,
    is_cut_short: bool,
}

impl Guarded {
    /// These paths, with what is mounted below them. One that is not there is nothing.
    ///
    /// # Errors
    /// When it is not known where one of them is.
    pub(crate) fn named<'a>(paths: impl Iterator<Item = &'a Path>, mounts: &Mounts) -> io::Result<Self> {
        let mut guarded = Self::default();
        for path in paths.filter_map(|path| std::fs::canonicalize(path).ok()) {
            guarded.add(&path, mounts)?;
        }
        Ok(guarded)
    }

    /// The same with the files in them, and what links in them lead to.
    ///
    /// # Errors
    /// When it is not known where one of them is.
    pub(crate) fn whole<'a>(paths: impl Iterator<Item = &'a Path>, mounts: &Mounts) -> io::Result<Self> {
        Self::whole_within(paths, mounts, (MOST_NAMES, LONGEST_LOOK))
    }

    fn whole_within<'a>(
        paths: impl Iterator<Item = &'a Path>,
        mounts: &Mounts,
        (most_names, longest): (usize, Duration),
    ) -> io::Result<Self> {
        let mut guarded = Self::default();
        let mut waiting = VecDeque::new();
        for path in paths.filter_map(|path| std::fs::canonicalize(path).ok()) {
            guarded.add(&path, mounts)?;
            waiting.push_back(path);
        }
        let mut gone_through = HashSet::new();
        let (mut names, began) = (0, Instant::now());
        while let Some(path) = waiting.pop_front() {
            if began.elapsed() >= longest {
                guarded.is_cut_short = true;
                break;
            }
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if !metadata.is_dir() || !gone_through.insert(file_id(&metadata)) {
                continue;
            }
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                names += 1;
                if names > most_names || began.elapsed() >= longest {
                    guarded.is_cut_short = true;
                    return Ok(guarded);
                }
                if !is_left_out(&entry.file_name()) {
                    waiting.extend(guarded.take(&entry.path(), mounts)?);
                }
            }
        }
        Ok(guarded)
    }

    /// Adds a name that was found, and at once what it leads to when it is a link: when the look is cut short only
    /// directories are left that nobody went through. Gives the directory to go through next.
    fn take(&mut self, path: &Path, mounts: &Mounts) -> io::Result<Option<PathBuf>> {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(None) };
        if !metadata.is_symlink() {
            self.note(&metadata);
            return Ok(metadata.is_dir().then(|| path.to_owned()));
        }
        // One that leads to what is above it keeps nothing elsewhere.
        let Some(led) = std::fs::canonicalize(path).ok().filter(|led| !path.starts_with(led)) else { return Ok(None) };
        self.add(&led, mounts)?;
        Ok(Some(led))
    }

    /// Where they are.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The name by which one of them is had by who has a path, or what is mounted below it; `file` is what is there.
    ///
    /// # Errors
    /// When it is not known where the path is.
    pub(crate) fn name_in(&self, path: &Path, file: FileId, mounts: &Mounts) -> io::Result<Option<PathBuf>> {
        let name = mounts.name_of_any(&self.places, path)?;
        Ok(name.or_else(|| self.files.contains(&file).then(|| path.to_owned())))
    }

    /// Whether there was more than is looked at: of what lies further in nothing is known but its directory's place.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Whether one of them has another name, which could be anywhere.
    pub(crate) fn is_linked(&self) -> bool {
        !self.linked.is_empty()
    }

    /// Whether this is another name of one of them.
    pub(crate) fn has_link(&self, metadata: &Metadata) -> bool {
        self.linked.contains(&file_id(metadata))
    }

    fn add(&mut self, path: &Path, mounts: &Mounts) -> io::Result<()> {
        for (_, place) in mounts.all_of(path)? {
            if !self.places.contains(&place) {
                self.places.push(place);
            }
        }
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            self.note(&metadata);
        }
        Ok(())
    }

    fn note(&mut self, metadata: &Metadata) {
        if metadata.is_file() || metadata.is_dir() {
            self.files.insert(file_id(metadata));
        }
        if metadata.is_file() && metadata.nlink() > 1 {
            self.linked.insert(file_id(metadata));
        }
    }
}

/// What begins with a dot was moved away to be removed, with all that a server left.
fn is_left_out(name: &OsStr) -> bool {
    LEFT_OUT.iter().any(|left_out| name == *left_out) || name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// What is guarded of `own` when so much is looked at, and whether that was all.
    fn guarded(own: &Path, bounds: (usize, Duration)) -> (Guarded, Mounts) {
        let mounts = Mounts::here().expect("a table");
        (Guarded::whole_within(std::iter::once(own), &mounts, bounds).expect("it is mounted"), mounts)
    }

    fn is_guarded((guarded, mounts): &(Guarded, Mounts), path: &Path) -> bool {
        let file = file_id(&std::fs::symlink_metadata(path).expect("it is there"));
        guarded.name_in(path, file, mounts).expect("it is mounted").is_some()
    }

    #[test]
    fn a_look_that_is_cut_short_knows_where_the_links_lead_that_it_has_seen_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = std::fs::canonicalize(dir.path()).expect("canonical");
        let (own, elsewhere, further) = (root.join("own"), root.join("elsewhere"), root.join("further"));
        for made in [&own.join("deep"), &elsewhere, &further] {
            std::fs::create_dir_all(made).expect("made");
        }
        symlink(&elsewhere, own.join("way")).expect("linked");
        symlink(&further, elsewhere.join("way")).expect("linked");
        for number in 0..20 {
            std::fs::write(own.join(format!("deep/{number}")), "").expect("written");
        }
        let long = Duration::from_secs(600);
        let whole = guarded(&own, (100, long));
        assert!(is_guarded(&whole, &elsewhere) && is_guarded(&whole, &further) && !whole.0.is_cut_short());
        // Two names are in it, whichever comes first.
        let few_names = guarded(&own, (2, long));
        assert!(is_guarded(&few_names, &elsewhere) && few_names.0.is_cut_short());
        assert!(!is_guarded(&few_names, &further));
        let no_time = guarded(&own, (100, Duration::ZERO));
        assert!(is_guarded(&no_time, &own.join("deep")) && no_time.0.is_cut_short());
        assert!(!is_guarded(&no_time, &elsewhere));
        let exactly = guarded(&own, (23, long));
        assert!(is_guarded(&exactly, &further) && !exactly.0.is_cut_short(), "everything was looked at");
    }
}
