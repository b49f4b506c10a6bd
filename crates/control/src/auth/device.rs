//! Browsers that signed in before.
//!
//! A browser that signed in keeps a cookie, signed with a key of the vault's master key, that says to which account. It
//! gives no access: whoever has it still needs the password. It only tells the owner's browser from strangers, so that an
//! attack on an account does not shut out the one it belongs to (OWASP: device cookies). It names the password it was
//! made with, so that another password ends it.
//!
//! The cookie: `USER.NONCE.ISSUED.PASSWORD.MAC`, where `PASSWORD` is a digest of the stored (salted, stretched) hash.

use std::time::Duration;

use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha2::Sha256;
use toolyard_store::User;
use toolyard_types::{Timestamp, UserId};

use super::{cookie, token};
use crate::Control;

/// How long a browser is known after it last signed in.
pub(crate) const KNOWN: Duration = Duration::from_secs(180 * 24 * 3600);
/// How much of a digest is enough to tell passwords apart, in hex digits.
const PASSWORD_LEN: usize = 32;

/// A browser that says it signed in before, and has the signature to show for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    user: UserId,
    /// Tells this browser from others.
    pub(crate) nonce: String,
    password: String,
}

impl Device {
    /// Whether it signed in to this account with the password that it still has.
    pub(crate) fn is_of(&self, user: &User) -> bool {
        self.user == user.id && self.password == password_digest(&user.password_hash)
    }
}

/// The name of the cookie.
pub(crate) fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-toolyard_device" } else { "toolyard_device" }
}

/// A cookie for a browser that has just signed in.
pub(crate) fn issue(control: &Control, user: UserId, password_hash: &str) -> String {
    let nonce: String = token::random().expose().chars().take(16).collect();
    let issued = control.clock().now().as_ms();
    let said = format!("{user}.{nonce}.{issued}.{}", password_digest(password_hash));
    let signature = token::hex(&mac(control, &said).finalize().into_bytes());
    format!("{said}.{signature}")
}

/// The device that a request comes from, when its cookie is ours and not too old.
pub(crate) fn of(control: &Control, headers: &HeaderMap) -> Option<Device> {
    let (said, signature) = cookie(headers, cookie_name(control.options().cookie_secure))?.rsplit_once('.')?;
    mac(control, said).verify_slice(&unhex(signature)?).ok()?;
    let mut parts = said.split('.');
    let mut next = || parts.next();
    let (user, nonce, issued, password) = (next()?, next()?, next()?, next()?);
    let issued = Timestamp::from_ms(issued.parse().ok()?);
    if control.clock().now().since(issued) > KNOWN {
        return None;
    }
    Some(Device { user: user.parse().ok()?, nonce: nonce.to_owned(), password: password.to_owned() })
}

fn password_digest(password_hash: &str) -> String {
    let mut digest = token::sha256_hex(password_hash);
    digest.truncate(PASSWORD_LEN);
    digest
}

fn mac(control: &Control, said: &str) -> Hmac<Sha256> {
    let key = control.vault().derive_key("sign-in devices");
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("HMAC takes a key of any length");
    mac.update(said.as_bytes());
    mac
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
