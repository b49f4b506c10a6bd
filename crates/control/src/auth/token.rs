//! Random tokens and their digests. The one place that draws secrets people or machines carry.

use rand::RngCore;
use sha2::{Digest, Sha256};
use toolyard_types::Secret;

/// What every API key begins with, so that scanners for leaked secrets find them.
pub(crate) const KEY_PREFIX: &str = "ty_";

/// 256 random bits in hex.
pub(crate) fn random() -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    rand::rng().fill_bytes(bytes.as_mut());
    Secret::new(hex(bytes.as_ref()))
}

/// A new API key: `ty_` and 64 hex digits.
#[must_use]
pub fn api_key() -> Secret {
    Secret::new(format!("{KEY_PREFIX}{}", random().expose()))
}

/// A password people can type: 5 groups of 4 from an alphabet without look-alikes (100 bits).
pub(crate) fn password() -> Secret {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = zeroize::Zeroizing::new([0_u8; 20]);
    rand::rng().fill_bytes(bytes.as_mut());
    let letters: Vec<char> = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    Secret::new(groups.join("-"))
}

/// The first characters of a key, to recognise it by; never more than a quarter of it.
pub(crate) fn shown_prefix(key: &str) -> String {
    key.chars().take((key.chars().count() / 4).min(11)).collect()
}

/// SHA-256 in hex.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_prefix_and_64_hex_digits_and_only_a_little_of_it_is_shown() {
        let key = api_key();
        let digits = key.expose().strip_prefix("ty_").unwrap();
        assert!(digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(shown_prefix(key.expose()).len(), 11);
        assert_eq!(shown_prefix("ty_short"), "ty");
        assert_ne!(api_key(), key);
    }

    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
