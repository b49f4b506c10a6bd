//! The JSON-RPC envelope, found in the bytes rather than parsed out of them.

use crate::json::{self, Edits, Malformed, Object, Span};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The longest id accepted, in bytes of JSON text.
pub const MAX_ID_BYTES: usize = 512;
/// The longest method accepted, in bytes.
pub const MAX_METHOD_BYTES: usize = 256;

/// Why bytes are not one JSON-RPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON at all.
    #[error("the message is not valid JSON")]
    Json,
    /// JSON, but not a JSON-RPC 2.0 message; the text says which rule it breaks.
    #[error("the message is not JSON-RPC 2.0: {0}")]
    Envelope(&'static str),
    /// Nested deeper than [`json::MAX_DEPTH`].
    #[error("the message is nested too deeply")]
    TooDeep,
}

impl From<Malformed> for ParseError {
    fn from(_: Malformed) -> Self {
        Self::Envelope("a key occurs twice or a part has the wrong type")
    }
}

/// A JSON-RPC id as raw JSON text, so that `1`, `1.0` and `"1"` stay apart and come back exactly.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Bytes);

impl Id {
    /// The id `number`.
    #[must_use]
    pub fn number(number: u64) -> Self {
        Self(Bytes::from(number.to_string()))
    }

    /// The raw JSON text.
    #[must_use]
    pub fn raw(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is cut from text that was checked to be UTF-8")
    }

    /// The number in it, read leniently: some servers answer `1` with `1.0` or `"1"`.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        lenient_number(self.raw())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw())
    }
}

/// The number in raw JSON text that is `1`, `1.0` or `"1"`.
#[must_use]
pub fn lenient_number(raw: &str) -> Option<u64> {
    let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw);
    let whole = text.split_once('.').map_or(
        text,
        |(whole, zeros)| {
            if zeros.bytes().all(|byte| byte == b'0') { whole } else { "" }
        },
    );
    whole.parse().ok()
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Notification,
    /// Answers with a result.
    Result,
    /// Answers with an error; it may have no id.
    Error,
}

