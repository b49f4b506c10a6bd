//! Where things lie in JSON text: a shallow scanner and a splicer.
//!
//! The text is validated by serde_json before it comes here; the scanner only finds spans, and gives up
//! with [`Malformed`] rather than guess when the text is not what it expects. Keys are compared decoded
//! (`"n\u0061me"` is `name`), and a key that occurs twice is refused: two readers could differ on which counts.

use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting accepted.
pub const MAX_DEPTH: usize = 512;

/// The text is not the JSON that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JSON is malformed")]
pub struct Malformed;

/// Where a value lies in its buffer.
pub type Span = Range<usize>;

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key with its quotes.
    pub key: Span,
    /// The value.
    pub value: Span,
}

/// The members of one object, without descending into them.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    text: &'a [u8],
    span: Span,
    members: Vec<Member>,
}

impl<'a> Object<'a> {
    /// Scans the object that lies at `span` of `text`.
    ///
    /// # Errors
    /// When there is no well-formed object.
    pub fn scan(text: &'a [u8], span: Span) -> Result<Self, Malformed> {
        let body = text.get(..span.end).ok_or(Malformed)?;
        let mut at = skip_space(body, span.start);
        let start = at;
        expect(body, &mut at, b'{')?;
        let mut members = Vec::with_capacity(6);
        at = skip_space(body, at);
        if body.get(at) == Some(&b'}') {
            return Ok(Self { text, span: start..at + 1, members });
        }
        loop {
            let key_start = skip_space(body, at);
            let key_end = skip_string(body, key_start)?;
            at = skip_space(body, key_end);
            expect(body, &mut at, b':')?;
            let value_start = skip_space(body, at);
            let value_end = skip_value(body, value_start)?;
            members.push(Member { key: key_start..key_end, value: value_start..value_end });
            at = skip_space(body, value_end);
            match body.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => return Ok(Self { text, span: start..at + 1, members }),
                _ => return Err(Malformed),
            }
        }
    }

    /// The value of `key`; `None` when absent.
    ///
    /// # Errors
    /// When the key occurs more than once.
    pub fn get(&self, key: &str) -> Result<Option<Span>, Malformed> {
        Ok(self.member(key)?.map(|member| member.value.clone()))
    }

    /// The member named `key`; `None` when absent.
    ///
    /// # Errors
    /// When the key occurs more than once.
    pub fn member(&self, key: &str) -> Result<Option<&Member>, Malformed> {
        let mut found = self.members.iter().filter(|member| self.key_is(member, key));
        let first = found.next();
        if found.next().is_some() { Err(Malformed) } else { Ok(first) }
    }

    /// Every member.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The object's own span.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    fn key_is(&self, member: &Member, key: &str) -> bool {
        let raw = &self.text[member.key.start + 1..member.key.end - 1];
        if raw.contains(&b'\\') {
            string(&self.text[member.key.clone()]).is_some_and(|text| text == key)
        } else {
            raw == key.as_bytes()
        }
    }
}

/// The text of a JSON string; `None` when `raw` is none.
#[must_use]
pub fn string(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(raw).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// `text` as a JSON string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}

/// The elements of the array that is `text`, each as its raw text.
///
/// # Errors
/// When `text` is not an array.
pub fn elements(text: &[u8]) -> Result<Vec<Span>, Malformed> {
    let mut at = skip_space(text, 0);
    expect(text, &mut at, b'[')?;
    let mut out = Vec::new();
    at = skip_space(text, at);
    if text.get(at) == Some(&b']') {
        return Ok(out);
    }
    loop {
        let start = skip_space(text, at);
        let end = skip_value(text, start)?;
        out.push(start..end);
        at = skip_space(text, end);
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return Ok(out),
            _ => return Err(Malformed),
        }
    }
}

