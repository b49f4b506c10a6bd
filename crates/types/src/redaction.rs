//! Takes secrets out of texts before they are written or told to anybody.
//!
//! A server that logs its request headers writes `Basic dXNlcjpodW50ZXIy`, a failed request quotes its URL, a template
//! engine escapes what it shows. So a secret is looked for as it is, line by line (a log is), in hex, and in base64 of
//! either alphabet wherever it lies in what was encoded; and all of these again in the text with its URL, HTML and
//! JSON escapes undone, twice over, because one is often written into the other. What is found is replaced where it
//! stands in the text as it was.
//!
//! A secret that is made of several things is looked for in each that is one by itself: the token behind `Bearer`, the
//! password in a URL or a connection string. A text may have been cut in the middle of a secret, so its first half is
//! looked for too, with whatever of the rest follows.
//!
//! It does not find a secret that was cut into pieces shorter than half of it, compressed, encrypted or hashed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use crate::Secret;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";
/// A secret shorter than this is not looked for: it would black out half of every line.
const MIN_BYTES: usize = 4;
/// The same for one line of a secret that has several.
const MIN_LINE_BYTES: usize = 8;
/// The same for a part of one.
const MIN_PART_BYTES: usize = 6;
/// What a key has in its name whose value is a secret.
const SECRET_KEYS: [&str; 8] = ["password", "passwd", "pwd", "secret", "token", "key", "sig", "auth"];
/// And for the beginning of one: half of a short password may be a word of every line.
const MIN_BEGINNING_BYTES: usize = 8;
/// Beginnings of one secret that are looked for.
const MOST_BEGINNINGS: usize = 512;
/// An encoded form longer than this may be wrapped, so pieces of it are looked for.
const LONGEST_WHOLE: usize = 48;
/// How long such a piece is...
const PIECE: usize = 16;
/// ...and how far from the one before: every line of 60 characters, the shortest that tools wrap at, has a whole piece.
const STRIDE: usize = 40;

/// What around a match belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    /// Nothing.
    Alone,
    /// What may be the rest of it: of a beginning, whatever follows, so that nobody learns by trying where it differs.
    Rest,
    /// The hex digits on both sides.
    Hex,
    /// The base64 characters on both sides: those at the edges hold bits of the secret too.
    Base64,
}

impl Run {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Alone => false,
            Self::Rest => !byte.is_ascii_whitespace() && !b"\"'`<>(){}[],;&|".contains(&byte),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Base64 => byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte),
        }
    }
}

/// Replaces some secrets in texts.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    /// Nothing to look for, nothing to do.
    patterns: Option<AhoCorasick>,
    runs: Vec<Run>,
    /// Whether a secret has a space, which forms write as `+`.
    spaced: bool,
}

