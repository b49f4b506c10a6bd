//! Where the master key comes from.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use rand::RngCore;
use sha2::{Digest, Sha256};
use toolyard_types::Secret;
use zeroize::Zeroizing;

use super::{KEY_ID_LEN, VaultError};

pub(super) const KEY_LEN: usize = 32;
/// Name of the key file made at the first start.
pub(super) const FILE_NAME: &str = "vault.key";

/// Where the vault's master key comes from.
#[derive(Clone, Debug, Default)]
pub enum VaultKeys {
    /// The file `vault.key` in the data directory, made at the first start.
    #[default]
    DataDir,
    /// Another file, which must exist. One key per line in hex or base64; the first seals, all open.
    File(PathBuf),
    /// Given by a setting, in hex or base64.
    Given {
        /// Seals and opens.
        current: Secret,
        /// Only open, so that the key can be changed.
        previous: Vec<Secret>,
    },
}

impl VaultKeys {
    /// Whether a master key has the form that the vault takes.
    ///
    /// # Errors
    /// [`VaultError::KeyForm`], which says what that is.
    pub fn check_form(key: &Secret) -> Result<(), VaultError> {
        parse(key.expose()).map(|_| ())
    }
}

/// A master key with the id that envelopes name it by: the start of its SHA-256.
pub(super) struct MasterKey {
    pub(super) id: [u8; KEY_ID_LEN],
    pub(super) key: Zeroizing<[u8; KEY_LEN]>,
}

/// The master keys, the one that seals first.
#[derive(Clone)]
pub(super) struct Keyring(Arc<[MasterKey]>);

impl Keyring {
    pub(super) fn open(keys: &VaultKeys, data_dir: &Path) -> Result<Self, VaultError> {
        let keys: Vec<MasterKey> = match keys {
            VaultKeys::DataDir => vec![read_or_make(&data_dir.join(FILE_NAME))?],
            VaultKeys::File(path) => read_all(path)?,
            VaultKeys::Given { current, previous } => {
                std::iter::once(current).chain(previous).map(|key| parse(key.expose())).collect::<Result<_, _>>()?
            }
        };
        if keys.is_empty() { Err(VaultError::KeyForm) } else { Ok(Self(keys.into())) }
    }

    pub(super) fn current(&self) -> &MasterKey {
        self.0.first().expect("a keyring is never made empty")
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<&MasterKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

fn read_or_make(path: &Path) -> Result<MasterKey, VaultError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(file_error(path))?;
    }
    let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
    rand::rng().fill_bytes(bytes.as_mut());
    let text = Zeroizing::new(format!("{}\n", crate::auth::token::hex(bytes.as_ref())));
    // Written aside and linked into place: a crash leaves no half key, and of two starts at once one wins.
    let aside = path.with_extension(format!("key.{}.new", std::process::id()));
    if !path.exists() {
        write_private(&aside, text.as_bytes()).map_err(file_error(path))?;
        let linked = fs::hard_link(&aside, path);
        fs::remove_file(&aside).map_err(file_error(path))?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(file_error(path)(error)),
            _ => {}
        }
    }
    read_all(path)?.into_iter().next().ok_or(VaultError::KeyForm)
}

fn read_all(path: &Path) -> Result<Vec<MasterKey>, VaultError> {
    refuse_loose_permissions(path)?;
    let text = Zeroizing::new(fs::read_to_string(path).map_err(file_error(path))?);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(parse).collect()
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn refuse_loose_permissions(path: &Path) -> Result<(), VaultError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(file_error(path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(VaultError::KeyFileOpen { path: path.display().to_string(), mode }) }
}

#[cfg(not(unix))]
fn refuse_loose_permissions(_path: &Path) -> Result<(), VaultError> {
    Ok(())
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> VaultError {
    let path = path.display().to_string();
    move |source| VaultError::KeyFile { path: path.clone(), source }
}

/// Reads 64 hex digits, or base64 of 32 bytes.
fn parse(text: &str) -> Result<MasterKey, VaultError> {
    let bytes = Zeroizing::new(unhex(text).or_else(|| unbase64(text)).ok_or(VaultError::KeyForm)?);
    let key = Zeroizing::new(<[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| VaultError::KeyForm)?);
    let digest = Sha256::digest(key.as_ref());
    let mut id = [0_u8; KEY_ID_LEN];
    id.copy_from_slice(&digest[..KEY_ID_LEN]);
    Ok(MasterKey { id, key })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    (digits.len() == 2 * KEY_LEN).then_some(())?;
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_start_makes_a_key_file_only_its_owner_may_read_and_later_starts_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keyring::open(&VaultKeys::DataDir, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Keyring::open(&VaultKeys::DataDir, dir.path()).unwrap();
        assert_eq!(first.current().key, second.current().key);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the key file");
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused_and_the_message_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        Keyring::open(&VaultKeys::DataDir, dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keyring::open(&VaultKeys::DataDir, dir.path()).err().unwrap().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_key_may_be_given_in_hex_or_base64_and_nothing_else() {
        let hex = parse(&"ab".repeat(32)).unwrap();
        let base64 = parse(&base64::engine::general_purpose::STANDARD.encode([0xab_u8; 32])).unwrap();
        assert_eq!(hex.key, base64.key);
        for bad in ["", "ab", &"zz".repeat(32), "c2hvcnQ="] {
            assert!(matches!(parse(bad), Err(VaultError::KeyForm)), "{bad}");
        }
    }
}
