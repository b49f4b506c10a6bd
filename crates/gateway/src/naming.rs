//! Names of tools and prompts in a toolset.
//!
//! `{server}__{tool}`, at most 64 characters of `A-Za-z0-9_-`, because clients refuse others and one refused
//! name can break a whole client session. A name depends on nothing but the server and the tool, so adding a
//! server or a tool renames nothing. Names that do not fit are cut and end in a hash of what they stand for.
//! Whoever lists keeps the map. Only while a server has not listed is a plain name parsed back.

use sha2::{Digest, Sha256};
use toolyard_types::Name;
use toolyard_types::name::is_hidden;

/// The longest exposed name.
pub const MAX_EXPOSED: usize = 64;
/// The longest name of a server's own that is listed at all.
const MAX_OWN_BYTES: usize = 256;
/// `_` and eight hex digits.
const SUFFIX: usize = 9;

/// The name under which `own` of `server` is exposed, and whether it is the plain pair.
#[must_use]
pub fn expose(server: &Name, own: &str) -> (String, bool) {
    let mut exposed = format!("{server}__");
    let prefix = exposed.len();
    exposed.extend(own.chars().map(|c| if is_plain(c) { c } else { '_' }));
    if exposed.len() <= MAX_EXPOSED && &exposed[prefix..] == own {
        return (exposed, true);
    }
    exposed.truncate(MAX_EXPOSED - SUFFIX);
    let digest = Sha256::new().chain_update(server.as_str()).chain_update([0]).chain_update(own).finalize();
    exposed.push('_');
    for byte in &digest[..4] {
        exposed.push_str(&format!("{byte:02x}"));
    }
    (exposed, false)
}

/// The tool or prompt of a server that is exposed as `exposed`, when that is the plain pair and cannot be anything else.
#[must_use]
pub fn plain<'a>(server: &Name, exposed: &'a str) -> Option<&'a str> {
    let own = exposed.strip_prefix(server.as_str())?.strip_prefix("__")?;
    (!is_hashed(exposed) && is_listable(own) && expose(server, own) == (exposed.to_owned(), true)).then_some(own)
}

/// Whether `exposed` may be the hash of something of a server's.
#[must_use]
pub fn may_be_hash_of(server: &Name, exposed: &str) -> bool {
    let prefix = format!("{server}__");
    is_hashed(exposed) && exposed.starts_with(&prefix[..prefix.len().min(MAX_EXPOSED - SUFFIX)])
}

fn is_hashed(exposed: &str) -> bool {
    let suffix = exposed.len().checked_sub(SUFFIX).and_then(|at| exposed.get(at..));
    let digits = suffix.and_then(|suffix| suffix.strip_prefix('_'));
    digits.is_some_and(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether a name a server gave may be listed: bounded, and without characters that hide or reorder text.
#[must_use]
pub fn is_listable(own: &str) -> bool {
    !own.is_empty() && own.len() <= MAX_OWN_BYTES && !own.chars().any(is_hidden)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_plain_name_is_read_back_and_a_hash_is_not() {
        let server = Name::new("two").unwrap();
        for own in ["echo", "a__b", "x-y_z", "snow man", "t_0123abcd"] {
            let (exposed, is_plain) = expose(&server, own);
            let is_sure = is_plain && own != "t_0123abcd";
            assert_eq!(plain(&server, &exposed), is_sure.then_some(own), "{own}");
            assert_eq!(may_be_hash_of(&server, &exposed), !is_sure, "{own}");
        }
        for other in ["echo", "two_echo", "two__", "three__echo", "two__\u{202e}"] {
            assert_eq!((plain(&server, other), may_be_hash_of(&server, other)), (None, false), "{other}");
        }
    }

    fn exposed(server: &str, own: &str) -> String {
        expose(&Name::new(server).unwrap(), own).0
    }

    #[test]
    fn names_are_these_and_stay_these() {
        for (server, own, want) in [
            ("everything", "echo", "everything__echo"),
            ("a-b", "get_x-Y1", "a-b__get_x-Y1"),
            ("s", "a.b/c", "s__a_b_c_90bbf8ae"),
            ("s", "größe", "s__gr__e_82d47a0c"),
            (
                "a-server-with-quite-a-long-name",
                "and_a_tool_with_a_name_that_is_longer",
                "a-server-with-quite-a-long-name__and_a_tool_with_a_name_d7192766",
            ),
        ] {
            assert_eq!(exposed(server, own), want);
        }
    }

    #[test]
    fn hidden_and_endless_names_are_not_listed() {
        for bad in ["", "a\u{200b}b", "\u{202e}evil", "a\nb", &"x".repeat(257)] {
            assert!(!is_listable(bad), "{bad:?}");
        }
        assert!(is_listable("größe.x/y"));
    }

    proptest! {
        #[test]
        fn every_name_fits_what_clients_accept(server in "[a-z][a-z0-9]{0,39}", own in "\\PC{1,90}") {
            let name = exposed(&server, &own);
            prop_assert!(name.len() <= MAX_EXPOSED);
            prop_assert!(name.chars().all(is_plain), "{}", name);
            prop_assert_eq!(name.split("__").next(), Some(server.as_str()));
        }

        #[test]
        fn different_tools_have_different_names(own in prop::collection::hash_set("[a-c._]{1,30}|[a-z]{60,70}", 1..40)) {
            let names: HashSet<String> = own.iter().map(|own| exposed("server", own)).collect();
            prop_assert_eq!(names.len(), own.len());
        }
    }
}