impl Redaction {
    /// What takes these secrets out.
    #[must_use]
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns = BTreeMap::new();
        let mut spaced = false;
        for secret in secrets.into_iter().map(Secret::expose).filter(|secret| secret.len() >= MIN_BYTES) {
            spaced |= secret.contains(' ');
            forms(secret, &mut patterns);
            parts(secret).iter().for_each(|part| forms(part, &mut patterns));
        }
        if patterns.is_empty() {
            return Self::default();
        }
        // Small rather than quick: every server's supervisor holds one.
        let found = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(patterns.keys()).ok();
        let mut runs = Vec::with_capacity(patterns.len());
        for (mut pattern, run) in patterns {
            pattern.zeroize();
            runs.push(run);
        }
        Self { patterns: found, runs, spaced }
    }

    /// `text` with `[redacted]` in the place of every secret.
    #[must_use]
    pub fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(patterns) = &self.patterns else { return Cow::Borrowed(text) };
        let mut found = Vec::new();
        self.search(patterns, &View::of(text), 2, &mut found);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable_by_key(|range| (range.start, range.end));
        let mut clean = String::with_capacity(text.len());
        let mut done = 0;
        let mut ranges = found.into_iter().peekable();
        while let Some(mut range) = ranges.next() {
            while let Some(next) = ranges.next_if(|next| next.start <= range.end) {
                range.end = range.end.max(next.end);
            }
            clean.push_str(&text[done..boundary(text, range.start)]);
            clean.push_str(REDACTED);
            done = boundary(text, range.end);
        }
        clean.push_str(&text[done..]);
        Cow::Owned(clean)
    }

    /// Looks into `view`, and into what its escapes stand for.
    fn search(&self, patterns: &AhoCorasick, view: &View<'_>, deeper: u32, found: &mut Vec<Range<usize>>) {
        for hit in patterns.find_overlapping_iter(&view.bytes) {
            let run = self.runs[hit.pattern().as_usize()];
            let is_rest = run == Run::Rest;
            let before = view.bytes[..hit.start()].iter().rev().take_while(|byte| !is_rest && run.has(**byte)).count();
            let after = view.bytes[hit.end()..].iter().take_while(|byte| run.has(**byte)).count();
            found.push(view.place(hit.start() - before)..view.place(hit.end() + after));
        }
        if deeper == 0 {
            return;
        }
        let form = self.spaced.then_some((&b"%+"[..], form_escape as Unescape));
        let escapes: [(&[u8], Unescape); 3] = [(b"%", url_escape), (b"&", html_escape), (b"\\", escape)];
        for (marks, unescape) in escapes.into_iter().chain(form) {
            if let Some(view) = view.unescaped(marks, unescape) {
                self.search(patterns, &view, deeper - 1, found);
            }
        }
    }
}

/// The end of the character that `at` is in, if it is in one: nothing but a hostile escape leads there.
fn boundary(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// What is a secret by itself of one that is made of several things.
fn parts(secret: &str) -> Vec<Zeroizing<String>> {
    let mut parts = Vec::new();
    let mut add = |part: &str| {
        if (MIN_PART_BYTES..secret.len()).contains(&part.len()) {
            parts.push(Zeroizing::new(part.to_owned()));
        }
    };
    // `Authorization: SCHEME CREDENTIALS` (RFC 9110, section 11.4); of Basic they are USER:PASSWORD (RFC 7617).
    if let Some((scheme, credentials)) = secret.trim().split_once(' ')
        && !credentials.contains(' ')
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        add(credentials);
        if scheme.eq_ignore_ascii_case("basic")
            && let Ok(pair) = STANDARD_NO_PAD.decode(credentials.trim_end_matches('='))
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((_, password)) = Zeroizing::new(pair).split_once(':')
        {
            add(password);
        }
    }
    // A URL's `USER:PASSWORD@` (RFC 3986, section 3.2.1).
    if let Some((_, rest)) = secret.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            let password = user.split_once(':').map_or(user, |(_, password)| password);
            add(password);
            if let Some(View { bytes, .. }) = View::of(password).unescaped(b"%", url_escape) {
                add(&String::from_utf8_lossy(&bytes));
            }
        }
    }
    // `key=value` of a URL's query or a connection string, where the key says that it is one.
    for pair in secret.split(['?', '&', ';', ' ', '\n', '#']) {
        if let Some((key, value)) = pair.split_once('=')
            && SECRET_KEYS.iter().any(|name| key.to_ascii_lowercase().contains(name))
        {
            add(value.trim().trim_matches(['"', '\'']));
        }
    }
    parts
}

