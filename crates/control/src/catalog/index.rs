//! The search index of one organization: in memory, immutable, rebuilt when the catalog changes.
//!
//! A vocabulary of the words in names, titles, categories and descriptions, each with the entries it occurs
//! in. A query word matches a term exactly, as a beginning, as a part, or with one or two typing errors (by
//! its length), also as a beginning (`databse` finds `databases`); a compound matches an entry that has both
//! its parts (`timezone` finds `time zones`). Every word of a query must match. What is shown is read from the
//! store by id, so the index stays small: about 3 MB for 10,000 entries.
//!
//! One name is shown once: our own entry wins over the built-in one, and that over any other source's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use toolyard_store::{CatalogEntry, CatalogSource};
use toolyard_types::api::catalog::Category;
use toolyard_types::{EntryId, Timestamp};

const MAX_WORDS: usize = 8;
const MAX_WORD_CHARS: usize = 40;
/// The least characters of each part of a compound.
const SHORTEST_PART: usize = 3;
/// What having both parts of a compound is worth.
const COMPOUND: u32 = 15;
/// What registries put before an account at a host of code. Most names begin so, and it says nothing of an entry.
const HOSTS: [&str; 2] = ["io.github", "com.github"];

/// What to find, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) search: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) verified: Option<bool>,
    pub(crate) review: Review,
    pub(crate) sort: Sort,
}

/// Where an entry stands in the review.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Review {
    #[default]
    Approved,
    Submitted,
    Rejected,
}

impl Review {
    /// Reads it as stored and as asked for.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "approved" => Some(Self::Approved),
            "submitted" => Some(Self::Submitted),
            "rejected" => Some(Self::Rejected),
            _ => None,
        }
    }
}

/// The order of what is found; ties go by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    Relevance,
    #[default]
    Name,
    Updated,
    Deployments,
    Rating,
}

/// Where an entry stands in a list: the higher rank first, then the name, then the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place(Reverse<i64>, String, EntryId);

struct Item {
    id: EntryId,
    name: Box<str>,
    source: u16,
    /// Its categories, then its kinds.
    labels: Box<[u16]>,
    categories: usize,
    review: Review,
    shadowed: bool,
    verified: bool,
    rating_thousandths: u16,
    updated_at: Timestamp,
}

struct Term {
    text: Box<str>,
    letters: u32,
    chars: u16,
    postings: Box<[(u32, u8)]>,
}

/// The index.
#[derive(Default)]
pub(crate) struct Index {
    items: Vec<Item>,
    terms: Vec<Term>,
    sources: Vec<String>,
    labels: Vec<String>,
    /// The labels as the first entry spelled them.
    spellings: Vec<String>,
}

