//! The last desired state on disk, so that a host comes back after a reboot without the control plane.
//!
//! Credentials in it are sealed with a key of this host (`host.key`, for its owner only) and leased: when
//! the lease ends they are forgotten, on disk and in memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use serde::{Deserialize, Serialize};
use toolyard_types::agent::Desired;
use toolyard_types::{CredentialId, InstanceId, Secret, ToolboxId};
use zeroize::Zeroizing;

type Secrets = BTreeMap<InstanceId, BTreeMap<CredentialId, Secret>>;

const FILE: &str = "desired.json";
/// Other agents of the host know a data directory by this name too: `is_data_dir` in grants.rs.
const KEY_FILE: &str = "host.key";

/// As written: everything but the secrets in the clear.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    /// Of which toolbox; an agent of before did not write it.
    #[serde(default)]
    toolbox: Option<ToolboxId>,
    desired: Desired,
    nonce: Vec<u8>,
    sealed: Vec<u8>,
}

/// Keeps the last desired state of a toolbox in a data directory.
pub(crate) struct DesiredFile {
    dir: PathBuf,
    toolbox: ToolboxId,
    cipher: ChaCha20Poly1305,
}

impl DesiredFile {
    /// Opens the file, making the host's key at the first time.
    pub(crate) fn open(dir: &Path, toolbox: ToolboxId) -> io::Result<Self> {
        let key = host_key(&dir.join(KEY_FILE))?;
        Ok(Self { dir: dir.to_owned(), toolbox, cipher: ChaCha20Poly1305::new(Key::from_slice(&key[..])) })
    }

    /// The state last saved. One that cannot be read counts as none: the control plane sends it again. So does that of
    /// another toolbox: its generations say nothing of this one's.
    pub(crate) fn load(&self) -> Option<Desired> {
        let on_disk: OnDisk = read_state(&self.dir.join(FILE), "waiting for the control plane")?;
        if on_disk.toolbox.is_some_and(|toolbox| toolbox != self.toolbox) {
            tracing::info!("the last desired state is another toolbox's; waiting for the control plane");
            return None;
        }
        let mut desired = on_disk.desired;
        match self.unseal(&on_disk.nonce, &on_disk.sealed, desired.generation) {
            Some(mut secrets) => {
                for instance in &mut desired.instances {
                    instance.secrets = secrets.remove(&instance.id).unwrap_or_default();
                }
            }
            None => tracing::warn!("the credentials of the last desired state cannot be unsealed on this host"),
        }
        Some(desired)
    }

    /// Saves a state whole, or not at all.
    pub(crate) fn save(&self, desired: &Desired) -> io::Result<()> {
        let mut desired = desired.clone();
        let secrets: Secrets =
            desired.instances.iter_mut().map(|instance| (instance.id, std::mem::take(&mut instance.secrets))).collect();
        let plain = Zeroizing::new(serde_json::to_vec(&secrets)?);
        let nonce: [u8; 12] = rand::random();
        let aad = desired.generation.to_be_bytes();
        let payload = Payload { msg: &plain, aad: &aad };
        let sealed = self.cipher.encrypt(Nonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| io::Error::other("seal the credentials"))?;
        let on_disk = OnDisk { toolbox: Some(self.toolbox), desired, nonce: nonce.to_vec(), sealed };
        write_whole(&self.dir.join(FILE), &serde_json::to_vec(&on_disk)?)
    }

    fn unseal(&self, nonce: &[u8], sealed: &[u8], generation: u64) -> Option<Secrets> {
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: &generation.to_be_bytes() };
        let plain = Zeroizing::new(self.cipher.decrypt(Nonce::from_slice(&nonce), payload).ok()?);
        serde_json::from_slice(&plain).ok()
    }
}

fn host_key(path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    match std::fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => {
            let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
                io::Error::other(format!(
                    "`{}` is not a key: restore it, or remove it, and a new one is made, with which servers that need \
                     credentials start only once the control plane has sent them again",
                    path.display()
                ))
            })?;
            Ok(Zeroizing::new(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Zeroizing::new(rand::random::<[u8; 32]>());
            write_whole(path, &key[..])?;
            Ok(key)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("read `{}`: {error}", path.display()))),
    }
}

/// Reads a file of our own state, if it is there. One that cannot be read counts as none, and the log says what follows
/// from that.
pub(crate) fn read_state<T: for<'de> Deserialize<'de>>(path: &Path, otherwise: &str) -> Option<T> {
    let read = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
    };
    read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "it cannot be read; {otherwise}")).ok()
}

/// Writes a file for its owner only, so that a reader sees the old or the new one and nothing in between.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_emptied_is_named_with_the_way_out_and_removed_it_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KEY_FILE);
        std::fs::write(&path, "").expect("written");
        let toolbox = ToolboxId::generate();
        let error = DesiredFile::open(dir.path(), toolbox).err().expect("it is no key").to_string();
        assert!(error.contains(path.to_str().expect("text")) && error.contains("remove it"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        assert!(DesiredFile::open(dir.path(), toolbox).is_ok());
    }

    #[test]
    fn a_state_that_cannot_be_read_counts_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = DesiredFile::open(dir.path(), ToolboxId::generate()).expect("opened");
        file.save(&Desired { generation: 7, ..Desired::default() }).expect("saved");
        assert_eq!(file.load().map(|desired| desired.generation), Some(7));
        std::fs::write(dir.path().join(FILE), "").expect("written");
        assert!(file.load().is_none());
    }

    #[test]
    fn a_state_of_another_toolbox_counts_as_none_and_one_of_before_as_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = |toolbox| DesiredFile::open(dir.path(), toolbox).expect("opened");
        let own = ToolboxId::generate();
        opened(own).save(&Desired { generation: 7, ..Desired::default() }).expect("saved");
        assert!(opened(ToolboxId::generate()).load().is_none());
        assert!(opened(own).load().is_some());

        let path = dir.path().join(FILE);
        let mut written: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        written.as_object_mut().expect("an object").remove("toolbox").expect("it is written");
        std::fs::write(&path, written.to_string()).expect("written");
        assert!(opened(ToolboxId::generate()).load().is_some());
    }
}
