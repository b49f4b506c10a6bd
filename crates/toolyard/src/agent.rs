//! `toolyard dtma`: the agent of a toolbox alone, as a process that dials out.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use toolyard_dtma::{Agent, Shutdown};
use toolyard_types::Secret;
use toolyard_types::agent::JoinToken;

use crate::cli::{DtmaArgs, EXIT_CONFIG};
use crate::config::{self, Settings};
use crate::serve::{Stop, stop_signal};
use crate::{local, telemetry};

/// Longest pause before a broken link is dialled again.
const REDIAL: Duration = Duration::from_secs(5);

/// Runs the agent until it is told to stop.
pub(crate) async fn main(args: &DtmaArgs) -> ExitCode {
    let environment = config::process_environment();
    let loaded = match config::load(&environment, Path::new("."), &args.overrides()) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.0.iter().for_each(|problem| eprintln!("toolyard: {problem}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match run(&loaded.settings, &args.token).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("toolyard: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings, token: &str) -> Result<(), String> {
    let stopped = stop_signal();
    telemetry::start_logs(settings)?;
    let token = join_token(token)?;
    let address = token.addresses.first().ok_or("the token names no control plane")?;
    let control =
        toolyard_link::dialled(address).map_err(|_| format!("the token's address `{address}` is not a URL"))?;
    let environment = config::process_environment();
    let options =
        local::agent_options(settings, &environment, settings.data_dir.clone(), control, Some(token.secret.clone()))?;
    let agent = Agent::start(options).await.map_err(|error| chain(&error))?;
    tracing::info!(control = address, "agent started");

    let stop = CancellationToken::new();
    let links = tokio::spawn(keep_links(agent.links(), token.secret, agent.router(), stop.clone()));
    let mode = stopped.await;
    stop.cancel();
    let _ = links.await;
    let mode = if mode == Stop::Everything { Shutdown::StopAll } else { Shutdown::Leave };
    agent.shutdown(mode).await;
    Ok(())
}

fn join_token(text: &str) -> Result<JoinToken, String> {
    let broken = || "the token is not one that `toolyard toolboxes enroll` printed; copy all of it".to_owned();
    let json = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| broken())?;
    let token: JoinToken = serde_json::from_slice(&json).map_err(|_| broken())?;
    if token.v != 1 {
        return Err(format!("the token is of version {}; upgrade this toolyard", token.v));
    }
    Ok(token)
}

/// Keeps one link to every gateway that the control plane names.
async fn keep_links(
    mut addresses: tokio::sync::watch::Receiver<Vec<String>>,
    token: Secret,
    router: axum::Router,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let now = addresses.borrow_and_update().clone();
        let round = stop.child_token();
        let tracker = tokio_util::task::TaskTracker::new();
        for address in now {
            tracker.spawn(keep_link(address, token.clone(), router.clone(), round.clone()));
        }
        tracker.close();
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
        round.cancel();
        tracker.wait().await;
    }
}

async fn keep_link(address: String, token: Secret, router: axum::Router, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = toolyard_link::dial_and_serve(&address, Some(&token), router.clone(), &stop).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "link not made; trying again");
        }
        let pause = REDIAL.mul_f64(rand::rng().random_range(0.2..1.0));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