impl Index {
    /// Builds the index of these entries.
    pub(crate) fn build(sources: &[CatalogSource], mut entries: Vec<CatalogEntry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| precedence(sources, a).cmp(&precedence(sources, b))));
        let mut index =
            Self { sources: sources.iter().map(|source| source.name.to_string()).collect(), ..Self::default() };
        let mut labels: BTreeMap<String, u16> = BTreeMap::new();
        let mut postings: HashMap<String, Vec<(u32, u8)>> = HashMap::new();
        let mut shown: Option<String> = None;
        for (at, entry) in entries.into_iter().enumerate() {
            let Ok(at) = u32::try_from(at) else { break };
            let review = Review::parse(&entry.review).unwrap_or_default();
            let shadowed = review == Review::Approved && shown.as_deref() == Some(entry.name.as_str());
            if review == Review::Approved && !shadowed {
                shown = Some(entry.name.clone());
            }
            for (term, weight) in words_of(&entry) {
                let list = postings.entry(term).or_default();
                match list.last_mut() {
                    Some((last, best)) if *last == at => *best = (*best).max(weight),
                    _ => list.push((at, weight)),
                }
            }
            let mut of_item = Vec::new();
            for label in entry.categories.iter().chain(&entry.kinds) {
                let next = u16::try_from(labels.len()).unwrap_or(u16::MAX);
                let label_at = *labels.entry(label.to_lowercase()).or_insert_with(|| {
                    index.spellings.push(label.clone());
                    next
                });
                of_item.push(label_at);
            }
            let source = sources.iter().position(|source| source.id == entry.source_id).unwrap_or(usize::MAX);
            index.items.push(Item {
                id: entry.id,
                source: u16::try_from(source).unwrap_or(u16::MAX),
                labels: of_item.into(),
                categories: entry.categories.len(),
                review,
                shadowed,
                verified: entry.verified_by.is_some(),
                rating_thousandths: rating_thousandths(&entry),
                updated_at: entry.updated_at,
                name: entry.name.into(),
            });
        }
        index.labels = vec![String::new(); labels.len()];
        for (label, at) in labels {
            if let Some(slot) = index.labels.get_mut(usize::from(at)) {
                *slot = label;
            }
        }
        index.terms = postings.into_iter().map(|(text, list)| Term::new(&text, list)).collect();
        index
    }

    /// What matches, in order, with its place: at most `count`, after the place given.
    pub(crate) fn search(
        &self,
        query: &Query,
        deployments: &HashMap<String, u32>,
        after: Option<&Place>,
        count: usize,
    ) -> Vec<(Place, EntryId)> {
        let scores = query.search.as_deref().and_then(|search| self.scores(search));
        let wanted = |label: &Option<String>| {
            label.as_ref().map(|label| self.labels.iter().position(|known| *known == label.to_lowercase()))
        };
        let (category, kind) = (wanted(&query.category), wanted(&query.kind));
        let source = query.source.as_ref().map(|source| self.sources.iter().position(|known| known == source));
        let has = |item: &Item, label: &Option<Option<usize>>| {
            label
                .is_none_or(|label| label.is_some_and(|label| item.labels.iter().any(|&own| usize::from(own) == label)))
        };
        let after = after.map(|Place(rank, name, id)| (*rank, name.as_str(), *id));
        let mut found: Vec<(Reverse<i64>, &str, EntryId)> = self
            .items
            .iter()
            .enumerate()
            .filter(|(at, item)| {
                item.review == query.review
                    && (source.is_some() || !item.shadowed)
                    && source.is_none_or(|source| source == Some(usize::from(item.source)))
                    && query.verified.is_none_or(|verified| verified == item.verified)
                    && has(item, &category)
                    && has(item, &kind)
                    && scores.as_ref().is_none_or(|scores| scores.get(*at).is_some_and(|score| *score > 0))
            })
            .map(|(at, item)| {
                let rank = match query.sort {
                    Sort::Relevance => scores.as_ref().and_then(|scores| scores.get(at)).copied().map_or(0, i64::from),
                    Sort::Name => 0,
                    Sort::Updated => item.updated_at.as_ms(),
                    Sort::Deployments => deployments.get(&*item.name).copied().map_or(0, i64::from),
                    Sort::Rating => i64::from(item.rating_thousandths),
                };
                (Reverse(rank), &*item.name, item.id)
            })
            .filter(|place| after.is_none_or(|after| *place > after))
            .collect();
        // Only the page is put in order: a search may match everything.
        if found.len() > count && count > 0 {
            found.select_nth_unstable(count - 1);
            found.truncate(count);
        }
        found.sort_unstable();
        found.into_iter().map(|(rank, name, id)| (Place(rank, name.to_owned(), id), id)).collect()
    }

    /// The categories of what is shown, with how many entries have each, by name.
    pub(crate) fn categories(&self) -> Vec<Category> {
        let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
        for item in self.items.iter().filter(|item| item.review == Review::Approved && !item.shadowed) {
            for &category in item.labels.get(..item.categories).unwrap_or_default() {
                *counts.entry(category).or_default() += 1;
            }
        }
        let shown = |(label, entries): (u16, u32)| {
            Some(Category { name: self.spellings.get(usize::from(label))?.clone(), entries })
        };
        let mut categories: Vec<Category> = counts.into_iter().filter_map(shown).collect();
        categories.sort_by(|a, b| a.name.cmp(&b.name));
        categories
    }

    /// A score per entry: zero where a word of the search does not match. None where it is a host and nothing else, as of
    /// somebody who begins to type a name.
    fn scores(&self, search: &str) -> Option<Vec<u32>> {
        let whole = search.trim().to_lowercase();
        let parts = whole.split_whitespace();
        let asked: Vec<String> = parts.flat_map(|part| words(without_host(part))).take(MAX_WORDS).collect();
        if asked.is_empty() && words(&whole).next().is_some() {
            return None;
        }
        let mut totals = vec![0u32; self.items.len()];
        for (number, word) in asked.iter().enumerate() {
            let mut best = vec![0u32; self.items.len()];
            let asked = Asked::new(word);
            for term in &self.terms {
                raise(&mut best, term, asked.quality(term));
            }
            self.raise_compounds(&mut best, &asked);
            for (total, best) in totals.iter_mut().zip(best) {
                *total = if best == 0 || (number > 0 && *total == 0) { 0 } else { *total + best };
            }
        }
        for (total, item) in totals.iter_mut().zip(&self.items).filter(|(total, _)| **total > 0) {
            let name = item.name.to_lowercase();
            let short = name.split_once('/').map_or(name.as_str(), |(_, short)| short);
            if name == whole || short == whole {
                *total += 100_000;
            } else if short.strip_prefix("server-").unwrap_or(short).starts_with(&whole) {
                *total += 2_000;
            }
        }
        Some(totals)
    }

    /// Raises the entries that have both parts of a compound, which they write as two words.
    fn raise_compounds(&self, best: &mut [u32], asked: &Asked) {
        let first = |term: &&Term| {
            usize::from(term.chars) >= SHORTEST_PART
                && asked.chars.len() >= usize::from(term.chars) + SHORTEST_PART
                && asked.text.starts_with(&*term.text)
        };
        if asked.chars.len() < 2 * SHORTEST_PART {
            return;
        }
        for head in self.terms.iter().filter(first) {
            let Some(tail) = asked.text.get(head.text.len()..) else { continue };
            let mut of_head = vec![0; best.len()];
            let mut of_tail = vec![0; best.len()];
            raise(&mut of_head, head, COMPOUND);
            for term in self.terms.iter().filter(|term| term.text.starts_with(tail)) {
                raise(&mut of_tail, term, COMPOUND);
            }
            for (best, (head, tail)) in best.iter_mut().zip(of_head.into_iter().zip(of_tail)) {
                *best = (*best).max(head.min(tail));
            }
        }
    }
}

