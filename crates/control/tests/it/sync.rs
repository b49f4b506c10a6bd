//! The agents' wire: who may speak, and what is believed.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use toolyard_control::{AgentIdentity, Control};
use toolyard_link::tls::{Acceptor, AgentKey, PeerCertificate, PeerIdentity};
use toolyard_link::{DialOptions, Dialler, LINK_PATH, Link, LinkKind};
use toolyard_types::agent::{AGENT_RUN, JoinToken};
use toolyard_types::state::Reason;
use toolyard_types::{Clock, Secret, ToolboxId};
use tower::ServiceExt;

use crate::agent::{Behaviour, FakeAgent};
use crate::harness::{TestControl, TestDatabase, both_engines, started_at};
use crate::servers::EVERYTHING;

fn report(generation: u64) -> Value {
    json!({
        "protocol_min": 1, "protocol_max": 1, "agent_version": "0.1.0", "generation": generation,
        "observed": {
            "toolbox": { "engine": "process", "platform": "linux", "runtimes": { "node": "22" }, "enforcement": {} },
            "instances": [], "jobs": [],
        },
    })
}

/// A request of an agent whose connection has this certificate.
async fn ask(t: &TestControl, path: &str, certificate: Option<PeerCertificate>, body: &Value) -> (u16, Value) {
    let mut request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(certificate);
    }
    let response = t.control.agent_router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn sync(t: &TestControl, certificate: PeerCertificate, body: &Value) -> (u16, Value) {
    ask(t, "/dtma/v1/sync", Some(certificate), body).await
}

