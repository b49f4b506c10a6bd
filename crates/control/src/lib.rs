//! The control plane as a library: what should run, who may do what, and the loops that make it so.
//!
//! - `http/` is thin: a handler extracts, calls one function of `app/` and shapes the answer. Every route is
//!   registered together with its access (`http::guard`).
//! - `app/` holds what can be done, a file per noun. Its functions take the [`Control`] and the `Caller`.
//! - `auth/` finds out who is asking; the decision itself is in the `policy` crate.
//! - `vault/` seals and opens secrets.
//!
//! [`Control`] owns every background task: they stop when its token is cancelled, and [`Control::shutdown`]
//! waits for them.

mod app;
mod auth;
mod authority;
mod calls;
mod catalog;
pub mod connect;
pub mod error;
mod events;
mod fleet;
mod http;
mod limits;
mod operations;
mod readiness;
mod reconcile;
mod replicas;
mod snapshot;
mod vault;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

pub use app::members::is_email;
pub use auth::token::api_key as new_api_key;
pub use auth::{Caller, FirstSignIn, reset_password};
pub use catalog::{SourceClient, entry_document, is_public};
pub use error::{ControlError, Result};
pub use fleet::LoopStatus;
pub use http::AgentIdentity;
pub use http::client::behind as address_behind;
pub use http::openapi;
pub use limits::{Limits, ServerCeilings};
pub use operations::OrganizationMetrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toolyard_policy::Decider;
use toolyard_store::Store;
use toolyard_types::{Clock, Network, Secret};
pub use vault::{Vault, VaultError, VaultKeys};

/// The longest one run of a background task may take.
pub(crate) const LONGEST_RUN: Duration = Duration::from_secs(60);