/// Raises the scores of a term's entries to what the match is worth.
fn raise(scores: &mut [u32], term: &Term, quality: u32) {
    if quality == 0 {
        return;
    }
    for &(item, weight) in &term.postings {
        if let Some(score) = usize::try_from(item).ok().and_then(|item| scores.get_mut(item)) {
            *score = (*score).max(quality * u32::from(weight));
        }
    }
}

impl Term {
    fn new(text: &str, postings: Vec<(u32, u8)>) -> Self {
        Self {
            letters: letters(text),
            chars: u16::try_from(text.chars().count()).unwrap_or(u16::MAX),
            text: text.into(),
            postings: postings.into(),
        }
    }
}

/// A query word with what the comparison with every term needs.
struct Asked<'a> {
    text: &'a str,
    chars: Vec<char>,
    letters: u32,
    typos: usize,
}

impl<'a> Asked<'a> {
    fn new(text: &'a str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let typos = match chars.len() {
            0..=3 => 0,
            4..=7 => 1,
            _ => 2,
        };
        Self { text, letters: letters(text), typos, chars }
    }

    /// How well a term matches: zero for not at all.
    fn quality(&self, term: &Term) -> u32 {
        if *term.text == *self.text {
            return 100;
        }
        if term.text.starts_with(self.text) {
            return 60;
        }
        if self.chars.len() >= 3 && term.text.contains(self.text) {
            return 30;
        }
        // Each edit takes away at most one letter that the term does not have.
        let missing = (self.letters & !term.letters).count_ones();
        if self.typos == 0
            || usize::try_from(missing).unwrap_or(usize::MAX) > self.typos
            || usize::from(term.chars) + self.typos < self.chars.len()
        {
            return 0;
        }
        let (whole, beginning) = distances(&self.chars, &term.text);
        // A short word with an error in it begins too many others.
        let begins = self.chars.len() >= 5 && term.text.starts_with(&self.chars[..1].iter().collect::<String>());
        match (whole, beginning) {
            (1, _) => 25,
            (_, 1) if begins => 20,
            (2, _) if self.typos == 2 => 12,
            (_, 2) if self.typos == 2 && begins => 8,
            _ => 0,
        }
    }
}

