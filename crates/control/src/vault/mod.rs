//! The vault: secrets at rest.
//!
//! Envelope encryption. A master key (32 bytes) comes from a key file that only its owner may read, or from a
//! setting. Each secret has a data key of its own: the secret is sealed with the data key, the data key with
//! the master key, both by XChaCha20-Poly1305 with a random 192-bit nonce. The associated data names the
//! organization, the credential and its version, so that a row copied to another place does not open. The
//! master key's id is in the envelope, so that an old key can be kept while secrets are sealed anew.
//!
//! Layout: `1 | key id (8) | nonce (24) | sealed data key (48) | nonce (24) | sealed secret (n + 16)`.

mod keys;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;
use toolyard_types::{OrganizationId, Secret};
use zeroize::Zeroizing;

pub use keys::VaultKeys;
use keys::{KEY_LEN, Keyring, MasterKey};

const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 8;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const SEALED_KEY_LEN: usize = KEY_LEN + TAG_LEN;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN + SEALED_KEY_LEN + NONCE_LEN;

/// What went wrong with the vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is something sealed and no key: a new one would open nothing.
    #[error(
        "the key file `{0}` is gone, and what the database holds is sealed with it; put it back, or set `vault_key`; if it is \
         lost for ever, start once with `--set vault_key_lost=true`, and set every credential again"
    )]
    KeyLost(String),
    /// The key is there, and another than the one that was used.
    #[error(
        "the vault's master key `{current}` is not the one that this database is sealed with, `{sealed_with}`; give that one \
         (the file `vault.key` of the data directory, or `vault_key`); if it is lost for ever, start once with \
         `--set vault_key_lost=true`, and set every credential again"
    )]
    WrongKey {
        /// The id of the key that was used.
        sealed_with: String,
        /// The id of the key that is here.
        current: String,
    },
    /// The key file can be read by others.
    #[error(
        "the key file `{path}` can be read by others (mode {mode:o}); make it readable by its owner only: chmod 600"
    )]
    KeyFileOpen {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The key file cannot be read or made.
    #[error("cannot use the key file `{path}`")]
    KeyFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The master key is not 32 bytes.
    #[error("the vault's master key must be 32 bytes in hex (64 digits) or base64")]
    KeyForm,
    /// The secret was sealed with a master key that is not here.
    #[error("the secret was sealed with master key `{0}`, which is not here")]
    UnknownKey(String),
    /// What is stored is no envelope, or was changed or moved.
    #[error("the sealed secret was changed or belongs elsewhere")]
    Broken,
}

/// What a secret belongs to; a sealed secret opens only with the same.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The organization.
    pub organization: OrganizationId,
    /// What kind of thing, and which: `credential/<id>`.
    pub subject: &'a str,
    /// Its version.
    pub version: u32,
}

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("toolyard/1\n{}\n{}\n{}", self.organization, self.subject, self.version).into_bytes()
    }
}

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Vault {
    keys: Keyring,
}

impl Vault {
    /// Takes the master key from where `keys` says, and makes a key file in `data_dir` at the first start.
    ///
    /// # Errors
    /// When the key file cannot be used, or others may read it, or the key has another form.
    pub fn open(keys: &VaultKeys, data_dir: &std::path::Path) -> Result<Self, VaultError> {
        Ok(Self { keys: Keyring::open(keys, data_dir)? })
    }

    /// The id of the key that seals: the start of its SHA-256, in hex.
    #[must_use]
    pub fn key_id(&self) -> String {
        crate::auth::token::hex(&self.keys.current().id)
    }

    /// A key for another purpose, the same on every replica with the same master key and useless for finding it
    /// (HMAC-SHA256 as a key derivation function; NIST SP 800-108).
    #[must_use]
    pub fn derive_key(&self, purpose: &str) -> [u8; KEY_LEN] {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.keys.current().key.as_slice())
            .expect("HMAC takes a key of any length");
        mac.update(b"toolyard/derive/1\n");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Refuses to make a key file in `data_dir` where one must have been.
    ///
    /// # Errors
    /// When `keys` says the key is there, it is not, and `credentials` are sealed with it.
    pub fn refuse_lost_key(keys: &VaultKeys, data_dir: &std::path::Path, credentials: bool) -> Result<(), VaultError> {
        let path = data_dir.join(keys::FILE_NAME);
        if credentials && matches!(keys, VaultKeys::DataDir) && !path.exists() {
            return Err(VaultError::KeyLost(path.display().to_string()));
        }
        Ok(())
    }

    /// Seals a secret for its place.
    #[must_use]
    pub fn seal(&self, place: &Place<'_>, secret: &Secret) -> Vec<u8> {
        let master = self.keys.current();
        let aad = place.bytes();
        let mut data_key = Zeroizing::new([0_u8; KEY_LEN]);
        rand::rng().fill_bytes(data_key.as_mut());
        let mut envelope = Vec::with_capacity(HEADER_LEN + secret.expose().len() + TAG_LEN);
        envelope.push(FORMAT);
        envelope.extend_from_slice(&master.id);
        append(&mut envelope, &master.cipher(), data_key.as_ref(), &aad);
        append(&mut envelope, &cipher(&data_key), secret.expose().as_bytes(), &aad);
        envelope
    }

    /// How much of an envelope says with which master key it was sealed.
    pub const HEAD_LEN: usize = 1 + KEY_ID_LEN;

    /// Whether the master key is here that an envelope was sealed with, by the head of the envelope.
    #[must_use]
    pub fn has_key_of(&self, head: &[u8]) -> bool {
        head.get(1..Self::HEAD_LEN).is_some_and(|key_id| self.keys.find(key_id).is_some())
    }