/// One turn of a run of an agent, which saw nothing yet: it is answered at once.
async fn sync_as(control: &Control, certificate: PeerCertificate, run: &str) -> (u16, Value) {
    let mut request = Request::post("/dtma/v1/sync").body(Body::from(report(0).to_string())).unwrap();
    request.headers_mut().insert(AGENT_RUN, run.parse().unwrap());
    request.extensions_mut().insert(certificate);
    let response = control.agent_router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Makes a link, as far as the control plane decides.
async fn link_as(t: &TestControl, certificate: PeerCertificate, run: Option<&str>) -> bool {
    may_link(&t.control, certificate, run).await
}

async fn may_link(control: &Control, certificate: PeerCertificate, run: Option<&str>) -> bool {
    let mut request = Request::post(LINK_PATH).body(Body::empty()).unwrap();
    request.extensions_mut().insert(certificate);
    if let Some(run) = run {
        request.headers_mut().insert(AGENT_RUN, run.parse().unwrap());
    }
    // Only who may make one is told that it takes another protocol than this request speaks.
    control.accept_link(request).await.status() == StatusCode::UPGRADE_REQUIRED
}

/// Waits until a control plane has read anew which certificates are good.
async fn read_anew(control: &Control) {
    let last = || {
        let loops = control.loop_status();
        loops.into_iter().find(|(name, _)| *name == "generations").map(|(_, status)| status.ended)
    };
    // One run may have begun before.
    for _ in 0..2 {
        let before = last();
        let again = async {
            while last() == before {
                control.wake_loops();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.expect("the loop runs");
    }
}

/// Listens for agents; where.
async fn listen(control: &Control) -> String {
    let acceptor = Acceptor::new(control.authority(), Clock::system()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let control = control.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, control) = (acceptor.clone(), control.clone());
            tokio::spawn(async move {
                let Ok((stream, Some(PeerIdentity::Toolbox(certificate)))) = acceptor.accept(stream).await else {
                    return;
                };
                let accepting = control.clone();
                let link = move |request: Request<Body>| async move { accepting.accept_link(request).await };
                let router = control.agent_router().route(LINK_PATH, post(link)).layer(Extension(certificate));
                let connections = auto::Builder::new(TokioExecutor::new());
                let service = TowerToHyperService::new(router);
                let _ = connections.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// An agent that has joined as a toolbox and runs nothing: its certificate, and what dials with it.
async fn dialler(t: &TestControl, name: &str, address: &str) -> (PeerCertificate, Dialler) {
    let (token, key) = (enroll(t, name).await, AgentKey::generate().unwrap());
    let (status, answer) = join(t, &token, &key).await;
    assert_eq!(status, 200, "{answer}");
    let (addresses, ca) = (vec![address.to_owned()], t.control.authority().fingerprint());
    let options = DialOptions { addresses, ca, proxy: None, no_proxy: None, offers: None };
    let dialler = Dialler::new(options).unwrap();
    let der = URL_SAFE_NO_PAD.decode(answer["certificate"].as_str().unwrap()).unwrap();
    dialler.set_certificate(&key, &der).unwrap();
    (certificate(&answer), dialler)
}

/// One turn of the run that a dialler names.
/// A link, as soon as one is accepted.
async fn link_in_time(dialler: &Dialler) -> Link {
    let linked = async {
        loop {
            if let Ok(link) = dialler.link(None, LinkKind::Calls).await {
                return link;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), linked).await.expect("a link without the database")
}

async fn sync_over(dialler: &Dialler) -> u16 {
    let request = Request::post("/dtma/v1/sync").body(Body::from(report(0).to_string())).unwrap();
    dialler.channel().oneshot(request).await.unwrap().status().as_u16()
}

/// Serves a link until the other side ends it.
fn serve(link: Link) -> tokio::task::JoinHandle<()> {
    tokio::spawn(
        async move { link.serve(axum::Router::new(), &CancellationToken::new(), &CancellationToken::new()).await },
    )
}

fn read_token(made: &Value) -> JoinToken {
    let token = made["token"].as_str().unwrap();
    assert!(made["command"].as_str().unwrap().contains(token));
    let content = URL_SAFE_NO_PAD.decode(token).unwrap();
    serde_json::from_slice(&content).unwrap()
}

async fn enroll(t: &TestControl, name: &str) -> JoinToken {
    let made = t.post("/api/v1/toolboxes", json!({ "name": name })).await.expect(201).body;
    assert_eq!(made["toolbox"]["state"], "enrolling");
    read_token(&made)
}

fn signing_request(key: &AgentKey) -> String {
    URL_SAFE_NO_PAD.encode(key.signing_request().unwrap())
}

async fn join(t: &TestControl, token: &JoinToken, key: &AgentKey) -> (u16, Value) {
    let body = json!({ "secret": token.secret, "toolbox": token.toolbox, "csr": signing_request(key) });
    ask(t, "/dtma/v1/join", None, &body).await
}

fn certificate(answer: &Value) -> PeerCertificate {
    PeerCertificate::read(&URL_SAFE_NO_PAD.decode(answer["certificate"].as_str().unwrap()).unwrap()).unwrap()
}

/// A toolbox whose agent has joined.
async fn joined(t: &TestControl, name: &str) -> PeerCertificate {
    let token = enroll(t, name).await;
    let (status, answer) = join(t, &token, &AgentKey::generate().unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    certificate(&answer)
}

fn code((status, problem): (u16, Value)) -> (u16, String) {
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

both_engines! {
    async fn an_agent_whose_servers_print_a_nul_is_heard(engine) {
        let t = TestControl::start(engine).await;
        let toolbox = t.control.local_toolbox().await.unwrap().unwrap();
        let mut told = report(0);
        told["agent_version"] = json!("0.1\0");
        told["observed"]["toolbox"]["runtimes"] = json!({ "no\0de": "22\0" });
        let mut request = Request::post("/dtma/v1/sync").body(Body::from(told.to_string())).unwrap();
        request.extensions_mut().insert(AgentIdentity(toolbox));
        assert_eq!(t.control.agent_router().oneshot(request).await.unwrap().status(), StatusCode::OK);
        let seen = t.get("/api/v1/toolboxes/local").await.expect(200).body;
        assert_eq!((&seen["state"], &seen["version"]), (&json!("online"), &json!("0.1\u{fffd}")));
        let agent = FakeAgent::local(&t.control).await;
        agent.behave("s", Behaviour::Fails(Reason::CrashLoop, "it said \0 and ended", "boom\0"));
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING })).await.expect(201);
        let failed = t.wait_rollout("s", "failed").await;
        assert!(failed["rollout"]["message"].as_str().unwrap().contains("it said \u{fffd} and ended"), "{failed}");
    }

    async fn a_toolbox_whose_engine_does_not_answer_says_so_until_it_does(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let mut told = report(0);
        let failure = json!({ "message": "the container engine does not answer", "since": "2026-10-24T12:00:00.000Z" });
        told["observed"]["toolbox"]["engine_failure"] = failure.clone();
        assert_eq!(sync(&t, edge, &told).await.0, 200);
        let seen = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((&seen["state"], &seen["reason"]), (&json!("online"), &json!("engine_unavailable")), "{seen}");
        assert_eq!(seen["message"], "the container engine does not answer; since 2026-10-24T12:00:00.000Z");
        assert_eq!(seen["report"]["engine_failure"], failure);
        assert_eq!(sync(&t, edge, &report(0)).await.0, 200);
        let seen = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((&seen["state"], &seen["reason"], &seen["message"]), (&json!("online"), &json!("answered"), &json!("")));

        // An agent that waits for its engine before it starts is not heard; that of this process tells why all the same.
        let local = t.control.local_toolbox().await.unwrap().unwrap();
        let (wait, why) = tokio::sync::watch::channel(Some("it is silent".to_owned()));
        t.control.set_engine_wait(local, why);
        let seen = t.get("/api/v1/toolboxes/local").await.expect(200).body;
        assert_eq!((&seen["state"], &seen["reason"]), (&json!("enrolling"), &json!("engine_unavailable")), "{seen}");
        assert_eq!(seen["message"], "it is silent");
        wait.send_replace(None);
        assert_eq!(t.get("/api/v1/toolboxes/local").await.expect(200).body["reason"], "requested");
    }

    async fn an_agent_is_known_by_its_certificate_until_its_toolbox_is_removed(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        assert_eq!(code(ask(&t, "/dtma/v1/sync", None, &report(0)).await), (401, "certificate_required".into()));
        let (status, answer) = sync(&t, edge, &report(0)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["protocol"], &answer["desired"]["instances"]), (&json!(1), &json!([])));
        let seen = t.get("/api/v1/toolboxes/edge").await.expect(200).body;
        assert_eq!((seen["state"].as_str(), seen["version"].as_str()), (Some("online"), Some("0.1.0")));
        assert_eq!(seen["certificate_expires_at"], "2026-11-23T12:00:00.000Z");
        t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(409);
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        assert_eq!(code(sync(&t, edge, &report(0)).await), (401, "toolbox_removed".into()));
        t.get("/api/v1/toolboxes/edge").await.expect(404);
        t.delete("/api/v1/toolboxes/local").await.expect(409);
        enroll(&t, "edge").await;
    }

    async fn a_token_is_good_for_one_key_once_in_its_time_and_refusals_are_in_the_audit_log(engine) {
        let t = TestControl::start(engine).await;
        let (first, second) = (enroll(&t, "edge1").await, enroll(&t, "edge2").await);
        let (own, other) = (AgentKey::generate().unwrap(), AgentKey::generate().unwrap());
        let mut foreign = first.clone();
        foreign.toolbox = second.toolbox;
        assert_eq!(code(join(&t, &foreign, &own).await), (403, "token_foreign".into()));
        let mut unknown = first.clone();
        unknown.secret = Secret::new("never-issued");
        assert_eq!(code(join(&t, &unknown, &own).await), (401, "token_invalid".into()));

        let (status, answer) = join(&t, &first, &own).await;
        assert_eq!((status, certificate(&answer).toolbox), (200, first.toolbox));
        assert_eq!(join(&t, &first, &own).await.0, 200, "its answer may have been lost");
        assert_eq!(code(join(&t, &first, &other).await), (401, "token_used".into()));
        t.clock.step_ms(3_600_000);
        assert_eq!(code(join(&t, &second, &own).await), (401, "token_expired".into()));
        assert_eq!(code(join(&t, &first, &own).await), (401, "token_used".into()));

        let audit = t.get("/api/v1/audit").await.expect(200).body;
        let lines: Vec<_> = audit["items"].as_array().unwrap().iter().filter(|line| line["action"] == "toolbox.join").collect();
        let refused: Vec<_> = lines.iter().filter(|line| line["outcome"] == "refused").map(|line| line["detail"]["code"].as_str().unwrap()).collect();
        assert_eq!(refused, ["token_used", "token_expired", "token_used", "token_foreign"], "newest first");
        assert!(lines.iter().any(|line| line["outcome"] == "done" && line["target"] == "toolbox/edge1"));
        assert!(!audit.to_string().contains(first.secret.expose()));
    }

    async fn a_revoked_certificate_is_refused_also_while_a_sync_is_held_and_a_new_token_brings_it_back(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let generation = sync(&t, edge, &report(0)).await.1["desired"]["generation"].as_u64().unwrap();
        let held = report(generation);
        let held = sync(&t, edge, &held);
        let revoke = async {
            t.post("/api/v1/toolboxes/edge/revoke", json!({})).await.expect(200);
        };
        let (held, ()) = tokio::join!(held, revoke);
        assert_eq!(code(held), (401, "certificate_revoked".into()));
        assert_eq!(code(sync(&t, edge, &report(0)).await), (401, "certificate_revoked".into()));
        let renewal = json!({ "csr": signing_request(&AgentKey::generate().unwrap()) });
        assert_eq!(code(ask(&t, "/dtma/v1/certificate", Some(edge), &renewal).await), (401, "certificate_revoked".into()));

        let token = read_token(&t.post("/api/v1/toolboxes/edge/rejoin", json!({})).await.expect(200).body);
        let again = certificate(&join(&t, &token, &AgentKey::generate().unwrap()).await.1);
        assert_eq!(again.toolbox, edge.toolbox);
        assert_eq!(sync(&t, again, &report(0)).await.0, 200);
        assert_eq!(sync(&t, edge, &report(0)).await.0, 401, "who joined before is replaced");
    }

    async fn the_agent_of_a_removed_toolbox_is_told_so_wherever_it_asks_also_while_a_sync_is_held(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let generation = sync(&t, edge, &report(0)).await.1["desired"]["generation"].as_u64().unwrap();
        let held = report(generation);
        let held = sync(&t, edge, &held);
        let remove = async {
            t.delete("/api/v1/toolboxes/edge").await.expect(204);
        };
        let (held, ()) = tokio::join!(held, remove);
        let removed = (401, "toolbox_removed".to_owned());
        assert_eq!(code(held), removed);
        assert_eq!(code(sync(&t, edge, &report(generation)).await), removed);
        let renewal = json!({ "csr": signing_request(&AgentKey::generate().unwrap()) });
        assert_eq!(code(ask(&t, "/dtma/v1/certificate", Some(edge), &renewal).await), removed);
        assert!(!link_as(&t, edge, Some("a")).await);
    }

    async fn the_agent_of_a_removed_toolbox_is_told_so_also_long_after_its_certificate_has_ended(engine) {
        let t = TestControl::start(engine).await;
        let (token, key) = (enroll(&t, "edge").await, AgentKey::generate().unwrap());
        let answer = join(&t, &token, &key).await.1;
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        let ended = json!({ "csr": signing_request(&key), "ended": answer["certificate"] });
        for days in [3, 40] {
            t.clock.step_ms(days * 24 * 3_600_000);
            assert_eq!(code(ask(&t, "/dtma/v1/certificate", None, &ended).await), (401, "toolbox_removed".into()));
        }
    }

    async fn the_agent_of_a_toolbox_that_was_revoked_and_then_removed_is_told_that_it_was_removed(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        t.post("/api/v1/toolboxes/edge/revoke", json!({})).await.expect(200);
        assert_eq!(code(sync(&t, edge, &report(0)).await), (401, "certificate_revoked".into()));
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        assert_eq!(code(sync(&t, edge, &report(0)).await), (401, "toolbox_removed".into()));
    }

    async fn the_agent_of_a_toolbox_that_the_database_never_knew_is_not_told_that_it_was_removed(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let unknown = PeerCertificate { toolbox: ToolboxId::generate(), ..edge };
        assert_eq!(code(sync(&t, unknown, &report(0)).await), (401, "certificate_revoked".into()));
        assert!(!link_as(&t, unknown, Some("a")).await);
    }

    async fn a_thief_that_does_not_say_which_run_it_is_is_found_too(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        for _ in 0..3 {
            assert_eq!(sync(&t, edge, &report(0)).await.0, 200, "an agent of an earlier version names none");
        }
        for _ in 0..3 {
            assert_eq!(sync_as(&t.control, edge, "a").await.0, 200);
            assert_eq!(code(sync(&t, edge, &json!({})).await), (400, "invalid_json".into()), "the doctor's question");
        }
        let told = [
            sync_as(&t.control, edge, "a").await.0,
            sync(&t, edge, &report(0)).await.0,
            sync_as(&t.control, edge, "a").await.0,
            sync_as(&t.control, edge, &"a".repeat(100)).await.0,
        ];
        assert_eq!(told, [200; 4], "each may have ended when the other began");
        assert_eq!(code(sync_as(&t.control, edge, "a").await), (401, "certificate_revoked".to_owned()));
        assert_eq!(code(sync(&t, edge, &report(0)).await), (401, "certificate_revoked".to_owned()));
    }

    async fn a_thief_that_only_makes_links_is_found_when_the_owner_asks(engine) {
        for thief in [Some("links-thief"), None] {
            let t = TestControl::start(engine).await;
            let edge = joined(&t, "edge").await;
            // Restarted once: what the former run had sent arrives late, and says nothing.
            for run in ["links-a", "links-b"] {
                assert!(link_as(&t, edge, Some(run)).await, "it makes its links before it asks");
                assert_eq!(sync_as(&t.control, edge, run).await.0, 200);
            }
            for _ in 0..3 {
                assert!(link_as(&t, edge, Some("links-a")).await);
                assert_eq!(sync_as(&t.control, edge, "links-b").await.0, 200);
            }
            assert!(link_as(&t, edge, thief).await, "it may be the next run");
            assert_eq!(sync_as(&t.control, edge, "links-b").await.0, 200, "it may have been sent before");
            assert_eq!(code(sync_as(&t.control, edge, "links-b").await), (401, "certificate_revoked".to_owned()));
            assert!(!link_as(&t, edge, thief).await);
        }
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        for _ in 0..3 {
            assert_eq!(sync_as(&t.control, edge, "a").await.0, 200);
            assert!(link_as(&t, edge, None).await, "an agent of an earlier version names its run on syncs only");
        }
    }

    async fn without_the_database_who_may_make_a_link_is_what_was_last_read_of_it_while_that_is_not_too_old(engine) {
        let t = TestControl::start(engine).await;
        let other = t.replica().await;
        let edge = joined(&t, "edge").await;
        let ended = [joined(&t, "revoked").await, joined(&t, "removed").await];
        for certificate in [edge, ended[0], ended[1]] {
            assert!(link_as(&t, certificate, Some("links-a")).await);
        }
        t.post("/api/v1/toolboxes/revoked/revoke", json!({})).await.expect(200);
        t.delete("/api/v1/toolboxes/removed").await.expect(204);
        for control in [&t.control, &other.control] {
            read_anew(control).await;
        }
        t.database().hide_toolboxes(true).await;
        assert!(!link_as(&t, edge, Some("links-restarted-meanwhile")).await, "it may only be busy");
        t.clock.step_ms(5_000);
        for control in [&t.control, &other.control] {
            for run in ["links-a", "links-restarted-meanwhile"] {
                assert!(may_link(control, edge, Some(run)).await, "{run}");
            }
            let stranger = PeerCertificate { toolbox: ToolboxId::generate(), ..edge };
            for certificate in [ended[0], ended[1], stranger] {
                assert!(!may_link(control, certificate, Some("links-a")).await, "{certificate:?}");
            }
        }
        assert_eq!(sync(&t, edge, &report(0)).await.0, 503);
        t.clock.step_ms(300_001);
        assert!(!link_as(&t, edge, Some("links-a")).await, "as old a snapshot serves no call");
        t.database().hide_toolboxes(false).await;
        assert!(link_as(&t, edge, Some("links-a")).await);
        assert!(!link_as(&t, ended[0], Some("links-a")).await && !link_as(&t, ended[1], Some("links-a")).await);
    }

    async fn what_was_revoked_a_moment_before_the_database_went_away_makes_no_link(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        read_anew(&t.control).await;
        t.post("/api/v1/toolboxes/edge/revoke", json!({})).await.expect(200);
        t.database().hide_toolboxes(true).await;
        t.clock.step_ms(5_000);
        assert!(!link_as(&t, edge, Some("links-a")).await);
    }

    async fn a_thief_that_made_a_link_without_the_database_is_found_once_it_is_back_and_who_was_restarted_is_none(engine) {
        let t = TestControl::on(TestDatabase::create(engine).await, Clock::system()).await;
        let address = listen(&t.control).await;
        let ((edge, thief), (honest, restarted)) =
            (dialler(&t, "edge", &address).await, dialler(&t, "honest", &address).await);
        for certificate in [edge, honest] {
            assert_eq!(sync_as(&t.control, certificate, "links-owner").await.0, 200);
        }
        read_anew(&t.control).await;
        t.database().hide_toolboxes(true).await;
        let stolen = serve(link_in_time(&thief).await);
        let kept = serve(link_in_time(&restarted).await);
        let linked = async {
            while [edge, honest].iter().any(|it| t.control.links().get(it.toolbox).is_none()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), linked).await.expect("the links are there");

        t.database().hide_toolboxes(false).await;
        assert_eq!(sync_over(&restarted).await, 200);
        let found = async {
            loop {
                let answer = sync_as(&t.control, edge, "links-owner").await;
                if answer.0 == 401 {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), found).await.expect("two agents have one key");
        assert_eq!(code(found), (401, "certificate_revoked".to_owned()));
        tokio::time::timeout(Duration::from_secs(20), stolen).await.expect("its link is closed").expect("no panic");
        for _ in 0..3 {
            assert_eq!(sync_over(&restarted).await, 200, "it was the same agent before");
        }
        assert!(!kept.is_finished());
    }

    async fn a_certificate_that_two_agents_use_is_revoked_whichever_replicas_they_ask(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let other = t.replica().await;
        // The owner is restarted once; what it had sent before arrives late.
        for (run, replica) in [("a", &t.control), ("b", &other.control), ("a", &t.control)] {
            assert_eq!(sync_as(replica, edge, run).await.0, 200);
        }
        // A thief with its key asks another replica than it does, and they take turns.
        for (run, replica) in [("thief", &t.control), ("b", &other.control)] {
            assert_eq!(sync_as(replica, edge, run).await.0, 200);
        }
        let found = sync_as(&other.control, edge, "b").await;
        assert_eq!(code(found), (401, "certificate_revoked".to_owned()));
        for replica in [&t.control, &other.control] {
            assert_eq!(code(sync_as(replica, edge, "thief").await), (401, "certificate_revoked".to_owned()));
        }
        let audit = t.get("/api/v1/audit?limit=50").await.expect(200).body;
        let revoked = audit["items"].as_array().unwrap().iter().filter(|line| line["action"] == "toolbox.revoke").count();
        assert_eq!(revoked, 1);
        let token = read_token(&t.post("/api/v1/toolboxes/edge/rejoin", json!({})).await.expect(200).body);
        let (status, answer) = join(&t, &token, &AgentKey::generate().unwrap()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(sync_as(&other.control, certificate(&answer), "c").await.0, 200);
    }

    async fn a_certificate_is_renewed_by_its_owner_only_and_ends_in_its_time(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let renewal = json!({ "csr": signing_request(&AgentKey::generate().unwrap()) });
        assert_eq!(ask(&t, "/dtma/v1/certificate", None, &renewal).await.0, 401);
        t.clock.step_ms(16 * 3_600_000);
        let (status, answer) = ask(&t, "/dtma/v1/certificate", Some(edge), &renewal).await;
        let renewed = certificate(&answer);
        assert_eq!((status, renewed.toolbox, renewed.enrolment), (200, edge.toolbox, edge.enrolment));
        assert!(renewed.expires_at > edge.expires_at);
        t.clock.step_ms(9 * 3_600_000);
        assert_eq!(sync(&t, edge, &report(0)).await.0, 401, "a connection does not keep a certificate alive");
        assert_eq!(sync(&t, renewed, &report(0)).await.0, 200);
        assert_eq!(ask(&t, "/dtma/v1/certificate", Some(renewed), &json!({ "csr": "no" })).await.0, 422);
    }

    async fn a_certificate_that_has_ended_is_renewed_with_its_key_for_a_month_and_good_for_nothing_else(engine) {
        let t = TestControl::start(engine).await;
        let (token, key) = (enroll(&t, "edge").await, AgentKey::generate().unwrap());
        let answer = join(&t, &token, &key).await.1;
        let ended = |key: &AgentKey| json!({ "csr": signing_request(key), "ended": answer["certificate"] });
        t.clock.step_ms(3 * 24 * 3_600_000);
        assert_eq!(sync(&t, certificate(&answer), &report(0)).await.0, 401);
        assert_eq!(ask(&t, "/dtma/v1/certificate", None, &ended(&AgentKey::generate().unwrap())).await.0, 422);
        let (status, renewed) = ask(&t, "/dtma/v1/certificate", None, &ended(&key)).await;
        assert_eq!(status, 200, "{renewed}");
        assert_eq!(sync(&t, certificate(&renewed), &report(0)).await.0, 200);
        t.clock.step_ms(30 * 24 * 3_600_000);
        assert_eq!(ask(&t, "/dtma/v1/certificate", None, &ended(&key)).await.0, 401);
        t.post("/api/v1/toolboxes/edge/revoke", json!({})).await.expect(200);
        let renewed = json!({ "csr": signing_request(&key), "ended": renewed["certificate"] });
        assert_eq!(code(ask(&t, "/dtma/v1/certificate", None, &renewed).await), (401, "certificate_revoked".into()));
    }

    async fn a_server_that_asks_for_labels_is_placed_where_they_are(engine) {
        let t = TestControl::start(engine).await;
        let _local = FakeAgent::local(&t.control).await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox_labels": { "zone": "a" } });
        t.post("/api/v1/servers", body).await.expect(201);
        let waiting = t.wait("/api/v1/servers/s", |_, body| body["reason"] == "awaiting_toolbox").await;
        assert!(waiting["message"].as_str().unwrap().contains("zone=a"), "{waiting}");
        let made = t.post("/api/v1/toolboxes", json!({ "name": "edge", "labels": { "zone": "a", "gpu": "no" } }));
        let made = made.await.expect(201).body;
        let _edge = FakeAgent::start(&t.control, made["toolbox"]["id"].as_str().unwrap().parse().unwrap());
        let ready = t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
        assert_eq!((&ready["instances"][0]["toolbox"], &ready["toolbox_labels"]), (&json!("edge"), &json!({ "zone": "a" })));
        let both = json!({ "name": "b", "entry": EVERYTHING, "toolbox": "edge", "toolbox_labels": { "zone": "a" } });
        t.post("/api/v1/servers", both).await.expect(422);
        t.patch("/api/v1/toolboxes/edge", json!({ "labels": {} })).await.expect(200);
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.expect(200).body["labels"], json!({}));
    }

    async fn a_drained_toolbox_that_goes_silent_is_unreachable_and_still_drained_when_it_comes_back(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "online").await;
        let drained = t.post("/api/v1/toolboxes/local/drain", json!({})).await.expect(200).body;
        assert_eq!((&drained["state"], &drained["draining"]), (&json!("draining"), &json!(true)));
        drop(agent);
        t.clock.step_ms(46_000);
        let silent = t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "unreachable").await;
        assert_eq!(silent["draining"], true);
        let _again = FakeAgent::local(&t.control).await;
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "draining").await;
    }

    async fn wrong_versions_and_broken_syncs_are_refused_with_what_to_do(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let mut old = report(0);
        old["protocol_min"] = json!(0);
        old["protocol_max"] = json!(0);
        let (status, problem) = sync(&t, edge, &old).await;
        assert_eq!((status, problem["code"].as_str()), (426, Some("version_unsupported")));
        assert!(problem["detail"].as_str().unwrap().contains("install toolyard"));
        let mut new = report(0);
        new["protocol_min"] = json!(7);
        new["protocol_max"] = json!(9);
        assert!(sync(&t, edge, &new).await.1["detail"].as_str().unwrap().contains("upgrade the control plane"));
        assert_eq!(sync(&t, edge, &json!({ "protocol_min": "x" })).await.0, 400);
    }

    async fn a_generation_from_a_lost_future_is_overtaken(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let (status, answer) = sync(&t, edge, &report(1000)).await;
        assert_eq!(status, 200);
        assert!(answer["desired"]["generation"].as_u64().unwrap() > 1000, "{answer}");
    }

    async fn an_agent_cannot_touch_what_is_on_another_toolbox(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        let ready = t.deploy("s").await;
        let edge = joined(&t, "edge").await;
        let mut lie = report(0);
        lie["observed"]["instances"] = json!([{
            "id": ready["instance_id"],
            "status": { "phase": "failed", "reason": "crash_loop", "message": "no", "since": "2026-01-01T00:00:00Z" },
        }]);
        assert_eq!(sync(&t, edge, &lie).await.0, 200);
        assert_eq!(t.get("/api/v1/servers/s").await.expect(200).body["phase"], "ready");
    }

    async fn a_lock_whose_digest_is_wrong_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let body = json!({ "name": "s", "entry": EVERYTHING, "toolbox": "edge" });
        sync(&t, edge, &report(0)).await;
        t.post("/api/v1/servers", body).await.expect(201);
        t.wait("/api/v1/servers/s", |_, body| body["reason"] == "resolving").await;
        let answer = sync(&t, edge, &report(0)).await.1;
        let mut lie = report(answer["desired"]["generation"].as_u64().unwrap());
        let lock = json!({ "digest": "sha256:00", "version": "1.0.0", "content": "something else" });
        lie["observed"]["jobs"] = json!([{ "id": answer["desired"]["jobs"][0]["id"], "outcome": { "Ok": lock } }]);
        assert_eq!(sync(&t, edge, &lie).await.0, 200);
        let revisions = t.get("/api/v1/servers/s/revisions").await.expect(200).body;
        assert_eq!(revisions["items"][0]["lock_digest"], Value::Null);
    }

    async fn what_a_job_waits_for_is_what_its_rollout_says(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        sync(&t, edge, &report(0)).await;
        t.post("/api/v1/servers", json!({ "name": "s", "entry": EVERYTHING, "toolbox": "edge" })).await.expect(201);
        t.wait("/api/v1/servers/s", |_, body| body["reason"] == "resolving").await;
        let job = sync(&t, edge, &report(0)).await.1["desired"]["jobs"][0]["id"].clone();
        let says = async |message: &str, expected: &str| {
            let mut told = report(0);
            told["observed"]["job_progress"] = json!([{ "id": job, "message": message }]);
            assert_eq!(sync(&t, edge, &told).await.0, 200);
            t.wait("/api/v1/servers/s", |_, body| body["message"] == expected && body["reason"] == "resolving").await;
        };
        says("waits for 2 others", "toolbox `edge` waits for 2 others").await;
        says("", "toolbox `edge` determines the exact versions").await;
    }

    async fn a_silent_toolbox_is_unreachable_and_so_are_its_servers(engine) {
        let t = TestControl::start(engine).await;
        let agent = FakeAgent::local(&t.control).await;
        t.deploy("s").await;
        drop(agent);
        t.clock.step_ms(46_000);
        t.wait("/api/v1/toolboxes/local", |_, body| body["state"] == "unreachable").await;
        let server = t.get("/api/v1/servers/s").await.expect(200).body;
        assert_eq!((server["phase"].as_str(), server["reason"].as_str()), (Some("degraded"), Some("toolbox_unreachable")));
        let instance = &server["instances"][0];
        assert_eq!((&instance["phase"], &instance["reason"]), (&json!("unknown"), &json!("toolbox_unreachable")));
        let toolbox = t.get("/api/v1/toolboxes/local").await.expect(200).body;
        assert_eq!(toolbox["health"]["phases"], json!([{ "phase": "unknown", "count": 1 }]));
        // Since the silence was noticed, and not since the server was ready.
        assert_eq!((&server["since"], &instance["since"]), (&toolbox["since"], &toolbox["since"]));
        let again = FakeAgent::local(&t.control).await;
        again.behave("s", Behaviour::Ready);
        t.wait("/api/v1/servers/s", |_, body| body["phase"] == "ready").await;
    }

    async fn the_command_for_a_host_names_the_environment_of_its_control_plane_unless_that_is_development(engine) {
        let commands =
            [("production", "TOOLYARD_ENV=production TOOLYARD_TOKEN="), ("development", "TOOLYARD_TOKEN=")];
        for (environment, wanted) in commands {
            let database = TestDatabase::create(engine).await;
            let t = TestControl::with(database, Clock::stopped_at(started_at()), |options| {
                environment.clone_into(&mut options.environment);
            }).await;
            let made = t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(201).body;
            let again = t.post("/api/v1/toolboxes/edge/rejoin", json!({})).await.expect(200).body;
            for command in [&made["command"], &again["command"]] {
                assert!(command.as_str().unwrap().starts_with(wanted), "{command}");
            }
            t.stop().await;
        }
    }

    async fn an_agent_is_told_the_environment_of_its_control_plane_and_tells_its_own(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        let mut told = report(0);
        let (status, answer) = sync(&t, edge, &told).await;
        assert_eq!((status, &answer["environment"]), (200, &json!("development")), "{answer}");
        assert!(t.get("/api/v1/toolboxes/edge").await.expect(200).body["report"]["environment"].is_null());
        told["observed"]["toolbox"]["environment"] = json!("staging");
        assert_eq!(sync(&t, edge, &told).await.0, 200);
        assert_eq!(t.get("/api/v1/toolboxes/edge").await.expect(200).body["report"]["environment"], "staging");
    }

    async fn a_generation_that_no_honest_agent_saw_is_refused(engine) {
        let t = TestControl::start(engine).await;
        let edge = joined(&t, "edge").await;
        assert_eq!(sync(&t, edge, &report(u64::MAX)).await.0, 422);
    }

    async fn a_drained_toolbox_takes_nothing_new(engine) {
        let t = TestControl::start(engine).await;
        let _agent = FakeAgent::local(&t.control).await;
        t.deploy("before").await;
        t.post("/api/v1/toolboxes/local/drain", json!({})).await.expect(200);
        t.post("/api/v1/servers", json!({ "name": "after", "entry": EVERYTHING })).await.expect(201);
        t.wait("/api/v1/servers/after", |_, body| body["reason"] == "awaiting_toolbox").await;
        assert_eq!(t.get("/api/v1/servers/before").await.expect(200).body["phase"], "ready");
        let resumed = t.post("/api/v1/toolboxes/local/resume", json!({})).await.expect(200).body;
        assert_eq!(resumed["state"], "online", "its agent was heard a moment ago");
    }

    async fn a_removed_toolboxs_servers_are_placed_elsewhere(engine) {
        let t = TestControl::start(engine).await;
        let made = t.post("/api/v1/toolboxes", json!({ "name": "edge" })).await.expect(201).body;
        let id = made["toolbox"]["id"].as_str().unwrap().parse().unwrap();
        let _edge = FakeAgent::start(&t.control, id);
        let first = t.deploy("s").await;
        assert_eq!(first["instances"][0]["toolbox"], "edge");
        let _local = FakeAgent::local(&t.control).await;
        t.delete("/api/v1/toolboxes/edge").await.expect(204);
        let moved = t.wait("/api/v1/servers/s", |_, body| {
            body["phase"] == "ready" && body["instances"][0]["toolbox"] == "local"
        }).await;
        assert_ne!(moved["instance_id"], first["instance_id"]);
    }
}