/// Everything to look for because of one secret.
fn forms(secret: &str, patterns: &mut BTreeMap<Vec<u8>, Run>) {
    let mut add = |pattern: &[u8], run: Run| {
        patterns.entry(pattern.to_vec()).and_modify(|known| *known = run.max(*known)).or_insert(run);
    };
    // A trie holds all beginnings of a pattern: these cost no more than the whole.
    let half = secret.len().div_ceil(2).max(MIN_BEGINNING_BYTES);
    let beginnings = (half..secret.len()).step_by(secret.len() / MOST_BEGINNINGS + 1);
    beginnings.for_each(|end| add(&secret.as_bytes()[..end], Run::Rest));
    add(secret.as_bytes(), Run::Alone);
    let lines = secret.lines().map(str::trim).filter(|line| line.len() >= MIN_LINE_BYTES);
    lines.for_each(|line| add(line.as_bytes(), Run::Alone));
    let mut encoded = |text: Zeroizing<String>, run| {
        if text.len() <= LONGEST_WHOLE {
            add(text.as_bytes(), run);
            // Cut; the run takes what follows.
            if text.len() > PIECE {
                add(&text.as_bytes()[..PIECE], run);
            }
            return;
        }
        let pieces = (0..=text.len() - PIECE).step_by(STRIDE);
        pieces.for_each(|at| add(&text.as_bytes()[at..at + PIECE], run));
    };
    let hex = |upper: bool| -> Zeroizing<String> {
        let digits: &[u8; 16] = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
        let pair = |byte: u8| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]].map(char::from);
        Zeroizing::new(secret.bytes().flat_map(pair).collect())
    };
    encoded(hex(false), Run::Hex);
    encoded(hex(true), Run::Hex);
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // With no, one or two bytes before it in its group of three.
        for (before, unsure) in [(0, 0), (1, 2), (2, 3)] {
            let bytes: Zeroizing<Vec<u8>> = Zeroizing::new([&[0; 2][..before], secret.as_bytes()].concat());
            let text = Zeroizing::new(engine.encode(&*bytes));
            // The last character holds bits of what comes next, unless a group ends there.
            let end = text.len() - usize::from(!bytes.len().is_multiple_of(3));
            encoded(Zeroizing::new(text[unsure..end].to_owned()), Run::Base64);
        }
    }
}

/// A text, perhaps with escapes undone, that knows where everything stood.
struct View<'t> {
    bytes: Cow<'t, [u8]>,
    /// Where each byte begins in the text as it was, and where that ends; none when it is as it was.
    places: Option<Vec<usize>>,
}

/// What an escape stands for, and how many bytes it takes.
type Unescaped = (Character, usize);
/// Reads the escape that begins here, if one does.
type Unescape = fn(&[u8]) -> Option<Unescaped>;

/// One character or byte.
struct Character([u8; 4], usize);

impl Character {
    fn of(character: char) -> Self {
        let mut bytes = [0; 4];
        let length = character.encode_utf8(&mut bytes).len();
        Self(bytes, length)
    }
}

impl<'t> View<'t> {
    fn of(text: &'t str) -> Self {
        Self { bytes: Cow::Borrowed(text.as_bytes()), places: None }
    }

    fn place(&self, at: usize) -> usize {
        self.places.as_ref().map_or(at, |places| places[at])
    }

    /// This with every escape undone that `unescape` knows, or nothing when it has none. They begin with a mark.
    fn unescaped(&self, marks: &[u8], unescape: Unescape) -> Option<View<'static>> {
        let first = self.bytes.iter().position(|byte| marks.contains(byte))?;
        let mut bytes = self.bytes[..first].to_vec();
        let mut places: Vec<usize> = (0..first).map(|at| self.place(at)).collect();
        let (mut at, mut any) = (first, false);
        while at < self.bytes.len() {
            let place = self.place(at);
            match unescape(&self.bytes[at..]) {
                Some((Character(character, length), taken)) => {
                    any = true;
                    bytes.extend_from_slice(&character[..length]);
                    places.extend(std::iter::repeat_n(place, length));
                    at += taken;
                }
                None => {
                    bytes.push(self.bytes[at]);
                    places.push(place);
                    at += 1;
                }
            }
        }
        places.push(self.place(at));
        any.then_some(View { bytes: Cow::Owned(bytes), places: Some(places) })
    }
}

/// `%2F`.
fn url_escape(bytes: &[u8]) -> Option<Unescaped> {
    let [b'%', high, low, ..] = bytes else { return None };
    let byte = u8::try_from(digit(*high, 16)? << 4 | digit(*low, 16)?).ok()?;
    Some((Character([byte, 0, 0, 0], 1), 3))
}