/// Whether `text` nests no deeper than [`MAX_DEPTH`].
#[must_use]
pub fn depth_is_bounded(text: &[u8]) -> bool {
    // Text with fewer opening brackets than the bound cannot exceed it; most messages end here.
    if text.len() < MAX_DEPTH {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Replacements in one buffer, applied together.
#[derive(Debug, Default)]
pub struct Edits(Vec<(Span, String)>);

impl Edits {
    /// No edits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what lies at `span`.
    pub fn replace(&mut self, span: Span, text: impl Into<String>) {
        self.0.push((span, text.into()));
    }

    /// Puts `text` before position `at`.
    pub fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.0.push((at..at, text.into()));
    }

    /// Adds `"key":value` as the first member of `object`, or replaces the value the key has.
    ///
    /// # Errors
    /// When the object has the key more than once.
    pub fn set(&mut self, object: &Object<'_>, key: &str, value: &str) -> Result<(), Malformed> {
        if let Some(span) = object.get(key)? {
            self.replace(span, value);
            return Ok(());
        }
        let comma = if object.members.is_empty() { "" } else { "," };
        self.insert(object.span.start + 1, format!("{}:{value}{comma}", quote(key)));
        Ok(())
    }

    /// Removes every member whose decoded key `unwanted` accepts.
    pub fn remove_members(&mut self, object: &Object<'_>, unwanted: impl Fn(&str) -> bool) {
        let members = &object.members;
        let doomed = |index: usize| string(&object.text[members[index].key.clone()]).is_some_and(|key| unwanted(&key));
        let mut kept_before = false;
        let mut index = 0;
        while index < members.len() {
            if !doomed(index) {
                kept_before = true;
                index += 1;
                continue;
            }
            let first = index;
            while index < members.len() && doomed(index) {
                index += 1;
            }
            // A run in front takes the comma after it, any other run the comma before it.
            let start = if kept_before { members[first - 1].value.end } else { members[first].key.start };
            let end = match members.get(index) {
                Some(next) if !kept_before => next.key.start,
                _ => members[index - 1].value.end,
            };
            self.replace(start..end, "");
        }
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edited text. Edits at one place keep the order in which they were made.
    #[must_use]
    pub fn apply(mut self, text: &Bytes) -> Bytes {
        if self.0.is_empty() {
            return text.clone();
        }
        self.0.sort_by_key(|(span, _)| (span.start, span.end));
        let grown: usize = self.0.iter().map(|(_, new)| new.len()).sum();
        let mut out = BytesMut::with_capacity(text.len() + grown);
        let mut at = 0;
        for (span, new) in self.0 {
            out.put_slice(&text[at..span.start]);
            out.put_slice(new.as_bytes());
            at = span.end;
        }
        out.put_slice(&text[at..]);
        out.freeze()
    }
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn expect(text: &[u8], at: &mut usize, byte: u8) -> Result<(), Malformed> {
    if text.get(*at) != Some(&byte) {
        return Err(Malformed);
    }
    *at += 1;
    Ok(())
}

fn skip_string(text: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    expect(text, &mut at, b'"')?;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return Err(Malformed),
        }
    }
}

fn skip_value(text: &[u8], start: usize) -> Result<usize, Malformed> {
    match text.get(start) {
        Some(b'"') => skip_string(text, start),
        Some(b'{' | b'[') => skip_nested(text, start),
        Some(_) => {
            let mut at = start;
            while text.get(at).is_some_and(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
                at += 1;
            }
            if at == start { Err(Malformed) } else { Ok(at) }
        }
        None => Err(Malformed),
    }
}

fn skip_nested(text: &[u8], start: usize) -> Result<usize, Malformed> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match text.get(at) {
            Some(b'"') => at = skip_string(text, at)?,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            Some(_) => at += 1,
            None => return Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(text: &str, make: impl Fn(&Object<'_>, &mut Edits)) -> String {
        let object = Object::scan(text.as_bytes(), 0..text.len()).unwrap();
        let mut edits = Edits::new();
        make(&object, &mut edits);
        String::from_utf8(edits.apply(&Bytes::copy_from_slice(text.as_bytes())).to_vec()).unwrap()
    }

    #[test]
    fn keys_are_compared_decoded_and_must_be_unique() {
        let text = r#"{"n\u0061me":1,"a":2,"a":3}"#;
        let object = Object::scan(text.as_bytes(), 0..text.len()).unwrap();
        assert_eq!(object.get("name").unwrap(), Some(13..14));
        assert_eq!(object.get("a"), Err(Malformed));
    }

    #[test]
    fn members_are_removed_with_exactly_one_comma() {
        for (text, want) in [
            (r#"{"x":1}"#, "{}"),
            (r#"{"x":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2,"x":1}"#, r#"{"a":2}"#),
            (r#"{"x":1,"x2":[1,2],"a":2,"x3":{}}"#, r#"{"a":2}"#),
            (r#"{"a":1,"x":1,"b":2}"#, r#"{"a":1,"b":2}"#),
        ] {
            assert_eq!(edit(text, |object, edits| edits.remove_members(object, |key| key.starts_with('x'))), want);
        }
    }

    #[test]
    fn a_member_is_set_in_place_or_put_first() {
        assert_eq!(edit(r#"{ "a":1 }"#, |o, e| e.set(o, "a", "22").unwrap()), r#"{ "a":22 }"#);
        assert_eq!(edit("{}", |o, e| e.set(o, "b", "1").unwrap()), r#"{"b":1}"#);
        assert_eq!(edit(r#"{"a":1}"#, |o, e| e.set(o, "b", "1").unwrap()), r#"{"b":1,"a":1}"#);
    }

    #[test]
    fn nesting_beyond_the_bound_is_noticed() {
        assert!(depth_is_bounded("[".repeat(MAX_DEPTH).as_bytes()));
        assert!(!depth_is_bounded("[".repeat(MAX_DEPTH + 1).as_bytes()));
        let text = format!("\"{}\"", "[\\\"".repeat(2 * MAX_DEPTH));
        assert!(depth_is_bounded(text.as_bytes()));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-z\\\\\" é]{0,6}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scanner_finds_what_serde_finds(map in prop::collection::btree_map("[a-z\\\\\" é]{0,6}", any_json(), 0..6), pretty: bool) {
            let value = serde_json::Value::Object(map.clone().into_iter().collect());
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let object = Object::scan(text.as_bytes(), 0..text.len()).unwrap();
            prop_assert_eq!(object.members().len(), map.len());
            for (key, value) in &map {
                let span = object.get(key).unwrap().unwrap();
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&text[span]).unwrap(), value);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Object::scan(&bytes, 0..bytes.len());
            let _ = elements(&bytes);
            let _ = string(&bytes);
            let _ = depth_is_bounded(&bytes);
        }

        #[test]
        fn json_like_bytes_never_panic(text in "[{}\\[\\]\",:a\\\\ 1]{0,60}") {
            if let Ok(object) = Object::scan(text.as_bytes(), 0..text.len()) {
                let mut edits = Edits::new();
                edits.remove_members(&object, |key| key.contains('a'));
                let _ = edits.apply(&Bytes::from(text.clone()));
            }
            let _ = elements(text.as_bytes());
        }
    }
}