/// One JSON-RPC message: its bytes, and where the parts of its envelope lie.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Bytes,
    kind: Kind,
    id: Option<Span>,
    method: Option<Span>,
    decoded_method: Option<String>,
    /// `params`, `result` or `error`, whichever the kind has.
    payload: Option<Span>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps `null` apart from absent, which `Option` alone would not.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Message {
    /// Finds the envelope in `bytes`, which must be exactly one JSON-RPC 2.0 message.
    ///
    /// # Errors
    /// When it is not; see [`ParseError`].
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        if !json::depth_is_bounded(&bytes) {
            return Err(ParseError::TooDeep);
        }
        // serde_json looks at the encoding of what it keeps; members that nobody asks for must be UTF-8 as well.
        let text = std::str::from_utf8(&bytes).map_err(|_| ParseError::Json)?;
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => ParseError::Envelope("a key occurs twice, or it is not an object"),
            _ => ParseError::Json,
        })?;
        let span = |raw: &RawValue| {
            let start = raw.get().as_ptr().addr() - bytes.as_ptr().addr();
            start..start + raw.get().len()
        };
        if wire.jsonrpc.and_then(|raw| json::string(raw.get().as_bytes())).as_deref() != Some("2.0") {
            return Err(ParseError::Envelope("`jsonrpc` must be \"2.0\""));
        }
        let id = wire.id.filter(|raw| raw.get() != "null");
        if id.is_some_and(|raw| !is_id(raw.get())) {
            return Err(ParseError::Envelope("`id` must be a string or a number of bounded length"));
        }
        let error = wire.error.filter(|raw| raw.get() != "null");
        let (kind, payload) = match (wire.method, error, wire.result) {
            (Some(_), _, _) if wire.id.is_some() && id.is_none() => {
                return Err(ParseError::Envelope("`id` must not be null"));
            }
            (Some(_), _, _) if id.is_some() => (Kind::Request, wire.params),
            (Some(_), _, _) => (Kind::Notification, wire.params),
            (None, Some(error), _) => (Kind::Error, Some(error)),
            (None, None, Some(result)) if id.is_some() => (Kind::Result, Some(result)),
            _ => return Err(ParseError::Envelope("it has neither `method` nor `id` with `result` or `error`")),
        };
        let (method, decoded_method) = match wire.method {
            Some(raw) => read_method(raw, span(raw))?,
            None => (None, None),
        };
        if matches!(kind, Kind::Request | Kind::Notification) && payload.is_some_and(|raw| !is_structured(raw.get())) {
            return Err(ParseError::Envelope("`params` must be an object"));
        }
        let (id, payload) = (id.map(span), payload.map(span));
        Ok(Self { kind, id, method, decoded_method, payload, bytes })
    }

    /// The message's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message's bytes, without the message.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The id, unless it is a notification or an error without one.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        self.id.clone().map(|span| Id(self.bytes.slice(span)))
    }

    /// The id as raw JSON text.
    #[must_use]
    pub fn raw_id(&self) -> Option<&str> {
        self.id.clone().map(|span| self.text(span))
    }

    /// The method; empty for answers.
    #[must_use]
    pub fn method(&self) -> &str {
        match (&self.decoded_method, &self.method) {
            (Some(text), _) => text,
            (None, Some(span)) => self.text(span.clone()),
            (None, None) => "",
        }
    }

    /// Where `params`, `result` or `error` lies, whichever the message has.
    #[must_use]
    pub fn payload_span(&self) -> Option<Span> {
        self.payload.clone()
    }

    /// The raw JSON of `params`, `result` or `error`, whichever the message has.
    #[must_use]
    pub fn payload(&self) -> Option<Bytes> {
        self.payload.clone().map(|span| self.bytes.slice(span))
    }

    /// The members of `params`, `result` or `error`; `None` when it has none or it is no object.
    #[must_use]
    pub fn payload_object(&self) -> Option<Object<'_>> {
        self.payload.clone().and_then(|span| Object::scan(&self.bytes, span).ok())
    }

    /// The members of `_meta` in the payload.
    ///
    /// # Errors
    /// When `_meta` occurs twice or is no object.
    pub fn meta(&self) -> Result<Option<Object<'_>>, Malformed> {
        let Some(payload) = self.payload_object() else { return Ok(None) };
        payload.get("_meta")?.map(|span| Object::scan(&self.bytes, span)).transpose()
    }

    /// The text that lies at `span`.
    #[must_use]
    pub fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.bytes[span]).expect("`parse` checked the message to be UTF-8")
    }

    /// The string member `key` of the payload, decoded.
    ///
    /// # Errors
    /// When it occurs twice or is no string.
    pub fn payload_string(&self, key: &str) -> Result<Option<Cow<'_, str>>, Malformed> {
        let Some(payload) = self.payload_object() else { return Ok(None) };
        payload.get(key)?.map(|span| json::string(&self.bytes[span]).ok_or(Malformed)).transpose()
    }

    /// The progress token a request asks for or a progress notification carries, as raw JSON text.
    ///
    /// # Errors
    /// When it occurs twice.
    pub fn progress_token(&self) -> Result<Option<Span>, Malformed> {
        match self.kind {
            Kind::Request => self.meta()?.map_or(Ok(None), |meta| meta.get("progressToken")),
            Kind::Notification => self.payload_object().map_or(Ok(None), |params| params.get("progressToken")),
            Kind::Result | Kind::Error => Ok(None),
        }
    }

    /// The bytes with another id.
    #[must_use]
    pub fn with_id(&self, id: &str) -> Bytes {
        let mut edits = Edits::new();
        self.edit_id(&mut edits, id);
        edits.apply(&self.bytes)
    }

    /// Records the replacement of the id; nothing when there is none.
    pub fn edit_id(&self, edits: &mut Edits, id: &str) {
        if let Some(span) = self.id.clone()
            && &self.bytes[span.clone()] != id.as_bytes()
        {
            edits.replace(span, id);
        }
    }
}

fn is_id(raw: &str) -> bool {
    raw.len() <= MAX_ID_BYTES && raw.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn is_structured(raw: &str) -> bool {
    raw.starts_with('{')
}

fn read_method(raw: &RawValue, span: Span) -> Result<(Option<Span>, Option<String>), ParseError> {
    const WRONG: ParseError = ParseError::Envelope("`method` must be a string of bounded length");
    if raw.get().len() > MAX_METHOD_BYTES {
        return Err(WRONG);
    }
    match json::string(raw.get().as_bytes()).ok_or(WRONG)? {
        Cow::Borrowed(_) => Ok((Some(span.start + 1..span.end - 1), None)),
        Cow::Owned(text) => Ok((None, Some(text))),
    }
}

/// A JSON-RPC request.
#[must_use]
pub fn request(id: &str, method: &str, params: Option<&str>) -> Bytes {
    let method = json::quote(method);
    Bytes::from(match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}}}"#),
    })
}

/// A JSON-RPC notification.
#[must_use]
pub fn notification(method: &str, params: Option<&str>) -> Bytes {
    let method = json::quote(method);
    Bytes::from(match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","method":{method},"params":{params}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","method":{method}}}"#),
    })
}

