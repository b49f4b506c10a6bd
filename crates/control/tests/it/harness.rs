//! A control plane for a test: real store, real router, stepped clock.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use toolyard_control::{Bootstrap, Control, ControlOptions, Limits, SourceClient, VaultKeys};
pub(crate) use toolyard_store::testing::{Engine, TestDatabase};
use toolyard_types::{Clock, Secret, Timestamp};
use tower::ServiceExt;

/// The bootstrap key of every test: an owner's.
pub(crate) const OWNER_KEY: &str = "ty_bootstrap_0123456789abcdef0123456789abcdef";
/// The administrator of every test.
pub(crate) const ADMIN_EMAIL: &str = "admin@example.test";
/// The administrator's password.
pub(crate) const ADMIN_PASSWORD: &str = "correct-horse-battery";

/// Runs a test once on SQLite and once on Postgres: `both_engines! { async fn name(engine) { ... } }`.
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($engine:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            async fn run($engine: crate::harness::Engine) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() { run(crate::harness::Engine::Sqlite).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() { run(crate::harness::Engine::Postgres).await; }
        }
    )*};
}
pub(crate) use both_engines;

/// A control plane under test.
pub(crate) struct TestControl {
    pub(crate) control: Control,
    pub(crate) clock: Clock,
    pub(crate) stopping: CancellationToken,
    router: axum::Router,
    database: TestDatabase,
}

/// A second control plane on the database of the first.
pub(crate) struct Replica {
    pub(crate) control: Control,
    router: axum::Router,
}

impl Replica {
    /// `GET` with the owner's key.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("authorization", format!("Bearer {OWNER_KEY}"));
        answer(&self.router, request.body(Body::empty()).expect("a request")).await
    }
}

async fn answer(router: &axum::Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("the answer ends").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body, text }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// The problem's code; empty when it is none.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Fails the test unless the status is this one; says what came instead.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl TestControl {
    /// Starts a control plane on an empty database, at a clock that stands still.
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::on(TestDatabase::create(engine).await, Clock::stopped_at(started_at())).await
    }

    /// Starts a control plane on a database that may have been used before.
    pub(crate) async fn on(database: TestDatabase, clock: Clock) -> Self {
        Self::with(database, clock, |_| {}).await
    }

    /// Starts a control plane with options changed.
    pub(crate) async fn with(database: TestDatabase, clock: Clock, change: impl FnOnce(&mut ControlOptions)) -> Self {
        let mut options = options(&database, clock.clone()).await;
        change(&mut options);
        let stopping = options.shutdown.clone();
        let control = Control::start(options).await.expect("the control plane starts");
        Self { router: control.router(), control, clock, stopping, database }
    }

    /// Stops this control plane and gives the database back, for another start.
    pub(crate) async fn stop(self) -> TestDatabase {
        assert!(self.control.shutdown(Duration::from_secs(10)).await, "every background task ends");
        self.database
    }

    /// Another control plane on the same database, as a second replica.
    pub(crate) async fn replica(&self) -> Replica {
        let control = Control::start(options(&self.database, self.clock.clone()).await).await.expect("it starts");
        Replica { router: control.router(), control }
    }

    /// The database below.
    pub(crate) fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Asks with the owner's key.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_as(OWNER_KEY, method, path, body).await
    }

    /// Asks with some key.
    pub(crate) async fn ask_as(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        request = request.header("content-type", "application/json");
        self.send(request.body(body).expect("a request")).await
    }

    /// `GET` with the owner's key.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// `POST` with the owner's key.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// `PUT` with the owner's key.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// `PATCH` with the owner's key.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// `DELETE` with the owner's key.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Sends any request and reads the answer to its end.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        answer(&self.router, request).await
    }

    /// Sends any request and leaves the answer's body to be read, for streams.
    pub(crate) async fn stream(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.expect("the router answers")
    }
}

/// When every test begins.
pub(crate) fn started_at() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").expect("a date-time")
}

async fn options(database: &TestDatabase, clock: Clock) -> ControlOptions {
    ControlOptions {
        store: database.open(clock.clone()).await,
        clock,
        data_dir: database.dir(),
        vault_keys: VaultKeys::DataDir,
        vault_key_lost: false,
        http_client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client"),
        source_client: SourceClient::new(reqwest::Client::builder(), true).expect("a client"),
        environment: "development".to_owned(),
        deployment_target: "bare".to_owned(),
        public_url: None,
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        cookie_secure: false,
        session_ttl: Duration::from_secs(12 * 3600),
        registry_url: None,
        serve_registry: true,
        registry_sync: false,
        bootstrap: Bootstrap {
            admin_email: Some(ADMIN_EMAIL.to_owned()),
            admin_password: Some(Secret::new(ADMIN_PASSWORD)),
            api_key: Some(Secret::new(OWNER_KEY)),
            api_key_is_set: true,
        },
        local_toolbox: true,
        call_retention_days: 30,
        call_max_records: 1_000_000,
        audit_retention_days: 365,
        audit_max_records: 1_000_000,
        revisions_kept: 100,
        agent_certificate: Duration::from_secs(24 * 3600),
        toolbox_silence: Duration::from_secs(45),
        toolbox_replace_after: Duration::from_secs(300),
        limits: Limits::default(),
        snapshot_max_age: Duration::from_secs(300),
        shutdown: CancellationToken::new(),
    }
}