/// `%2F`, and `+` for a space.
fn form_escape(bytes: &[u8]) -> Option<Unescaped> {
    if bytes.first() == Some(&b'+') { Some((Character::of(' '), 1)) } else { url_escape(bytes) }
}

/// `&amp;`, `&#39;` and `&#x27;`.
fn html_escape(bytes: &[u8]) -> Option<Unescaped> {
    let rest = bytes.strip_prefix(b"&")?;
    let name = &rest[..rest.iter().take(10).position(|byte| *byte == b';')?];
    let character = match name {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
        _ => return None,
    };
    Some((Character::of(character), name.len() + 2))
}

/// `\n`, `\"`, `\u00e9` and `\x2f`.
fn escape(bytes: &[u8]) -> Option<Unescaped> {
    let [b'\\', kind, rest @ ..] = bytes else { return None };
    let character = match kind {
        b'"' | b'\'' | b'\\' | b'/' => char::from(*kind),
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'x' => {
            let byte = u8::try_from(number(rest.get(..2)?, 16)?).ok()?;
            return Some((Character([byte, 0, 0, 0], 1), 4));
        }
        b'u' => {
            let unit = number(rest.get(..4)?, 16)?;
            if let Some(character) = char::from_u32(unit) {
                return Some((Character::of(character), 6));
            }
            // Half of a pair.
            let low = number(rest.get(4..)?.strip_prefix(b"\\u")?.get(..4)?, 16)?;
            let units = [u16::try_from(unit).ok()?, u16::try_from(low).ok()?];
            return Some((Character::of(char::decode_utf16(units).next()?.ok()?), 12));
        }
        _ => return None,
    };
    Some((Character::of(character), 2))
}

fn digit(byte: u8, base: u32) -> Option<u32> {
    char::from(byte).to_digit(base)
}