/// Tells a server that the request `id`, raw JSON, is given up, and why.
#[must_use]
pub fn cancelled(id: impl std::fmt::Display, reason: &str) -> Bytes {
    let params = format!(r#"{{"requestId":{id},"reason":{}}}"#, json::quote(reason));
    notification("notifications/cancelled", Some(&params))
}

/// A JSON-RPC response with raw `result`.
#[must_use]
pub fn result(id: &str, result: &str) -> Bytes {
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// A JSON-RPC error response; `id` and `data` are raw JSON, `message` is text.
#[must_use]
pub fn error(id: Option<&str>, code: i64, message: &str, data: Option<&str>) -> Bytes {
    let (id, message) = (id.unwrap_or("null"), json::quote(message));
    Bytes::from(match data {
        Some(data) => {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message},"data":{data}}}}}"#)
        }
        None => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Message, ParseError> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_id_survives_as_it_was_written() {
        for raw in ["1", "1.0", "\"1\"", "-7", "1e2", "\"\\u0061\"", "12345678901234567890123"] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"ping","id" : {raw} }}"#);
            let message = parse(&text).unwrap();
            assert_eq!(message.raw_id(), Some(raw));
            let renamed = Message::parse(message.with_id("77")).unwrap();
            assert_eq!(renamed.raw_id(), Some("77"));
            assert_eq!(renamed.with_id(raw), text.as_bytes());
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        for (text, kind) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, Kind::Request),
            (r#"{"jsonrpc":"2.0","method":"a","params":{}}"#, Kind::Notification),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Result),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Result),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""},"result":null}"#, Kind::Error),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, Kind::Result),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, Kind::Error),
        ] {
            assert_eq!(parse(text).unwrap().kind(), kind, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_message_is_refused_with_the_reason() {
        for text in ["", "{", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"} x", "\u{feff}{}"] {
            assert_eq!(parse(text).unwrap_err(), ParseError::Json, "{text}");
        }
        for text in [
            "[]",
            "1",
            "{}",
            r#"{"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
        ] {
            assert!(matches!(parse(text).unwrap_err(), ParseError::Envelope(_)), "{text}");
        }
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"a":{}1{}}}}}"#,
            "[".repeat(600),
            "]".repeat(600)
        );
        assert_eq!(parse(&deep).unwrap_err(), ParseError::TooDeep);
    }

    #[test]
    fn an_escaped_method_is_the_same_method() {
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call"}"#).unwrap().method(), "tools/call");
    }

    #[test]
    fn numbers_in_ids_are_read_leniently_and_only_whole_ones() {
        for (raw, number) in
            [("5", Some(5)), ("5.0", Some(5)), ("\"5\"", Some(5)), ("5.5", None), ("\"a\"", None), ("-5", None)]
        {
            assert_eq!(lenient_number(raw), number, "{raw}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_even_in_members_that_nobody_reads() {
        let wire = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"other\":\"\x9d\"}";
        assert!(matches!(Message::parse(Bytes::from_static(wire)), Err(ParseError::Json)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_parsed_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::parse(Bytes::from(bytes));
        }

        #[test]
        fn broken_messages_never_panic(at in 0_usize..120, byte: u8) {
            let mut text = br#"{"jsonrpc":"2.0","id":"a\u0062","method":"tools/call","params":{"name":"x","_meta":{"progressToken":1.0},"arguments":{"n":[1,2]}}}"#.to_vec();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(message) = Message::parse(Bytes::from(text.clone())) {
                let _ = (message.progress_token(), message.payload_string("name").map(|_| ()), message.meta().map(|_| ()));
                let _ = message.with_id("1");
            }
            text.truncate(at);
            let _ = Message::parse(Bytes::from(text));
        }

        #[test]
        fn changing_the_id_and_back_keeps_every_byte(space in "[ \n\t]{0,3}", extra in "[a-z]{1,5}", digits in "[1-9][0-9]{39}", text in "\\PC{0,20}") {
            let text = serde_json::to_string(&text).unwrap();
            let wire = format!("{{{space}\"x{extra}\":{digits},{space}\"result\":{{\"b\":1.0,\"a\":{text},\"n\":{digits}}}, \"id\":{space}9,\"jsonrpc\":\"2.0\"}}");
            let message = parse(&wire).unwrap();
            let other = Message::parse(message.with_id("\"long id\"")).unwrap();
            prop_assert_eq!(other.with_id("9"), wire.as_bytes());
            prop_assert_eq!(message.payload().unwrap(), other.payload().unwrap());
        }
    }
}