/// What the administrator and the first API key are made of at the first start.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// The administrator's e-mail address; `admin@localhost` when absent.
    pub admin_email: Option<String>,
    /// The administrator's password; one is made and shown once when absent.
    pub admin_password: Option<Secret>,
    /// An API key with the owner's role; none when absent.
    pub api_key: Option<Secret>,
    /// Whether that key is a setting, which comes again at each start: it has no other secret than that one.
    pub api_key_is_set: bool,
}

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// The store, opened.
    pub store: Store,
    /// Tells the time.
    pub clock: Clock,
    /// Where the key file is, or is made.
    pub data_dir: PathBuf,
    /// Where the vault's master key comes from.
    pub vault_keys: VaultKeys,
    /// Whether the key that secrets were sealed with is lost for ever, and another one takes its place.
    pub vault_key_lost: bool,
    /// For every outgoing request; knows CA bundle and proxy.
    pub http_client: reqwest::Client,
    /// For catalog sources, whose addresses people type in.
    pub source_client: SourceClient,
    /// `development`, `staging` or `production`.
    pub environment: String,
    /// `bare`, `systemd`, `container` or `cluster`.
    pub deployment_target: String,
    /// The URL people reach this Toolyard at, when it is known.
    pub public_url: Option<String>,
    /// Proxies in front of this one: what they say of where a request comes from is believed.
    pub trusted_proxies: Vec<Network>,
    /// Whether session cookies are sent over TLS only.
    pub cookie_secure: bool,
    /// How long a session lives after its last use.
    pub session_ttl: Duration,
    /// The registry to sync the catalog from; the official one when absent.
    pub registry_url: Option<String>,
    /// Whether `/v0.1` serves the public entries of our catalog.
    pub serve_registry: bool,
    /// Whether the catalog is synced from the registry.
    pub registry_sync: bool,
    /// For the first start.
    pub bootstrap: Bootstrap,
    /// Whether the built-in toolbox `local` exists.
    pub local_toolbox: bool,
    /// How many days call records are kept.
    pub call_retention_days: u32,
    /// How many call records are kept at most.
    pub call_max_records: u64,
    /// How many days audit records are kept.
    pub audit_retention_days: u32,
    /// How many audit records of an organization are kept at most; of what was refused a quarter of that.
    pub audit_max_records: u64,
    /// How many revisions of a server are kept, beside those that are in use.
    pub revisions_kept: u32,
    /// How long an agent's certificate is good for; it renews it when two thirds of that have gone.
    pub agent_certificate: Duration,
    /// After how long without a sync a toolbox counts as unreachable.
    pub toolbox_silence: Duration,
    /// After how long without a sync what ran on a toolbox is placed elsewhere; zero for never.
    pub toolbox_replace_after: Duration,
    /// How much one principal and one organization may take.
    pub limits: Limits,
    /// How old the snapshot may be for the gateway to serve from it.
    pub snapshot_max_age: Duration,
    /// Cancelled when everything should end.
    pub shutdown: CancellationToken,
}

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    options: ControlOptions,
    vault: Vault,
    decider: Decider,
    tasks: TaskTracker,
    auth: auth::AuthState,
    flags: app::flags::FlagState,
    reports: app::reports::ReportState,
    events: events::EventState,
    event_streams: Arc<limits::Shares>,
    request_rates: limits::Rates,
    registry_turns: tokio::sync::Semaphore,
    search_turns: limits::Turns,
    refusals: app::refusals::Refusals,
    readiness: readiness::ReadinessState,
    remote_leases: snapshot::RemoteLeases,
    probes: reconcile::remote::Probes,
    calls: calls::CallState,
    catalog: catalog::CatalogState,
    fleet: fleet::Fleet,
    authority: Arc<toolyard_link::tls::Authority>,
    first_sign_in: std::sync::Mutex<Option<FirstSignIn>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the vault, makes the first organization, administrator and key if there are none, and starts the
    /// background tasks.
    ///
    /// # Errors
    /// When the key file cannot be used or the store fails.
    pub async fn start(options: ControlOptions) -> Result<Self> {
        operations::describe_metrics();
        let tx = options.store.system_read("look for what is sealed").await?;
        let sealed = tx.any_credential().await? || tx.authority().await?.is_some();
        drop(tx);
        Vault::refuse_lost_key(&options.vault_keys, &options.data_dir, sealed && !options.vault_key_lost)?;
        let vault = Vault::open(&options.vault_keys, &options.data_dir)?;
        let clock = options.clock.clone();
        let authority = authority::open_or_make(&options.store, &vault, &clock, options.vault_key_lost).await?;
        let decider = Decider::new().map_err(ControlError::internal("reading the built-in policies"))?;
        let auth = auth::AuthState::new(&options.clock);
        let first_sign_in = auth::bootstrap::run(&options.store, &options.bootstrap).await?;
        let (calls, records) = calls::CallState::open(&options.store).await?;
        let limits = options.limits;
        let readers = options.store.readers();
        let control = Self(Arc::new(Inner {
            options,
            vault,
            decider,
            tasks: TaskTracker::new(),
            auth,
            flags: app::flags::FlagState::default(),
            reports: app::reports::ReportState::default(),
            events: events::EventState::new(),
            event_streams: limits::Shares::new([
                limits.event_streams,
                limits.event_streams_per_organization,
                limits.event_streams_per_principal,
            ]),
            registry_turns: tokio::sync::Semaphore::new(http::REGISTRY_TURNS),
            search_turns: limits::Turns::new(app::catalog::SEARCHES, app::catalog::SEARCH_PATIENCE),
            request_rates: limits::Rates::new([
                limits.requests_per_second_per_organization,
                limits.requests_per_second_per_principal,
            ]),
            refusals: app::refusals::Refusals::new(limits.refusals_per_minute, clock.clone()),
            readiness: readiness::ReadinessState::default(),
            remote_leases: snapshot::RemoteLeases::default(),
            probes: reconcile::remote::Probes::default(),
            calls,
            catalog: catalog::CatalogState::default(),
            fleet: fleet::Fleet::new(clock, authority.fingerprint(), readers),
            authority,
            first_sign_in: std::sync::Mutex::new(first_sign_in),
        }));
        events::prepare(&control).await?;
        catalog::sync::prepare(&control).await?;
        fleet::prepare(&control).await?;
        control.spawn("events", events::follow(control.clone()));
        control.spawn("trim", events::trim(control.clone()));
        control.spawn("call records", calls::write(control.clone(), records));
        control.spawn("call retention", calls::forget(control.clone()));
        control.spawn("auth upkeep", auth::upkeep(control.clone()));
        control.spawn("refusals", app::refusals::write_counted(control.clone()));
        control.spawn("readiness", readiness::keep(control.clone()));
        control.spawn("catalog changes", catalog::follow_changes(control.clone()));
        control.spawn("replicas", replicas::keep(control.clone()));
        control.spawn("catalog sync", catalog::sync::run(control.clone()));
        reconcile::spawn(&control);
        Ok(control)
    }

    /// The public API: `/api/v1`, and the registry when it is served.
    pub fn router(&self) -> axum::Router {
        http::public_router(self)
    }

    /// The agents' API: `/dtma/v1`.
    pub fn agent_router(&self) -> axum::Router {
        http::agent_router(self)
    }

    /// The first administrator's sign-in, when this start made one with a password of its own; only once.
    #[must_use]
    pub fn take_first_sign_in(&self) -> Option<FirstSignIn> {
        self.0.first_sign_in.lock().ok()?.take()
    }

    /// Stops the background tasks and waits for them, at most `deadline`; `false` when some did not end. Call
    /// it after the gateway has drained: call records are taken until now.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.0.options.shutdown.cancel();
        self.0.calls.end();
        self.0.tasks.close();
        let ended = tokio::time::timeout(deadline, self.0.tasks.wait()).await.is_ok();
        if let Err(error) = auth::flush_key_uses(self).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last uses of API keys were not written");
        }
        // With its last connection SQLite writes its log into the file, which then is all there is to copy.
        self.0.calls.store().close().await;
        self.store().clone().close().await;
        ended
    }

    /// Starts a background task that this control plane waits for. The task must end when [`Control::stopping`]
    /// is cancelled, or with [`Control::shutdown`].
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watched = std::panic::AssertUnwindSafe(task).catch_unwind();
        self.0.tasks.spawn(async move {
            match watched.await {
                Ok(()) => tracing::debug!(task = name, "background task ended"),
                // The panic's own message is in the log already.
                Err(_) => tracing::error!(task = name, "background task `{name}` ended by a panic"),
            }
        });
    }

    /// Runs a request's work apart from its connection; this control plane waits for it too.
    pub(crate) fn spawn_request<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.tasks.spawn(work)
    }

    /// One run of a background task, given up when it takes too long: the next one begins anew.
    pub(crate) async fn in_time<T>(&self, run: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(LONGEST_RUN, run).await.unwrap_or_else(|_| {
            let why = format!("it took longer than {} s and was given up", LONGEST_RUN.as_secs());
            Err(ControlError::internal("running a background task")(why))
        })
    }

    /// Cancelled when everything should end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.options.shutdown
    }

    /// What this control plane was started with.
    pub(crate) fn options(&self) -> &ControlOptions {
        &self.0.options
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.0.options.store
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.options.clock
    }

    /// The vault.
    pub(crate) fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// The one decision function; the gateway uses the same.
    #[must_use]
    pub fn decider(&self) -> &Decider {
        &self.0.decider
    }

    /// The CA that agents and their listener have certificates of.
    #[must_use]
    pub fn authority(&self) -> Arc<toolyard_link::tls::Authority> {
        Arc::clone(&self.0.authority)
    }

    pub(crate) fn fleet(&self) -> &fleet::Fleet {
        &self.0.fleet
    }

    pub(crate) fn catalog(&self) -> &catalog::CatalogState {
        &self.0.catalog
    }

    pub(crate) fn flags(&self) -> &app::flags::FlagState {
        &self.0.flags
    }

    pub(crate) fn reports(&self) -> &app::reports::ReportState {
        &self.0.reports
    }

    pub(crate) fn events(&self) -> &events::EventState {
        &self.0.events
    }

    pub(crate) fn calls(&self) -> &calls::CallState {
        &self.0.calls
    }

    /// Streams of events, which are bounded in number.
    pub(crate) fn event_streams(&self) -> &Arc<limits::Shares> {
        &self.0.event_streams
    }

    pub(crate) fn remote_leases(&self) -> &snapshot::RemoteLeases {
        &self.0.remote_leases
    }

    /// The probes of remote servers that go on here.
    pub(crate) fn probes(&self) -> &reconcile::remote::Probes {
        &self.0.probes
    }

    /// Turns to search the catalog.
    pub(crate) fn search_turns(&self) -> &limits::Turns {
        &self.0.search_turns
    }

    /// Turns to read what anybody may read.
    pub(crate) fn registry_turns(&self) -> &tokio::sync::Semaphore {
        &self.0.registry_turns
    }

    pub(crate) fn request_rates(&self) -> &limits::Rates {
        &self.0.request_rates
    }

    pub(crate) fn refusals(&self) -> &app::refusals::Refusals {
        &self.0.refusals
    }

    pub(crate) fn auth(&self) -> &auth::AuthState {
        &self.0.auth
    }
}
