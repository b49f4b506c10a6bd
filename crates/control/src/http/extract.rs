//! Extractors of our own: bounded, and every rejection is a problem that says what would be right.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::error::Category;
use toolyard_link::{NoRoom, TooSlow};
use toolyard_types::Code;

use crate::app::expand::NUL;
use crate::{Caller, ControlError};

/// The largest request body.
pub(crate) const LARGEST_BODY: usize = 1024 * 1024;
/// The largest one of somebody who is not known: to sign in takes a few hundred bytes.
pub(crate) const LARGEST_OF_STRANGERS: usize = 16 * 1024;

/// A JSON body, as request and as answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ControlError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ControlError> {
        check_content_type(request.headers())?;
        parse(&read_body(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = ControlError;

    /// No body at all is `None`.
    async fn from_request(request: Request, _state: &S) -> Result<Option<Self>, ControlError> {
        let checked = check_content_type(request.headers());
        let body = read_body(request).await?;
        if body.is_empty() {
            return Ok(None);
        }
        checked?;
        parse(&body).map(|value| Some(Self(value)))
    }
}

/// Reads a body of at most [`LARGEST_BODY`], or [`LARGEST_OF_STRANGERS`] where nobody was authenticated.
pub(super) async fn read_body(request: Request) -> Result<Bytes, ControlError> {
    let is_known = request.extensions().get::<Caller>().is_some();
    read_at_most(request.into_body(), if is_known { LARGEST_BODY } else { LARGEST_OF_STRANGERS }).await
}

/// Reads a body of at most so many bytes.
pub(super) async fn read_at_most(body: Body, largest: usize) -> Result<Bytes, ControlError> {
    let too_large =
        || ControlError::problem(Code::PayloadTooLarge, format!("the body may have at most {largest} bytes"));
    if body.size_hint().lower() > u64::try_from(largest).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match Limited::new(body, largest).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(match (TooSlow::of(&*error), NoRoom::of(&*error)) {
            (Some(slow), _) => ControlError::problem(Code::RequestTimeout, slow.to_string()),
            (_, Some(no_room)) => no_room.into(),
            (None, None) => ControlError::problem(Code::BadRequest, "the body ended too early"),
        }),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ControlError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(ControlError::problem(Code::UnsupportedMediaType, "send the body with `Content-Type: application/json`"))
}

/// Reads JSON: bad syntax is `invalid_json` with line and column, a wrong type, or a NUL in a text, `validation_failed` with
/// the path of the field.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    match field_with_nul(body) {
        Some(field) => Err(ControlError::field(shown(&field), NUL)),
        None => parse_with_nul(body),
    }
}

/// As [`parse`], where texts of others may hold a NUL: whoever asks takes it out.
pub(super) fn parse_with_nul<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        match error.inner().classify() {
            // A number where a word belongs is called bad syntax too; the body as a whole tells them apart.
            Category::Data => wrong_field(&path, &error.inner().to_string()),
            _ if serde_json::from_slice::<IgnoredAny>(body).is_ok() => wrong_field(&path, "is of the wrong type"),
            _ => bad_syntax(error.inner()),
        }
    })?;
    reader.end().map_err(|error| bad_syntax(&error))?;
    Ok(value)
}

/// Which field of a JSON body holds a NUL: text to JSON and SQLite, none to Postgres.
fn field_with_nul(body: &[u8]) -> Option<String> {
    next_nul(body, 0)?;
    // What is not JSON is refused as that.
    let value: Value = serde_json::from_slice(body).ok()?;
    let path = path_to_nul(&value).unwrap_or_default();
    match path.strip_prefix('.').unwrap_or(path.as_str()) {
        "" => Some("body".to_owned()),
        path => Some(path.to_owned()),
    }
}

fn path_to_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(number, item)| Some(format!("[{number}]{}", path_to_nul(item)?)))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, item)| match name.contains('\0') {
            true => Some(String::new()),
            false => Some(format!(".{name}{}", path_to_nul(item)?)),
        }),
        _ => None,
    }
}

/// A JSON body with U+FFFD in the place of every NUL.
pub(super) fn without_nul(body: Bytes) -> Bytes {
    let Some(first) = next_nul(&body, 0) else { return body };
    let mut json = Vec::from(body);
    let mut next = Some(first);
    while let Some(at) = next {
        json[at + 2..at + 6].copy_from_slice(b"fffd");
        next = next_nul(&json, at + 6);
    }
    json.into()
}

