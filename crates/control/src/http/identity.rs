//! Sessions and `why`.

use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use toolyard_policy::Resource;
use toolyard_types::Secret;
use toolyard_types::access::Action;
use toolyard_types::api::identity::{ChangePassword, Reauthenticate, Session, SessionMcpKey, SignIn, Why};
use utoipa_axum::routes;

use super::client::ClientAddress;
use super::edge::RequestId;
use super::extract::{Json, Query};
use super::guard::{Access, Routes, same_origin};
use crate::app::identity::{self, About, Visitor};
use crate::auth::{cookie_name, device, session_token};
use crate::{Caller, Control, ControlError, Result};

const TAG: &str = "identity";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Public, routes!(create_session))
        .guarded(Access::SignedIn, routes!(get_session))
        .guarded(Access::SignedIn, routes!(delete_session))
        .guarded(Access::SignedIn, routes!(change_password))
        .guarded(Access::SignedIn, routes!(reauthenticate))
        .guarded(Access::SignedIn, routes!(create_mcp_key))
        .guarded(Access::Action(Action::PolicyExplain), routes!(why))
}

/// Sign in with e-mail address and password; the session comes as a cookie, and the one that the request came with ends.
#[utoipa::path(post, path = "/api/v1/session", tag = TAG, request_body = SignIn,
    responses((status = 201, body = Session)))]
async fn create_session(
    State(control): State<Control>,
    axum::Extension(request_id): axum::Extension<RequestId>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    Json(body): Json<SignIn>,
) -> Result<Response> {
    // A browser says where a request comes from; a page elsewhere must not sign somebody in here.
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        same_origin(&headers, control.options().public_url.as_deref())?;
    }
    let visitor = Visitor {
        address,
        device: device::of(&control, &headers),
        session: session_token(&control, &headers).map(Secret::new),
        request_id: Some(request_id.0.to_string()),
    };
    let signed_in = identity::sign_in(&control, &body, visitor).await?;
    let age = control.options().session_ttl.as_secs();
    let cookies = [
        (header::SET_COOKIE, session_cookie(&control, signed_in.token.expose(), age)?),
        (header::SET_COOKIE, device_cookie(&control, &signed_in.device)?),
    ];
    Ok((StatusCode::CREATED, AppendHeaders(cookies), Json(signed_in.session)).into_response())
}

/// Tell who is asking, and what they may do.
#[utoipa::path(get, path = "/api/v1/session", tag = TAG, responses((status = 200, body = Session)))]
async fn get_session(State(control): State<Control>, caller: Caller) -> Json<Session> {
    Json(identity::session(&control, &caller))
}

/// Sign out.
#[utoipa::path(delete, path = "/api/v1/session", tag = TAG, responses((status = 204)))]
async fn delete_session(State(control): State<Control>, caller: Caller) -> Result<Response> {
    identity::sign_out(&control, &caller).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session_cookie(&control, "", 0)?)]).into_response())
}

/// Give the password again: making API keys and members in a session needs it to have been given at most five minutes ago.
#[utoipa::path(post, path = "/api/v1/session/authentication", tag = TAG, request_body = Reauthenticate,
    responses((status = 200, body = Session)))]
async fn reauthenticate(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<Reauthenticate>,
) -> Result<Json<Session>> {
    identity::reauthenticate(&control, &caller, &body).await.map(Json)
}

/// Get a key for MCP calls from the browser, as the member who is signed in: for the console's playground.
///
/// Only a session gets one, and only by a request from the console's own origin. The key is good for MCP URLs alone
/// (`/mcp/...`), has the member's role, ends after at most 15 minutes and within a second of the session (sign-out,
/// another password, expiry), and is not among the API keys. A session has at most 8; a further one ends the oldest.
#[utoipa::path(post, path = "/api/v1/session/mcp-key", tag = TAG, responses((status = 201, body = SessionMcpKey)))]
async fn create_mcp_key(State(control): State<Control>, caller: Caller) -> Result<(StatusCode, Json<SessionMcpKey>)> {
    Ok((StatusCode::CREATED, Json(identity::mcp_key(&control, &caller).await?)))
}

/// Change one's own password, and with it one's e-mail address if wanted; every session ends, this one too, and with
/// `revoke_keys` the API keys that one made.
#[utoipa::path(put, path = "/api/v1/session/password", tag = TAG, request_body = ChangePassword,
    responses((status = 204)))]
async fn change_password(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<ChangePassword>,
) -> Result<Response> {
    let device = identity::change_password(&control, &caller, &body).await?;
    let cookies = [
        (header::SET_COOKIE, session_cookie(&control, "", 0)?),
        (header::SET_COOKIE, device_cookie(&control, &device)?),
    ];
    Ok((StatusCode::NO_CONTENT, AppendHeaders(cookies)).into_response())
}

fn session_cookie(control: &Control, token: &str, max_age_seconds: u64) -> Result<HeaderValue> {
    cookie(control, cookie_name(control.options().cookie_secure), token, max_age_seconds)
}

fn device_cookie(control: &Control, device: &str) -> Result<HeaderValue> {
    cookie(control, device::cookie_name(control.options().cookie_secure), device, device::KNOWN.as_secs())
}

fn cookie(control: &Control, name: &str, value: &str, max_age_seconds: u64) -> Result<HeaderValue> {
    let flags = if control.options().cookie_secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={max_age_seconds}{flags}");
    let mut value = HeaderValue::from_str(&text).map_err(ControlError::internal("making a cookie"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What `why` is asked.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    /// The action, such as `server:deploy`.
    action: Action,
    /// The resource: `organization`, `server/NAME`, `toolset/NAME`, `credential/NAME`, `api_key/own`, `api_key/other`,
    /// `member/owner` or `member/other`; `organization` when absent.
    resource: Option<String>,
    /// About a member, by id or e-mail address.
    member: Option<String>,
    /// About an API key, by id or name.
    key: Option<String>,
}

/// Ask why something is allowed or refused, to the caller, a member or a key.
#[utoipa::path(get, path = "/api/v1/why", tag = TAG, params(WhyQuery), responses((status = 200, body = Why)))]
async fn why(State(control): State<Control>, caller: Caller, Query(query): Query<WhyQuery>) -> Result<Json<Why>> {
    let about = match (query.member, query.key) {
        (None, None) => About::Caller,
        (Some(member), None) => About::Member(member),
        (None, Some(key)) => About::Key(key),
        (Some(_), Some(_)) => return Err(ControlError::field("key", "ask about a member or a key, not both")),
    };
    let resource = query.resource.as_deref().unwrap_or("organization");
    let resource: Resource = resource.parse().map_err(|message: String| ControlError::field("resource", message))?;
    identity::why(&control, &caller, query.action, &resource, &about).await.map(Json)
}
