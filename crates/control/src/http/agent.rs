//! The agents' API. An agent in the same process is known by an extension that only its router can set, any
//! other one by the secret of its token.

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router};
use http::header;
use http::request::Parts;
use toolyard_types::agent::{SyncRequest, SyncResponse};
use toolyard_types::{Code, OrganizationId, ToolboxId};

use crate::app::agents;
use crate::{Control, ControlError, Result};

/// The largest sync; 10,000 instances with their last lines fit.
const LARGEST_SYNC: usize = 32 << 20;

/// Put into a request's extensions by whoever knows which toolbox's agent sends it. It cannot come from a wire.
#[derive(Clone, Copy, Debug)]
pub struct AgentIdentity(pub ToolboxId);

impl Control {
    /// Which toolbox's agent sends this: for a listener that links come in on.
    ///
    /// # Errors
    /// `unauthenticated` when it carries no known token.
    pub async fn agent_identity(&self, request: Request) -> Result<(AgentIdentity, Request)> {
        let (parts, body) = request.into_parts();
        let (_, toolbox) = identify(self, &parts).await?;
        Ok((AgentIdentity(toolbox), Request::from_parts(parts, body)))
    }
}

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/dtma/v1/sync", post(sync))
}

async fn sync(State(control): State<Control>, request: Request) -> Result<Json<SyncResponse>> {
    let (parts, body) = request.into_parts();
    let agent = identify(&control, &parts).await?;
    let body = axum::body::to_bytes(body, LARGEST_SYNC).await.map_err(|_| {
        ControlError::problem(Code::PayloadTooLarge, format!("a sync may have at most {LARGEST_SYNC} bytes"))
    })?;
    let request: SyncRequest = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the sync cannot be read at line {}, column {}", error.line(), error.column());
        ControlError::problem(Code::InvalidJson, detail)
    })?;
    agents::sync(&control, agent, request).await.map(Json)
}

async fn identify(control: &Control, parts: &Parts) -> Result<(OrganizationId, ToolboxId)> {
    if let Some(AgentIdentity(toolbox)) = parts.extensions.get() {
        return agents::owner(control, *toolbox).await;
    }
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = authorization.and_then(|value| value.strip_prefix("Bearer ")).filter(|secret| secret.len() <= 256);
    let Some(secret) = secret else {
        return Err(ControlError::Unauthenticated("send the agent's token as `Authorization: Bearer`".to_owned()));
    };
    agents::authenticate(control, secret).await
}