/// Which letters a text has, as bits: two texts whose bits differ much need many edits.
fn letters(text: &str) -> u32 {
    text.bytes().fold(0, |bits, byte| match byte {
        b'a'..=b'z' => bits | 1 << (byte - b'a'),
        b'0'..=b'9' => bits | 1 << 26,
        _ => bits | 1 << 27,
    })
}

/// Insertions, deletions, substitutions and swaps of neighbours between `a` and `b`, and between `a` and the
/// beginning of `b` that is nearest.
fn distances(a: &[char], b: &str) -> (usize, usize) {
    // What follows cannot be part of a beginning within two edits, and adds at least one edit a letter.
    let whole_chars = b.chars().count();
    let b: Vec<char> = b.chars().take(a.len() + 3).collect();
    let width = b.len() + 1;
    let mut before = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    let mut row = vec![0; width];
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..width {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row[j] = least;
        }
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    let beginning = last.iter().copied().min().unwrap_or(a.len());
    (last[width - 1] + whole_chars.saturating_sub(b.len()), beginning)
}

fn without_host(name: &str) -> &str {
    let after = |host: &&str| name.strip_prefix(*host).filter(|rest| rest.is_empty() || rest.starts_with(['.', '/']));
    HOSTS.iter().find_map(after).unwrap_or(name)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(MAX_WORD_CHARS).flat_map(char::to_lowercase).collect())
}

/// The words of an entry with their weights: what it is called counts more than what is said about it.
fn words_of(entry: &CatalogEntry) -> Vec<(String, u8)> {
    let (namespace, short) = entry.name.split_once('/').unwrap_or(("", &entry.name));
    let namespace = without_host(namespace);
    let fields =
        [(short, 5), (entry.title.as_deref().unwrap_or_default(), 5), (namespace, 2), (entry.description.as_str(), 1)];
    let texts = fields.into_iter().chain(entry.categories.iter().map(|category| (category.as_str(), 3)));
    texts.flat_map(|(text, weight)| words(text).map(move |word| (word, weight)).collect::<Vec<_>>()).collect()
}

/// Which of several entries of one name is shown: the lowest.
pub(crate) fn precedence(sources: &[CatalogSource], entry: &CatalogEntry) -> (bool, usize) {
    let unapproved = entry.review != "approved";
    let at = sources.iter().position(|source| source.id == entry.source_id);
    let rank = match at.and_then(|at| sources.get(at)).map(|source| source.kind.as_str()) {
        Some("own") => 0,
        Some("built_in") => 1,
        _ => at.map_or(usize::MAX, |at| at + 2),
    };
    (unapproved, rank)
}

