//! What an installed directory holds, so that a changed or missing file is noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Every file below a directory.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    File { size: u64, sha256: String },
    Link { target: String },
}

impl Manifest {
    /// Reads and digests everything below `dir`.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        walk(dir, &mut |path, metadata| {
            files.insert(relative(dir, path), entry(path, metadata)?);
            Ok(())
        })?;
        Ok(Self { files })
    }

    /// Compares names and sizes: cheap enough for every start.
    pub(super) fn looks_right(&self, dir: &Path) -> io::Result<bool> {
        let mut seen = 0;
        let mut right = true;
        walk(dir, &mut |path, metadata| {
            seen += 1;
            right &= match self.files.get(&relative(dir, path)) {
                Some(Entry::File { size, .. }) => metadata.is_file() && metadata.len() == *size,
                Some(Entry::Link { .. }) => metadata.is_symlink(),
                None => false,
            };
            Ok(())
        })?;
        Ok(right && seen == self.files.len())
    }

    /// Compares every byte.
    pub(super) fn is_right(&self, dir: &Path) -> io::Result<bool> {
        Ok(*self == Self::of(dir)?)
    }
}

fn relative(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned()
}

fn entry(path: &Path, metadata: &std::fs::Metadata) -> io::Result<Entry> {
    if metadata.is_symlink() {
        return Ok(Entry::Link { target: std::fs::read_link(path)?.to_string_lossy().into_owned() });
    }
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Entry::File { size: metadata.len(), sha256: hex(&hasher.finalize()) })
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir)? {
            let item = item?;
            let metadata = item.metadata()?;
            if metadata.is_dir() { dirs.push(item.path()) } else { each(&item.path(), &metadata)? }
        }
    }
    Ok(())
}

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_added_or_missing_file_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a/b");
        std::fs::create_dir(dir.path().join("a")).expect("made");
        std::fs::write(&file, "one").expect("written");
        let manifest = Manifest::of(dir.path()).expect("a manifest");
        assert!(manifest.looks_right(dir.path()).expect("read"));
        std::fs::write(&file, "two").expect("written");
        assert!(manifest.looks_right(dir.path()).expect("the same size passes the cheap look"));
        assert!(!manifest.is_right(dir.path()).expect("read"));
        std::fs::write(&file, "three").expect("written");
        assert!(!manifest.looks_right(dir.path()).expect("read"));
        std::fs::write(&file, "one").expect("written");
        std::fs::write(dir.path().join("c"), "").expect("written");
        assert!(!manifest.looks_right(dir.path()).expect("read"));
    }
}