/// Where the next NUL of a JSON text is, which is only ever written `\u0000`. `from` is outside of any escape.
fn next_nul(json: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + json.get(from..)?.iter().position(|byte| *byte == b'\\')?;
        if json.get(at..)?.starts_with(br"\u0000") {
            return Some(at);
        }
        // The second may be a backslash too, which then begins nothing.
        from = at + 2;
    }
}

fn wrong_field(path: &str, text: &str) -> ControlError {
    // The position says less than the path, and a `flatten` makes it wrong.
    let message = text.split_once(" at line ").map_or(text, |(message, _)| message);
    let field = if path.is_empty() || path == "." { "body" } else { path };
    ControlError::field(shown(field), shown(&without_value(message)))
}

/// A parser's message without the value that is of the wrong type, which may be a secret in a wrong place.
fn without_value(message: &str) -> Cow<'_, str> {
    if !message.starts_with("invalid type: ") && !message.starts_with("invalid value: ") {
        return message.into();
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.into() };
    let kind = found.split(['`', '"']).next().unwrap_or_default().trim_end();
    format!("{kind}, expected {expected}").into()
}

fn bad_syntax(error: &serde_json::Error) -> ControlError {
    let at = format!("line {}, column {}", error.line(), error.column());
    ControlError::problem(Code::InvalidJson, format!("the body is not valid JSON at {at}"))
}

/// Query parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ControlError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ControlError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = chain(&rejection);
                let (field, message) = text.split_once(": ").unwrap_or(("query", &text));
                Err(ControlError::field(field, shown(message)))
            }
        }
    }
}

/// Path parameters: one, or a tuple.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ControlError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ControlError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let message = text.strip_prefix("Invalid URL: ").unwrap_or(&text);
                Err(ControlError::field("path", shown(message)))
            }
        }
    }
}

/// The path's parameters by name, decoded.
pub(super) async fn path_params(parts: &mut Parts) -> BTreeMap<String, String> {
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        Err(_) => BTreeMap::new(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ControlError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ControlError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            ControlError::internal("finding the caller")("the route is public, so nobody was authenticated")
        })
    }
}

/// The innermost message of an error chain, which names the field.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    text
}

/// A parser's message with hostile input in it, made safe to show and bounded.
fn shown(message: &str) -> String {
    let mut text = String::new();
    for c in message.chars().take(300) {
        if toolyard_types::name::is_hidden(c) { text.extend(c.escape_unicode()) } else { text.push(c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_replaced_and_a_text_about_one_is_not() {
        let replaced = |json: &'static str| String::from_utf8(without_nul(json.into()).to_vec()).unwrap();
        let given = r#"{"a\u0000": "\u0000x\\u0000\\\u0000\"\u0000", "b": ["\u00001"]}"#;
        let wanted = r#"{"a\ufffd": "\ufffdx\\u0000\\\ufffd\"\ufffd", "b": ["\ufffd1"]}"#;
        assert_eq!(replaced(given), wanted);
        for cut in ["", "\\", r#""\u000"#, r#"{"a": "x"}"#] {
            assert_eq!(replaced(cut), cut);
        }
    }

    #[test]
    fn a_body_with_a_nul_is_refused_with_the_field_that_holds_it() {
        for (json, field) in [
            (r#"{"a": {"b": ["x", "y\u0000"]}}"#, "a.b[1]"),
            (r#"{"a": {"\u0000": 1}}"#, "a"),
            (r#"["\u0000"]"#, "[0]"),
            (r#""\u0000""#, "body"),
        ] {
            assert_eq!(field_with_nul(json.as_bytes()).as_deref(), Some(field), "{json}");
        }
        for json in [r#"{"a": "\\u0000"}"#, r#"{"a": "\u0000"#, "{}"] {
            assert_eq!(field_with_nul(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_told() {
        for (message, told) in [
            ("invalid type: integer `7`, expected a string", "invalid type: integer, expected a string"),
            (r#"invalid type: string "a, expected b", expected a map"#, "invalid type: string, expected a map"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("missing field `name`", "missing field `name`"),
        ] {
            assert_eq!(without_value(message), told);
        }
    }
}
