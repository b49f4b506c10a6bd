//! Peers of another version: what they wrote, as recorded, is understood; and what a newer one may add does no harm.

use serde_json::Value;
use toolyard_types::agent::{SyncRequest, SyncResponse};
use toolyard_types::spec::Egress;
use toolyard_types::state::{Phase, Reason};

const REQUEST: &str = include_str!("recorded/sync-request-0.1.0.json");
const RESPONSE: &str = include_str!("recorded/sync-response-0.1.0.json");

#[test]
fn what_the_first_agent_observed_is_understood() {
    let request: SyncRequest = serde_json::from_str(REQUEST).unwrap();
    let [ready, failed] = &request.observed.instances[..] else { panic!("two instances") };
    assert_eq!((ready.status.phase, ready.mcp.as_ref().unwrap().tools), (Phase::Ready, 13));
    assert_eq!((failed.status.phase, failed.status.reason), (Phase::Failed, Reason::CrashLoop));
    assert!(request.observed.jobs[0].outcome.is_ok() && request.observed.jobs[1].outcome.is_err());
}

#[test]
fn what_the_first_control_plane_desired_is_understood_and_means_the_same() {
    let response: SyncResponse = serde_json::from_str(RESPONSE).unwrap();
    let desired = response.desired.unwrap();
    assert_eq!((desired.generation, desired.instances.len()), (4, 1));
    assert!(desired.instances[0].run && desired.instances[0].spec.egress == Egress::All);
}

/// Every object gets a field, and every reason becomes one, that this version does not know.
fn of_a_newer_peer(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if name == "reason" {
                    *value = "of_a_newer_version".into();
                } else if !matches!(name.as_str(), "runtimes" | "enforcement" | "environment" | "secrets" | "outcome") {
                    of_a_newer_peer(value);
                }
            }
            fields.insert("of_a_newer_version".into(), Value::Bool(true));
        }
        Value::Array(items) => items.iter_mut().for_each(of_a_newer_peer),
        _ => {}
    }
}

#[test]
fn what_a_newer_peer_adds_does_no_harm() {
    let mut request: Value = serde_json::from_str(REQUEST).unwrap();
    of_a_newer_peer(&mut request);
    let request: SyncRequest = serde_json::from_value(request).unwrap();
    assert_eq!(request.observed.instances[1].status.reason, Reason::Internal);
    let mut response: Value = serde_json::from_str(RESPONSE).unwrap();
    of_a_newer_peer(&mut response);
    let response: SyncResponse = serde_json::from_value(response).unwrap();
    assert_eq!(response.desired.unwrap().instances.len(), 1);
}
