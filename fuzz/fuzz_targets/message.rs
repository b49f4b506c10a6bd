//! What a client or a server sends: the envelope is found where a whole parser finds it, and nothing else changes
//! when a message gets another id.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use toolyard_mcp::{Kind, Message};

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    let text = std::str::from_utf8(data).expect("what is taken for a message is UTF-8");
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        // Half a surrogate pair and 1e999 are within JSON's grammar (RFC 8259), but no string and no f64.
        serde_json::from_str::<&RawValue>(text).expect("what is taken for a message is JSON");
        return;
    };
    assert_eq!(whole["jsonrpc"], "2.0");
    if matches!(message.kind(), Kind::Request | Kind::Notification) {
        assert_eq!(whole["method"], message.method());
    }
    let key = match message.kind() {
        Kind::Request | Kind::Notification => "params",
        Kind::Result => "result",
        Kind::Error => "error",
    };
    let payload = message.payload().map(|raw| serde_json::from_slice::<Value>(&raw).expect("a payload is JSON"));
    assert_eq!(payload.as_ref(), whole.get(key));
    let _ = message.meta();
    let _ = message.progress_token();

    let other = message.with_id("\"another\"");
    let mut expected = whole;
    if message.id().is_some() {
        expected["id"] = "another".into();
    }
    assert_eq!(serde_json::from_slice::<Value>(&other).expect("it is still JSON"), expected);
});
