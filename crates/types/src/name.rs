//! Names people give: checked once at the edge, then carried as a type.

use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Why a name was refused; the text is for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

/// The name of a server, toolset, toolbox, organization or credential.
///
/// 1 to 40 of `a-z`, `0-9` and single `-` inside. Never `__` or `_`, which separates server and tool in a
/// toolset (`{server}__{tool}`), and never 64 characters, so that the pair fits what clients accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = "^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$", example = "everything")]
pub struct Name(String);

impl Name {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 40;

    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// When `text` breaks the rule above; the message says which part.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let shown = printable(&text);
        if text.is_empty() {
            return Err(NameError("a name must not be empty".into()));
        }
        if text.len() > Self::MAX_LEN {
            return Err(NameError(format!("name `{shown}` has more than {} characters", Self::MAX_LEN)));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !text.chars().all(allowed) {
            return Err(NameError(format!("name `{shown}` may use only a-z, 0-9 and `-`")));
        }
        if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
            return Err(NameError(format!("name `{shown}` may use `-` only between other characters, one at a time")));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a catalog entry: `namespace/name` as in the MCP registry
/// (`^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$`, 3 to 200 characters; server.json schema 2025-12-11).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = "^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", min_length = 3, max_length = 200, example = "io.github.modelcontextprotocol/server-everything")]
pub struct EntryName(String);

impl EntryName {
    /// Checks `text` and makes an entry name of it.
    ///
    /// # Errors
    /// When `text` is not `namespace/name` in the allowed characters and length.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let shown = printable(&text);
        if !(3..=200).contains(&text.len()) {
            return Err(NameError(format!("entry name `{shown}` must have 3 to 200 characters")));
        }
        let namespace_ok = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let name_ok = |c: char| namespace_ok(c) || c == '_';
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty()
                    && !name.is_empty()
                    && namespace.chars().all(namespace_ok)
                    && name.chars().all(name_ok) =>
            {
                Ok(Self(text))
            }
            _ => Err(NameError(format!(
                "entry name `{shown}` must be `namespace/name` of letters, digits, `.`, `-` and (after the slash) `_`"
            ))),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the slash.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}
text_type!(Name);
text_type!(EntryName);

/// `text` made safe to show to a person: at most 60 characters, with control characters, direction
/// marks and other invisible characters written as `\u{..}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == 60 {
            out.push('…');
            break;
        }
        if is_hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Whether `c` is invisible or changes how its neighbours are shown: controls, zero-width characters,
/// direction marks and isolates (Unicode UAX #9), tags.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_refused_with_a_message_that_shows_them_escaped() {
        let error = Name::new("evil\u{202e}\u{1b}[31m").expect_err("hostile");
        let text = error.to_string();
        assert!(text.contains("\\u{202e}") && text.contains("\\u{1b}"), "{text}");
        for bad in ["", "Foo_1", "-a", "a-", "a--b", "a/b", "../etc", &"a".repeat(41)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entry_names_follow_the_registry() {
        assert!(EntryName::new("io.github.modelcontextprotocol/server-everything").is_ok());
        for bad in ["noslash", "/a", "a/", "a/b/c", "a b/c", "io.github/x y"] {
            assert!(EntryName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_accepted_or_refused_without_panic(text in ".{0,80}") {
            if let Ok(name) = Name::new(text.clone()) {
                prop_assert!(name.as_str().len() <= Name::MAX_LEN && !name.as_str().contains("__"));
            }
            let _ = EntryName::new(text.clone());
            prop_assert!(!printable(&text).chars().any(is_hidden));
        }
    }
}
