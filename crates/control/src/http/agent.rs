//! The agents' API. An agent in the same process is known by an extension that only its router can set, any other
//! one by the certificate of its connection, which only the TLS listener can set. Joining needs neither; renewing a
//! certificate that has ended needs it and its key.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::Extensions;
use serde::de::DeserializeOwned;
use toolyard_link::tls::PeerCertificate;
use toolyard_types::agent::{AgentCertificate, CertificateRequest, JoinRequest, SyncRequest, SyncResponse};
use toolyard_types::{Code, ToolboxId};

use super::edge::{RequestId, SYNC_PATH};
use crate::app::agents::{self, Agent, LinkAdmission};
use crate::{Control, ControlError, Result};

/// The largest sync; 10,000 instances with their last lines fit.
const LARGEST_SYNC: usize = 32 << 20;
/// The largest of the other requests.
const LARGEST: usize = 16 << 10;

/// Put into a request's extensions by whoever knows which toolbox's agent sends it. It cannot come from a wire.
#[derive(Clone, Copy, Debug)]
pub struct AgentIdentity(pub ToolboxId);

impl Control {
    /// Answers an agent that dials a link: with a new protocol, or with `certificate_required` when it has no
    /// certificate, `certificate_revoked` when that was revoked or replaced, or is found to be used by two, and
    /// `toolbox_removed` when its toolbox was.
    pub async fn accept_link(&self, request: Request) -> Response {
        let Some(certificate) = request.extensions().get::<PeerCertificate>().copied() else {
            return agents::no_certificate().into_response();
        };
        let admitted = agents::admit_link(self, &certificate, toolyard_link::agent_run(request.headers())).await;
        match admitted {
            Ok(LinkAdmission::Verified) => self.links().accept(certificate, request),
            Ok(LinkAdmission::Unverified) => self.links().accept_unverified(certificate, request),
            Err(error) => error.into_response(),
        }
    }
}

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/dtma/v1/join", post(join))
        .route("/dtma/v1/certificate", post(renew))
        .route(SYNC_PATH, post(sync))
}

async fn join(State(control): State<Control>, request: Request) -> Result<Json<AgentCertificate>> {
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.to_string());
    let request: JoinRequest = read(request, LARGEST).await?;
    agents::join(&control, request, request_id).await.map(Json)
}

async fn renew(State(control): State<Control>, request: Request) -> Result<Json<AgentCertificate>> {
    let certificate = request.extensions().get::<PeerCertificate>().copied();
    let request: CertificateRequest = read(request, LARGEST).await?;
    agents::renew(&control, certificate, &request).await.map(Json)
}

async fn sync(State(control): State<Control>, request: Request) -> Result<Json<SyncResponse>> {
    let agent = identify(&control, request.extensions()).await?;
    let run = toolyard_link::agent_run(request.headers()).map(str::to_owned);
    // Before the run is counted: `dtma doctor` asks with nothing, beside its agent.
    let request: SyncRequest = read(request, LARGEST_SYNC).await?;
    agents::one_at_a_time(&control, agent, run.as_deref()).await?;
    crate::app::sync::sync(&control, agent, request).await.map(Json)
}

async fn read<T: DeserializeOwned>(request: Request, largest: usize) -> Result<T> {
    let body = super::extract::read_at_most(request.into_body(), largest).await?;
    // What servers print is among what an agent tells: refused once, it would be refused for ever.
    let body = super::extract::without_nul(body);
    serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body cannot be read at line {}, column {}", error.line(), error.column());
        ControlError::problem(Code::InvalidJson, detail)
    })
}

async fn identify(control: &Control, extensions: &Extensions) -> Result<Agent> {
    if let Some(AgentIdentity(toolbox)) = extensions.get() {
        return agents::owner(control, *toolbox).await;
    }
    agents::admit(control, extensions.get().ok_or_else(agents::no_certificate)?).await
}
