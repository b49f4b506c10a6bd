//! How MCP clients are connected.

use axum::extract::State;
use http::{HeaderMap, header};
use serde::Deserialize;
use toolyard_policy::Resource;
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::api::connect::Connect;
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use crate::{Caller, Control, ControlError, Result, app, connect};

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::SignedIn, routes!(get_connect))
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ConnectQuery {
    /// The address that clients reach this Toolyard at, such as `https://toolyard.example`; `public_url` when absent,
    /// else the address of this request.
    base: Option<String>,
}

/// Get how to connect MCP clients to a server or a toolset: files, snippets, commands, links.
///
/// The API key is a placeholder in all of them: make one with `POST /api/v1/keys` and put it there.
#[utoipa::path(get, path = "/api/v1/connect/{name}", tag = "connect", params(("name" = Name, Path), ConnectQuery),
    responses((status = 200, body = Connect)))]
async fn get_connect(
    State(control): State<Control>,
    caller: Caller,
    headers: HeaderMap,
    Path(name): Path<Name>,
    Query(query): Query<ConnectQuery>,
) -> Result<Json<Connect>> {
    let unknown = || ControlError::NotFound(format!("server or toolset `{name}`"));
    let tx = control.store().org_read(caller.organization).await?;
    let kind = tx.name_holder(&name).await?.ok_or_else(unknown)?;
    drop(tx);
    let (action, resource, plural) = match kind.as_str() {
        "toolset" => (Action::ToolsetRead, Resource::Toolset(name.clone()), "toolsets"),
        _ => (Action::ServerRead, Resource::Server(name.clone()), "servers"),
    };
    app::allow(&control, &caller, action, &resource).map_err(|_| unknown())?;
    let base = base(&control, &headers, query.base)?;
    let url = format!("{base}/mcp/{}/{plural}/{name}", caller.organization_name);
    let server_name = format!("toolyard-{name}");
    let clients = connect::clients(&server_name, &url);
    let key_placeholder = connect::KEY_PLACEHOLDER.to_owned();
    Ok(Json(Connect { name, kind, url, server_name, key_placeholder, clients }))
}

/// The address that clients reach us at, without a slash at the end.
fn base(control: &Control, headers: &HeaderMap, asked: Option<String>) -> Result<String> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    let given = asked.or_else(|| control.options().public_url.clone());
    let scheme = if control.options().cookie_secure { "https" } else { "http" };
    let text = given.unwrap_or_else(|| format!("{scheme}://{host}"));
    let wrong = || ControlError::field("base", "must be an address such as `https://toolyard.example`");
    let url = reqwest::Url::parse(&text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong());
    }
    Ok(format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')))
}
