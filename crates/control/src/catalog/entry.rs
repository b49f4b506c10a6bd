//! What we read off a document, and which version is the latest: all pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use semver::Version;
use serde_json::Value;
use toolyard_types::Timestamp;
use toolyard_types::server_json::ServerJson;

/// Where publishers put their own data in a document's `_meta`; other keys are dropped by registries.
pub(crate) const PUBLISHER_META: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// Where a registry puts status and dates, beside the document.
pub(crate) const OFFICIAL_META: &str = "io.modelcontextprotocol.registry/official";
const MAX_CATEGORIES: usize = 10;
const MAX_CATEGORY_LEN: usize = 40;

/// How an entry can run: its package types, and `remote`.
pub(crate) fn kinds(server: &ServerJson) -> Vec<String> {
    let mut kinds: BTreeSet<String> = server
        .packages
        .iter()
        .map(|package| package.registry_type.clone())
        .filter(|kind| !kind.is_empty() && kind.len() <= 20)
        .collect();
    if !server.remotes.is_empty() {
        kinds.insert("remote".to_owned());
    }
    kinds.into_iter().collect()
}

/// The categories a document names in its publisher's metadata.
pub(crate) fn categories(server: &ServerJson) -> Vec<String> {
    let named = server
        .meta
        .as_ref()
        .and_then(|meta| meta.get(PUBLISHER_META)?.get("categories")?.as_array())
        .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
        .unwrap_or_default();
    good_categories(named)
}

/// Keeps the categories that can be shown: short, without hidden characters, each once.
pub(crate) fn good_categories(categories: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    categories
        .into_iter()
        .map(|category| category.trim().to_owned())
        .filter(|category| is_category(category) && seen.insert(category.to_lowercase()))
        .take(MAX_CATEGORIES)
        .collect()
}

/// Whether a category can be shown.
pub(crate) fn is_category(category: &str) -> bool {
    !category.is_empty()
        && category.chars().count() <= MAX_CATEGORY_LEN
        && !category.chars().any(toolyard_types::name::is_hidden)
}

/// A version, as far as the choice of the latest is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) version: String,
    pub(crate) deleted: bool,
    pub(crate) published_at: Option<Timestamp>,
    /// What the source says now about its being the latest; `None` when it says nothing.
    pub(crate) claim: Option<bool>,
    /// Whether it was the latest before.
    pub(crate) was_latest: bool,
}

/// Which version is the latest: what the source says wins; else the order of versions. A deleted version is
/// the latest only when all are.
pub(crate) fn latest(candidates: &[Candidate]) -> Option<&Candidate> {
    let alive: Vec<&Candidate> = candidates.iter().filter(|candidate| !candidate.deleted).collect();
    let pool = if alive.is_empty() { candidates.iter().collect() } else { alive };
    let newest = |of: &mut dyn Iterator<Item = &'_ &Candidate>| -> Option<String> {
        of.max_by(|a, b| order(a, b)).map(|candidate| candidate.version.clone())
    };
    let claimed = newest(&mut pool.iter().filter(|candidate| candidate.claim == Some(true)));
    // A page that only says which versions are not the latest leaves the one we knew.
    let kept = || {
        let says_something = candidates.iter().any(|candidate| candidate.claim.is_some());
        let known = pool.iter().find(|candidate| candidate.was_latest && candidate.claim != Some(false));
        known.filter(|_| says_something).map(|candidate| candidate.version.clone())
    };
    let chosen = claimed.or_else(kept).or_else(|| newest(&mut pool.iter()))?;
    candidates.iter().find(|candidate| candidate.version == chosen)
}

/// Semantic versions by precedence, others by date of publication, and semantic before others.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    match (semantic(&a.version), semantic(&b.version)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.published_at.cmp(&b.published_at).then_with(|| a.version.cmp(&b.version)),
    }
}

fn semantic(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v').unwrap_or(version)).ok()
}

/// Puts versions newest first, for people.
pub(crate) fn newest_first(versions: &mut [(String, Option<Timestamp>)]) {
    let candidate = |(version, published_at): &(String, Option<Timestamp>)| Candidate {
        version: version.clone(),
        deleted: false,
        published_at: *published_at,
        claim: None,
        was_latest: false,
    };
    versions.sort_by(|a, b| order(&candidate(b), &candidate(a)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(version: &str) -> Candidate {
        Candidate { version: version.to_owned(), deleted: false, published_at: None, claim: None, was_latest: false }
    }

    fn chosen(candidates: &[Candidate]) -> &str {
        &latest(candidates).expect("there are candidates").version
    }

    #[test]
    fn semantic_versions_are_ordered_by_precedence_and_come_before_others() {
        assert_eq!(chosen(&[candidate("1.9.0"), candidate("1.10.0"), candidate("1.10.0-rc.1")]), "1.10.0");
        assert_eq!(chosen(&[candidate("0.1.0"), candidate("spring-release")]), "0.1.0");
        let dated = |version: &str, ms| Candidate { published_at: Some(Timestamp::from_ms(ms)), ..candidate(version) };
        assert_eq!(chosen(&[dated("spring", 2), dated("autumn", 1)]), "spring");
    }

    #[test]
    fn what_the_source_calls_the_latest_wins() {
        let claimed = Candidate { claim: Some(true), ..candidate("1.0.0") };
        assert_eq!(chosen(&[claimed, candidate("2.0.0")]), "1.0.0");
        let known = Candidate { was_latest: true, ..candidate("1.0.0") };
        let other = Candidate { claim: Some(false), ..candidate("2.0.0") };
        assert_eq!(chosen(&[known, other]), "1.0.0");
    }

    #[test]
    fn a_deleted_version_is_the_latest_only_when_all_are() {
        let deleted = Candidate { deleted: true, claim: Some(true), ..candidate("2.0.0") };
        assert_eq!(chosen(&[candidate("1.0.0"), deleted.clone()]), "1.0.0");
        assert_eq!(chosen(&[deleted]), "2.0.0");
    }
}
