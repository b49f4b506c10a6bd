//! Log lines as JSON: one object a line, each key once in an object, and an error with its causes.
//!
//! The formatter of the library loses the causes of an error, and writes a field that is called like one of its own
//! keys (`target`) a second time into the same object, of which readers keep the one or the other.

use std::error::Error;
use std::fmt;

use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// Keys of a line that are not an event's to choose; a field of such a name is called `field.` and its name.
const OWN: [&str; 5] = ["timestamp", "level", "target", "span", "spans"];
/// How many causes of an error are told.
const MOST_CAUSES: usize = 16;

/// See the module.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        let metadata = event.metadata();
        // What comes by way of the `log` facade says there where it is from.
        let target = fields.take_log_target().unwrap_or_else(|| Value::from(metadata.target()));
        let mut line =
            vec![("timestamp".to_owned(), now.into()), ("level".to_owned(), metadata.level().as_str().into())];
        line.append(&mut fields.0);
        line.push(("target".to_owned(), target));
        if let Some(innermost) = ctx.lookup_current() {
            let spans = innermost.scope().from_root().map(|span| of_span::<S, N>(&span)).collect();
            line.push(("span".to_owned(), of_span::<S, N>(&innermost)));
            line.push(("spans".to_owned(), Value::Array(spans)));
        }
        writeln!(writer, "{}", object(&line).map_err(|_| fmt::Error)?)
    }
}

/// A span's name and fields, as they were written down when it was made.
fn of_span<S, N>(span: &SpanRef<'_, S>) -> Value
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let extensions = span.extensions();
    let written = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
    let mut fields = serde_json::from_str::<Map<String, Value>>(written).unwrap_or_default();
    if let Some(own) = fields.remove("name") {
        fields.insert("field.name".into(), own);
    }
    fields.insert("name".into(), span.name().into());
    Value::Object(fields)
}

/// The line in this order.
fn object(line: &[(String, Value)]) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut out);
    let mut object = serializer.serialize_map(Some(line.len()))?;
    for (key, value) in line {
        object.serialize_entry(key, value)?;
    }
    object.end()?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// An event's fields, each key once: the last one counts.
#[derive(Default)]
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        let name = if OWN.contains(&name) { format!("field.{name}") } else { name.to_owned() };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn take_log_target(&mut self) -> Option<Value> {
        let target = self.0.iter().find(|(name, _)| name == "log.target").map(|(_, value)| value.clone())?;
        self.0.retain(|(name, _)| !name.starts_with("log."));
        Some(target)
    }
}

impl Visit for Fields {
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), value.to_string().into());
        let causes =
            std::iter::successors(value.source(), |cause: &&(dyn Error + 'static)| (*cause).source()).take(MOST_CAUSES);
        let causes: Vec<Value> = causes.map(|cause| cause.to_string().into()).collect();
        if !causes.is_empty() {
            self.put(&format!("{}.sources", field.name()), Value::Array(causes));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field.name(), i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field.name(), u64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile.
    fn logged(log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text")
    }

    #[derive(Debug, thiserror::Error)]
    #[error("reading the store")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_keeps_its_causes() {
        let error = Outer(std::io::Error::other("disk is gone"));
        let line = logged(|| tracing::warn!(error = &error as &dyn Error, "it failed"));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["error"], "reading the store");
        assert_eq!(line["error.sources"], serde_json::json!(["disk is gone"]));
        assert_eq!(line["message"], "it failed");
    }

    #[test]
    fn a_key_is_in_an_object_once_and_the_line_begins_with_the_time() {
        let line = logged(|| {
            let span = tracing::info_span!("request", name = "own", request.id = "abc");
            let _entered = span.enter();
            tracing::info!(target = "a tool", level = 7, count = 3_u64, "called");
        });
        assert!(line.starts_with(r#"{"timestamp":""#), "{line}");
        for key in ["timestamp", "level", "target", "field.target", "field.level", "field.name"] {
            let expected = if key == "field.name" { 2 } else { 1 };
            assert_eq!(line.matches(&format!("\"{key}\":")).count(), expected, "{key} in {line}");
        }
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&line["level"], &line["count"]), (&"INFO".into(), &3.into()));
        assert_eq!((&line["span"]["request.id"], &line["span"]["name"]), (&"abc".into(), &"request".into()));
    }
}
