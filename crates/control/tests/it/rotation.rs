//! A credential that gets another secret: who still runs with the older one.

use serde_json::{Value, json};

use crate::agent::FakeAgent;
use crate::harness::{TestControl, both_engines};
use crate::servers::EVERYTHING;

const CREDENTIAL: &str = "/api/v1/credentials/sec";
const SERVER: &str = "/api/v1/servers/s";

async fn set(t: &TestControl, secret: &str) -> Value {
    t.put(CREDENTIAL, json!({ "secret": secret })).await.expect(200).body
}

/// A server that gets the credential, ready.
async fn deploy(t: &TestControl, replicas: u32) -> Value {
    set(t, "first").await;
    let body = json!({ "name": "s", "entry": EVERYTHING, "credentials": { "TOKEN": "sec" }, "replicas": replicas });
    t.post("/api/v1/servers", body).await.expect(201);
    t.wait_rollout("s", "done").await
}

/// Which servers run with an older secret, and of which that is not known.
fn told(credential: &Value) -> (Value, Value) {
    (credential["outdated_in"].clone(), credential["unknown_in"].clone())
}

/// How many instances of a server run with an older secret of the credential.
fn outdated(server: &Value) -> usize {
    let instances = server["instances"].as_array().unwrap();
    instances.iter().filter(|instance| instance["outdated_secrets"] == json!(["sec"])).count()
}

/// Waits until an agent has the newest secret, for the next start.
async fn delivered(t: &TestControl, agent: &FakeAgent, version: u32) {
    t.wait("/api/v1/version", |_, _| agent.has_secrets("s", version)).await;
}

both_engines! {
    async fn a_credential_is_in_use_while_a_rollout_may_go_back_to_a_revision_that_has_it(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        deploy(&t, 1).await;
        t.patch(SERVER, json!({ "unset_environment": ["TOKEN"] })).await.expect(202);
        t.wait(SERVER, |_, body| body["rollout"]["reason"] == "observing").await;
        assert_eq!(t.get(CREDENTIAL).await.expect(200).body["used_by"], json!(["s"]));
        t.delete(CREDENTIAL).await.expect(409);
        t.wait_rollout("s", "done").await;
        t.delete(CREDENTIAL).await.expect(204);
    }

    async fn a_server_says_that_it_runs_with_an_older_secret_until_it_was_restarted(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        let ready = deploy(&t, 1).await;
        assert_eq!(outdated(&ready), 0);
        let unused = t.put("/api/v1/credentials/unused", json!({ "secret": "x" })).await.expect(200).body;
        assert_eq!(told(&unused), (json!([]), json!([])));
        assert_eq!(told(&t.get(CREDENTIAL).await.expect(200).body), (json!([]), json!([])));

        let second = set(&t, "second").await;
        assert_eq!((&second["version"], told(&second)), (&json!(2), (json!(["s"]), json!([]))));
        let all = t.get("/api/v1/credentials").await.expect(200).body;
        let of = |name: &str| all["items"].as_array().unwrap().iter().find(|it| it["name"] == name).map(told).unwrap();
        assert_eq!(of("sec"), (json!(["s"]), json!([])));
        assert_eq!(of("unused"), (json!([]), json!([])));
        let listed = t.get("/api/v1/servers").await.expect(200).body;
        assert_eq!(outdated(&listed["items"][0]), 1);
        // That the agent has it for the next start changes nothing for the process that runs.
        delivered(&t, &agent, 2).await;
        let shown = t.get(SERVER).await.expect(200).body;
        assert_eq!((outdated(&shown), &shown["phase"]), (1, &json!("ready")), "a note, not a phase");

        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        let done = |_: u16, body: &Value| {
            body["rollout"]["state"] == "done" && body["rollout"]["id"] != ready["rollout"]["id"]
        };
        t.wait(SERVER, done).await;
        t.drained();
        t.wait(CREDENTIAL, |_, body| told(body) == (json!([]), json!([]))).await;
        t.wait(SERVER, |_, body| body["instances"].as_array().unwrap().len() == 1 && outdated(body) == 0).await;
    }

    async fn replicas_that_ended_by_themselves_have_the_new_secret_and_the_others_the_older_one(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        deploy(&t, 2).await;
        set(&t, "second").await;
        delivered(&t, &agent, 2).await;
        agent.crash("s", 1);
        t.wait(SERVER, |_, body| outdated(body) == 1).await;
        assert_eq!(told(&t.get(CREDENTIAL).await.expect(200).body), (json!(["s"]), json!([])));
        agent.crash("s", 2);
        t.wait(CREDENTIAL, |_, body| told(body) == (json!([]), json!([]))).await;
        assert_eq!(outdated(&t.get(SERVER).await.expect(200).body), 0);
    }

    async fn of_what_an_agent_of_an_earlier_version_started_nothing_is_claimed(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        agent.tell_no_secrets();
        deploy(&t, 1).await;
        let second = set(&t, "second").await;
        assert_eq!(told(&second), (json!([]), json!(["s"])));
        assert_eq!(outdated(&t.get(SERVER).await.expect(200).body), 0);
        // What is made after the secret was set has it, whoever starts it.
        t.clock.step_ms(1_000);
        let before = t.get(SERVER).await.expect(200).body;
        t.post("/api/v1/servers/s/restart", json!({})).await.expect(202);
        t.wait(SERVER, |_, body| {
            body["rollout"]["state"] == "done" && body["rollout"]["id"] != before["rollout"]["id"]
        })
        .await;
        t.drained();
        t.wait(CREDENTIAL, |_, body| told(body) == (json!([]), json!([]))).await;
    }
}
