//! Remote servers are probed beside each other: what answers never waits for what hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::harness::{TestControl, both_engines};
use crate::rollouts::Remote;

/// Where a server is that takes what it is sent and does not answer.
const SILENT: &str = "silent.example";
/// How long until it hangs up, when it does: longer than whoever answers is waited for.
const HANGS_UP_AFTER: Duration = Duration::from_millis(2500);
const MANY: usize = 100;

/// The way to remote servers.
struct Network {
    /// How many probes of silent servers were begun.
    asked: Arc<AtomicUsize>,
    /// Whether silent servers hang up after a while.
    hangs_up: Arc<AtomicBool>,
}

impl Network {
    fn of(t: &TestControl) -> Self {
        let open = toolyard_mcp::http::pooled(Client::builder(TokioExecutor::new()).build(HttpConnector::new()));
        let (asked, hangs_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (begun, ends) = (Arc::clone(&asked), Arc::clone(&hangs_up));
        let client: toolyard_mcp::http::Client = Arc::new(move |request| {
            let is_silent = request.uri().host() == Some(SILENT);
            // The first question of each probe.
            if is_silent && request.headers().get("mcp-method").is_some_and(|method| method == "server/discover") {
                begun.fetch_add(1, Ordering::SeqCst);
            }
            let (answer, ends) = (open(request), ends.load(Ordering::SeqCst));
            Box::pin(async move {
                if is_silent && ends {
                    tokio::time::sleep(HANGS_UP_AFTER).await;
                    return Err("it hung up".into());
                }
                if is_silent {
                    std::future::pending::<()>().await;
                }
                answer.await
            })
        });
        t.control.set_remote_client(client);
        Self { asked, hangs_up }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn register(t: &TestControl, name: &str, url: &str) {
    t.post("/api/v1/servers", json!({ "name": name, "url": url })).await.expect(201);
}

async fn register_silent(t: &TestControl) {
    for number in 0..MANY {
        register(t, &format!("silent-{number}"), &format!("http://{SILENT}/{number}")).await;
    }
}

fn serves(_: u16, server: &Value) -> bool {
    server["phase"] == "ready"
}

both_engines! {
    async fn a_new_remote_is_ready_soon_though_a_hundred_new_ones_of_its_organization_hang(engine) {
        let t = TestControl::start(engine).await;
        let (network, remote) = (Network::of(&t), Remote::start().await);
        register_silent(&t).await;
        register(&t, "r", &remote.url).await;
        t.wait("/api/v1/servers/r", serves).await;
        // The others are all being asked, and each is given its time.
        t.wait("/api/v1/version", |_, _| network.asked() >= MANY).await;
        register(&t, "later", &remote.url).await;
        t.wait("/api/v1/servers/later", serves).await;
    }

    async fn a_remote_that_fails_or_is_new_is_noticed_though_a_hundred_others_hung_before_and_hang_again(engine) {
        let t = TestControl::start(engine).await;
        let (network, remote) = (Network::of(&t), Remote::start().await);
        register(&t, "r", &remote.url).await;
        t.wait("/api/v1/servers/r", serves).await;
        network.hangs_up.store(true, Ordering::SeqCst);
        register_silent(&t).await;
        for number in 0..MANY {
            let known = |_, body: &Value| body["rollout"]["reason"] == "remote_unreachable";
            t.wait(&format!("/api/v1/servers/silent-{number}"), known).await;
        }
        network.hangs_up.store(false, Ordering::SeqCst);
        remote.up.store(false, Ordering::SeqCst);
        let before = network.asked();
        t.clock.step_ms(61_000);
        let failed = t.wait("/api/v1/servers/r", |_, body| body["phase"] == "failed").await;
        assert_eq!(failed["reason"], "remote_unreachable");
        // Those that hang again are asked meanwhile, a part of them at once.
        t.wait("/api/v1/version", |_, _| network.asked() >= before + MANY / 2).await;
        remote.up.store(true, Ordering::SeqCst);
        register(&t, "later", &remote.url).await;
        t.wait("/api/v1/servers/later", serves).await;
        t.clock.step_ms(61_000);
        t.wait("/api/v1/servers/r", serves).await;
    }
}
