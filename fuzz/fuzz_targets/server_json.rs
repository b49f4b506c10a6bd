//! A catalog entry as somebody else wrote it: what is read can be written and read again without a difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolyard_types::server_json::ServerJson;

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = serde_json::from_slice::<ServerJson>(data) else { return };
    let written = serde_json::to_value(&entry).expect("an entry is JSON");
    let again: ServerJson = serde_json::from_value(written.clone()).expect("what we wrote can be read");
    assert_eq!(serde_json::to_value(&again).expect("an entry is JSON"), written);
});