    /// Opens a sealed secret.
    ///
    /// # Errors
    /// When it was sealed for another place or with another master key, or was changed.
    pub fn unseal(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Secret, VaultError> {
        if envelope.len() < HEADER_LEN + TAG_LEN || envelope[0] != FORMAT {
            return Err(VaultError::Broken);
        }
        let aad = place.bytes();
        let (key_id, rest) = envelope[1..].split_at(KEY_ID_LEN);
        let master = self.keys.find(key_id).ok_or_else(|| VaultError::UnknownKey(crate::auth::token::hex(key_id)))?;
        let (sealed_key, sealed_secret) = rest.split_at(NONCE_LEN + SEALED_KEY_LEN);
        let data_key = Zeroizing::new(detach(&master.cipher(), sealed_key, &aad)?);
        let data_key = <&[u8; KEY_LEN]>::try_from(data_key.as_slice()).map_err(|_| VaultError::Broken)?;
        let plaintext = Zeroizing::new(detach(&cipher(data_key), sealed_secret, &aad)?);
        let text = std::str::from_utf8(&plaintext).map_err(|_| VaultError::Broken)?;
        Ok(Secret::new(text))
    }
}

impl MasterKey {
    fn cipher(&self) -> XChaCha20Poly1305 {
        cipher(&self.key)
    }
}

fn cipher(key: &[u8; KEY_LEN]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// Appends a fresh nonce and the sealed plaintext.
fn append(envelope: &mut Vec<u8>, cipher: &XChaCha20Poly1305, plaintext: &[u8], aad: &[u8]) {
    let mut nonce = [0_u8; NONCE_LEN];
    rand::rng().fill_bytes(&mut nonce);
    let sealed = cipher
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: plaintext, aad })
        .expect("the cipher refuses only messages of hundreds of gigabytes");
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(&sealed);
}

fn detach(cipher: &XChaCha20Poly1305, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, VaultError> {
    let (nonce, message) = sealed.split_at_checked(NONCE_LEN).ok_or(VaultError::Broken)?;
    cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: message, aad }).map_err(|_| VaultError::Broken)
}

impl From<VaultError> for crate::ControlError {
    fn from(error: VaultError) -> Self {
        Self::Internal { doing: "using the vault", source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vault() -> Vault {
        let keys = VaultKeys::Given { current: Secret::new("07".repeat(32)), previous: Vec::new() };
        Vault::open(&keys, std::path::Path::new("unused")).expect("the key is good")
    }

    fn place(organization: OrganizationId, version: u32) -> Place<'static> {
        Place { organization, subject: "credential/1", version }
    }

    #[test]
    fn a_lost_key_file_is_refused_while_credentials_are_sealed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |keys: &VaultKeys, sealed| Vault::refuse_lost_key(keys, dir.path(), sealed);
        assert!(refuse(&VaultKeys::DataDir, false).is_ok(), "a first start makes the key");
        assert!(matches!(refuse(&VaultKeys::DataDir, true), Err(VaultError::KeyLost(_))));
        let given = VaultKeys::Given { current: Secret::new("00".repeat(32)), previous: Vec::new() };
        assert!(refuse(&given, true).is_ok());
        Vault::open(&VaultKeys::DataDir, dir.path()).unwrap();
        assert!(refuse(&VaultKeys::DataDir, true).is_ok());
    }

    #[test]
    fn a_secret_opens_only_in_its_own_place() {
        let (vault, organization) = (vault(), OrganizationId::generate());
        let sealed = vault.seal(&place(organization, 1), &Secret::new("hunter2"));
        assert_eq!(vault.unseal(&place(organization, 1), &sealed).unwrap(), Secret::new("hunter2"));
        for elsewhere in [place(organization, 2), place(OrganizationId::generate(), 1)] {
            assert!(matches!(vault.unseal(&elsewhere, &sealed), Err(VaultError::Broken)));
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_the_same_way_twice() {
        let (vault, organization) = (vault(), OrganizationId::generate());
        let seal = || vault.seal(&place(organization, 1), &Secret::new("hunter2"));
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_secret_sealed_with_a_previous_master_key_still_opens() {
        let organization = OrganizationId::generate();
        let sealed = vault().seal(&place(organization, 1), &Secret::new("hunter2"));
        let rotated = |previous: Vec<Secret>| {
            let keys = VaultKeys::Given { current: Secret::new("08".repeat(32)), previous };
            Vault::open(&keys, std::path::Path::new("unused")).unwrap()
        };
        let opened = rotated(vec![Secret::new("07".repeat(32))]).unseal(&place(organization, 1), &sealed);
        assert_eq!(opened.unwrap(), Secret::new("hunter2"));
        let without = rotated(Vec::new());
        assert!(matches!(without.unseal(&place(organization, 1), &sealed), Err(VaultError::UnknownKey(_))));
        let head = &sealed[..Vault::HEAD_LEN];
        assert!(vault().has_key_of(head) && !without.has_key_of(head) && !vault().has_key_of(&head[1..]));
    }

    proptest! {
        #[test]
        fn any_change_of_an_envelope_is_noticed(text in ".{0,60}", at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (vault, organization) = (vault(), OrganizationId::generate());
            let mut sealed = vault.seal(&place(organization, 1), &Secret::new(text.clone()));
            prop_assert_eq!(vault.unseal(&place(organization, 1), &sealed).unwrap(), Secret::new(text));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(vault.unseal(&place(organization, 1), &sealed).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(vault().unseal(&place(OrganizationId::generate(), 1), &bytes).is_err());
        }
    }
}