fn rating_thousandths(entry: &CatalogEntry) -> u16 {
    let mean = i64::from(entry.rating_sum) * 1000 / i64::from(entry.rating_count.max(1));
    u16::try_from(mean).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolyard_types::{Name, SourceId};

    fn source(name: &str, kind: &str) -> CatalogSource {
        CatalogSource {
            id: SourceId::generate(),
            name: Name::new(name).expect("a name"),
            kind: kind.to_owned(),
            url: None,
            enabled: true,
            sync_state: "never".to_owned(),
            sync_message: String::new(),
            position: String::new(),
            synced_at: None,
            next_sync_at: None,
            created_at: Timestamp::default(),
        }
    }

    fn entry(source: &CatalogSource, name: &str, description: &str) -> CatalogEntry {
        CatalogEntry {
            id: EntryId::generate(),
            source_id: source.id,
            name: name.to_owned(),
            latest_version: "1.0.0".to_owned(),
            title: None,
            description: description.to_owned(),
            categories: vec!["Search".to_owned()],
            categories_set: false,
            kinds: vec!["npm".to_owned()],
            status: "active".to_owned(),
            status_message: None,
            review: "approved".to_owned(),
            review_reason: None,
            submitted_by: None,
            verified_by: None,
            public: false,
            rating_sum: 0,
            rating_count: 0,
            seen_at: Timestamp::default(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    fn names(index: &Index, search: &str) -> Vec<String> {
        let query = Query { search: Some(search.to_owned()), sort: Sort::Relevance, ..Query::default() };
        index.search(&query, &HashMap::new(), None, 100).into_iter().map(|(place, _)| place.1).collect()
    }

    fn small() -> Index {
        let built_in = source("built-in", "built_in");
        let entries = vec![
            entry(&built_in, "io.github.example/server-everything", "Exercises every feature."),
            entry(&built_in, "io.github.example/playwright", "Drives a browser."),
            entry(&built_in, "io.github.example/time", "Says the time in everything but Latin."),
        ];
        Index::build(&[built_in], entries)
    }

    #[test]
    fn the_best_match_comes_first_and_typing_errors_are_forgiven() {
        let index = small();
        assert_eq!(names(&index, "everything"), ["io.github.example/server-everything", "io.github.example/time"]);
        for typed in ["evrything", "everyhting", "EVERYTHING", "server-everythin", "every"] {
            assert_eq!(
                names(&index, typed).first().map(String::as_str),
                Some("io.github.example/server-everything"),
                "{typed}"
            );
        }
        assert_eq!(names(&index, "plawright"), ["io.github.example/playwright"]);
        assert!(names(&index, "nothing-like-it").is_empty());
        assert!(names(&index, "playwright latin").is_empty(), "every word must match");
    }

    #[test]
    fn the_host_that_most_names_begin_with_is_no_word_of_theirs() {
        let built_in = source("built-in", "built_in");
        let entries = vec![
            entry(&built_in, "io.github.example/time", "Says the time."),
            entry(&built_in, "io.github.github/github-mcp-server", "Issues and pull requests."),
            entry(&built_in, "io.github.other/reviews", "Reviews what is on GitHub."),
        ];
        let index = Index::build(&[built_in], entries);
        assert_eq!(names(&index, "github"), ["io.github.github/github-mcp-server", "io.github.other/reviews"]);
        assert_eq!(names(&index, "com.github.example"), ["io.github.example/time"]);
        for typed in ["io.github.example/time", "IO.GitHub.example", "time io.github.example"] {
            assert_eq!(names(&index, typed), ["io.github.example/time"], "{typed}");
        }
    }

    #[test]
    fn a_search_for_nothing_but_a_host_is_no_search() {
        let built_in = source("built-in", "built_in");
        let all = ["com.acme/maps", "io.github.example/time", "io.github/stars"];
        let entries = all.iter().map(|name| entry(&built_in, name, "What it does.")).collect();
        let index = Index::build(&[built_in], entries);
        for typed in ["io.github", "io.github.", "com.github", "IO.GitHub./", "io.github com.github."] {
            assert_eq!(names(&index, typed), all, "{typed}");
        }
        assert_eq!(names(&index, "io.github.example"), ["io.github.example/time"]);
        assert_eq!(names(&index, "io.github time"), ["io.github.example/time"]);
        assert_eq!(names(&index, "io.github/stars"), ["io.github/stars"]);
        for typed in ["%", "...", "io.github.nobody"] {
            assert!(names(&index, typed).is_empty(), "{typed}");
        }
    }

    #[test]
    fn a_word_with_an_error_begins_a_longer_one_and_a_compound_is_two_words() {
        let built_in = source("built-in", "built_in");
        let entries = vec![
            entry(&built_in, "a/time", "The current time, and conversion between time zones."),
            entry(&built_in, "a/clickhouse", "Lists databases and tables."),
            entry(&built_in, "a/dates", "Dates of basements."),
            entry(&built_in, "a/slots", "Timetables of trains."),
        ];
        let index = Index::build(&[built_in], entries);
        for typed in ["timezone", "timezones", "time zone", "Timezone"] {
            assert_eq!(names(&index, typed), ["a/time"], "{typed}");
        }
        for typed in ["databse", "database", "databaes", "dtabase", "databasse"] {
            assert_eq!(names(&index, typed), ["a/clickhouse"], "{typed}");
        }
        assert_eq!(names(&index, "timetabel"), ["a/slots"]);
        assert!(names(&index, "timetrains").is_empty(), "not in the same entry as words of their own");
        assert!(names(&index, "tome").contains(&"a/time".to_owned()), "one error in four letters");
    }

    #[test]
    fn hostile_searches_find_nothing_and_break_nothing() {
        for search in ["", "%", "'; DROP TABLE", "\u{202e}\u{0}", &"a".repeat(10_000), &"a ".repeat(10_000)] {
            let _ = names(&small(), search);
        }
    }

    #[test]
    fn one_name_is_shown_once_and_our_own_wins() {
        let sources = [source("official", "registry"), source("built-in", "built_in"), source("own", "own")];
        let entries: Vec<_> = sources.iter().map(|source| entry(source, "a/b", source.name.as_str())).collect();
        let own = entries[2].id;
        let index = Index::build(&sources, entries);
        let shown = index.search(&Query::default(), &HashMap::new(), None, 100);
        assert_eq!(shown.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), [own]);
        let query = Query { source: Some("official".to_owned()), ..Query::default() };
        assert_eq!(index.search(&query, &HashMap::new(), None, 100).len(), 1);
    }

    #[test]
    fn filters_narrow_and_unknown_labels_find_nothing() {
        let index = small();
        let count = |query: Query| index.search(&query, &HashMap::new(), None, 100).len();
        assert_eq!(count(Query { category: Some("search".to_owned()), ..Query::default() }), 3);
        assert_eq!(count(Query { category: Some("no such".to_owned()), ..Query::default() }), 0);
        assert_eq!(count(Query { kind: Some("npm".to_owned()), ..Query::default() }), 3);
        assert_eq!(count(Query { verified: Some(true), ..Query::default() }), 0);
        assert_eq!(count(Query { review: Review::Submitted, ..Query::default() }), 0);
    }

    #[test]
    fn the_distance_counts_edits_and_swaps() {
        let between = |a: &str, b: &str| distances(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(between("playwright", "playwright"), (0, 0));
        assert_eq!(between("plawright", "playwright"), (1, 1));
        assert_eq!(between("everyhting", "everything"), (1, 1));
        assert_eq!(between("kitten", "sitting").0, 3);
        assert_eq!(between("databse", "databases"), (2, 1));
        assert_eq!(between("a", "abcdefghij"), (9, 0));
    }
}
