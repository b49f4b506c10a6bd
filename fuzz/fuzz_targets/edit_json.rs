//! Members of an object are set and removed where they lie: the rest of the object stays as a whole parser reads it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use toolyard_mcp::json::{Edits, Object, depth_is_bounded};

fuzz_target!(|data: &[u8]| {
    // The scanner is only ever given what serde_json accepted, but must not fall over anything else either.
    let scanned = Object::scan(data, 0..data.len());
    let Ok(Value::Object(whole)) = serde_json::from_slice::<Value>(data) else { return };
    if !depth_is_bounded(data) {
        return;
    }
    let object = scanned.expect("an object that serde_json reads is scanned");
    if object.members().len() != whole.len() {
        return; // A key occurs twice; reading it is refused.
    }
    let text = Bytes::copy_from_slice(data);
    for key in whole.keys() {
        let span = object.get(key).expect("it occurs once").expect("it is there");
        assert_eq!(serde_json::from_slice::<Value>(&text[span]).expect("a value is JSON"), whole[key]);
    }

    let mut edits = Edits::new();
    edits.set(&object, "added", "[1.0]").expect("an object takes a member");
    let mut expected = whole.clone();
    expected.insert("added".to_owned(), serde_json::from_str("[1.0]").expect("JSON"));
    assert_eq!(read(&edits.apply(&text)), Value::Object(expected));

    let mut edits = Edits::new();
    let unwanted = |key: &str| key.len() % 2 == 1;
    edits.remove_members(&object, unwanted);
    let mut expected = whole;
    expected.retain(|key, _| !unwanted(key));
    assert_eq!(read(&edits.apply(&text)), Value::Object(expected));
});

fn read(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}