fn number(digits: &[u8], base: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, byte| number.checked_mul(base)?.checked_add(digit(*byte, base)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(secrets: &[&str], text: &str) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        Redaction::of(&secrets).clean(text).into_owned()
    }

    #[test]
    fn a_secret_of_several_lines_in_json_or_within_another_is_redacted_too() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----";
        let clean = |text: &str| clean(&[key, "abcd", "abcd-and-more", "quo\"ted", "x"], text);
        assert_eq!(clean("  MIIEvQIBADAN"), "  [redacted]");
        assert_eq!(clean(&serde_json::json!({ "key": key }).to_string()), r#"{"key":"[redacted]"}"#);
        assert_eq!(clean("abcd-and-more abcd"), "[redacted] [redacted]");
        assert_eq!(clean(r#"{"a":"quo\"ted"}"#), r#"{"a":"[redacted]"}"#);
        assert_eq!(clean("x is too short to look for"), "x is too short to look for");
    }

    #[test]
    fn a_secret_is_known_in_every_form_that_programs_write_it_in() {
        let secret = "p@ss w+rd/ü<&>\"'?=";
        for form in [
            // encodeURIComponent, a form, Go's url.PathEscape with lower-case digits.
            "p%40ss%20w%2Brd%2F%C3%BC%3C%26%3E%22'%3F%3D",
            "p%40ss+w%2Brd%2F%C3%BC%3C%26%3E%22%27%3F%3D",
            "p@ss%20w+rd%2f%c3%bc%3c&%3e%22%27%3f=",
            // Templates.
            "p@ss w+rd/ü&lt;&amp;&gt;&quot;&#39;?=",
            "p@ss w+rd&#x2F;&#252;&lt;&amp;&gt;&#34;&#x27;?=",
            // JSON of Rust, Python and Go, and JSON in JSON.
            "p@ss w+rd/ü<&>\\\"'?=",
            "p@ss w+rd/\\u00fc<&>\\\"'?=",
            "p@ss w+rd\\/ü\\u003c\\u0026\\u003e\\\"\\u0027?=",
            "p@ss w+rd/ü<&>\\\\\\\"'?=",
            // A URL in a page.
            "p%40ss%20w%2Brd%2F%C3%BC%3C%26%3E%22&#39;%3F%3D",
            // Hex.
            "7040737320772b72642fc3bc3c263e22273f3d",
            "7040737320772B72642FC3BC3C263E22273F3D",
        ] {
            assert_eq!(clean(&[secret], &format!("got '{form}' here")), "got '[redacted]' here", "{form}");
        }
    }

    #[test]
    fn base64_is_known_at_every_alignment_with_and_without_padding_and_in_a_url() {
        let secret = "hunter2?>~~";
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "1", "22", "333"] {
                for engine in [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE] {
                    let form = engine.encode(format!("{before}{secret}{after}"));
                    for form in [
                        form.clone(),
                        form.trim_end_matches('=').to_owned(),
                        form.replace('+', "%2B").replace('=', "%3D"),
                    ] {
                        assert_eq!(clean(&[secret], &format!("Basic {form}, no")), "Basic [redacted], no", "{form}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_secret_is_known_in_each_line_of_what_base64_and_xxd_write() {
        let secret: String = (0..900_u32).map(|n| char::from(b'!' + u8::try_from(n * 7 % 90).unwrap_or(0))).collect();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for (form, width) in
            [(STANDARD_NO_PAD.encode(&secret), 76), (STANDARD_NO_PAD.encode(format!("k={secret}")), 64), (hex, 60)]
        {
            for line in form.as_bytes().chunks_exact(width) {
                let line = String::from_utf8_lossy(line);
                assert_eq!(clean(&[&secret], &line), "[redacted]", "{line}");
            }
        }
    }

    #[test]
    fn what_is_a_secret_by_itself_is_known_without_what_is_around_it() {
        for (secret, part) in [
            ("Bearer sk-live-0123456789", "sk-live-0123456789"),
            ("Basic dXNlcjpodW50ZXIyMg==", "hunter22"),
            ("token ghp_0123456789", "ghp_0123456789"),
            ("postgres://app:hunter22@db.example.test/app", "hunter22"),
            ("postgres://app:hun%40ter22@db.example.test/app", "hun@ter22"),
            ("https://example.test/mcp?api_key=abcdef123456", "abcdef123456"),
            ("Server=db;User Id=app;Password=hunter22;", "hunter22"),
        ] {
            assert_eq!(clean(&[secret], &format!("got {part}, no")), "got [redacted], no", "{secret}");
        }
        let text = "the user of example.test is app, of scheme Bearer";
        assert_eq!(clean(&["postgres://app:hunter22@example.test/app", "Bearer sk-live-0123456789"], text), text);
    }

    #[test]
    fn a_secret_that_was_cut_off_leaves_less_than_half_of_it() {
        let secret = "sk-live-0123456789abcdefghij";
        let forms = [secret.to_owned(), STANDARD_NO_PAD.encode(format!("x{secret}"))];
        for form in &forms {
            for end in form.len() / 2 + 4..=form.len() {
                let cut = &form[..end];
                assert_eq!(clean(&[secret], &format!("said '{cut}' and")), "said '[redacted]' and", "{cut}");
                assert_eq!(clean(&[secret], &format!("said {cut}")), "said [redacted]", "{cut}");
            }
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        let text = r#"{"a":"50% of \"ü\" &amp; 1+1 \u0041","b":"dGhpcyBpcyBmaW5l","c":"%zz &bad; \q"}"#;
        assert_eq!(clean(&["hunter2", "top secret"], text), text);
        assert!(matches!(Redaction::default().clean(text), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_and_nothing_of_a_secret_stays(
            secret in "[ -~é€😀]{4,40}", before in "\\PC{0,20}", after in "\\PC{0,20}"
        ) {
            let text = format!("{before}{secret}{after}");
            let clean = clean(&[&secret], &text);
            prop_assert!(!clean.contains(&secret) || REDACTED.contains(&secret), "{clean}");
        }

        #[test]
        fn any_escapes_are_read_without_a_panic(text in r"(%|&|;|#|x|\\|u|[0-9a-f]|é|secret){0,60}") {
            let _ = clean(&["secret", "é0 f"], &text);
        }
    }
}
