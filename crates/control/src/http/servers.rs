//! Servers, their revisions, rollouts and logs.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use toolyard_policy::Resource;
use toolyard_store::ServerSort;
use toolyard_types::access::Action;
use toolyard_types::api::servers::{
    CloneServer, CreateServer, Revision, RollbackServer, Rollout, Server, UpdateServer,
};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::state::Phase;
use toolyard_types::{InstanceId, Name};
use utoipa_axum::routes;

use super::events;
use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use crate::app::logs::{self, Wanted};
use crate::app::server_list::{self, ServersWanted};
use crate::app::{rollouts, servers};
use crate::limits::Share;
use crate::{Caller, Control, ControlError, Result};

const TAG: &str = "servers";
/// Whose log a log begins with.
const LOG_INSTANCE: &str = "toolyard-instance";
const LOG_REVISION: &str = "toolyard-revision";

pub(super) fn routes() -> Routes {
    let action = Access::Action;
    Routes::new()
        .guarded(action(Action::ServerRead), routes!(list_servers))
        .guarded(action(Action::ServerDeploy), routes!(create_server))
        .guarded(action(Action::ServerRead), routes!(get_server))
        .guarded(action(Action::ServerDeploy), routes!(update_server))
        .guarded(action(Action::ServerDelete), routes!(delete_server))
        .guarded(action(Action::ServerOperate), routes!(start_server))
        .guarded(action(Action::ServerOperate), routes!(stop_server))
        .guarded(action(Action::ServerOperate), routes!(restart_server))
        .guarded(action(Action::ServerDeploy), routes!(rollback_server))
        .guarded(action(Action::ServerDeploy), routes!(clone_server))
        .guarded(action(Action::ServerRead), routes!(list_revisions))
        .guarded(action(Action::ServerRead), routes!(get_rollout))
        .guarded(action(Action::ServerOperate), routes!(cancel_rollout))
        .guarded(action(Action::ServerDeploy), routes!(promote_rollout))
        .guarded(action(Action::ServerLogs), routes!(get_logs))
}

/// A server with its `ETag`.
fn tagged(status: StatusCode, server: Server) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", server.etag)).ok();
    let mut response = (status, Json(server)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What `If-Match` asks for.
pub(super) fn if_match(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok())
}

/// In which order servers are listed; a `-` turns it around.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
enum SortQuery {
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDescending,
    #[serde(rename = "created_at")]
    Created,
    #[serde(rename = "-created_at")]
    CreatedDescending,
}

impl From<SortQuery> for ServerSort {
    fn from(sort: SortQuery) -> Self {
        match sort {
            SortQuery::Name => Self::Name,
            SortQuery::NameDescending => Self::NameDescending,
            SortQuery::Created => Self::Created,
            SortQuery::CreatedDescending => Self::CreatedDescending,
        }
    }
}

/// Which servers to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ServerQuery {
    /// Only those with this in their name or entry.
    search: Option<String>,
    /// Only those in this phase.
    phase: Option<Phase>,
    /// Only those that run on this toolbox, or must.
    toolbox: Option<Name>,
    /// In this order; by name when absent. A cursor is of one order.
    #[param(inline)]
    sort: Option<SortQuery>,
    /// `true` to leave out what is long and of interest one server at a time: the logs of rollouts, the names of
    /// tools.
    brief: Option<bool>,
    /// How many at most, 1 to 500; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List servers.
#[utoipa::path(get, path = "/api/v1/servers", tag = TAG, params(ServerQuery),
    responses((status = 200, body = Page<Server>)))]
async fn list_servers(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<ServerQuery>,
) -> Result<Json<Page<Server>>> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = ServersWanted {
        search: query.search,
        phase: query.phase,
        toolbox: query.toolbox,
        sort: query.sort.map(ServerSort::from).unwrap_or_default(),
    };
    let mut page = server_list::list(&control, &caller, &page, &wanted).await?;
    if query.brief == Some(true) {
        page.items.iter_mut().for_each(shorten);
    }
    Ok(Json(page))
}

/// Takes out what a list of many servers does not show.
fn shorten(server: &mut Server) {
    if let Some(rollout) = &mut server.rollout {
        rollout.log.clear();
    }
    for mcp in server.instances.iter_mut().filter_map(|instance| instance.mcp.as_mut()) {
        mcp.tool_names.clear();
    }
}

/// Create a server from a catalog entry or a URL, and start it.
#[utoipa::path(post, path = "/api/v1/servers", tag = TAG, request_body = CreateServer,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = Server)))]
async fn create_server(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<CreateServer>,
) -> Result<Response> {
    Ok(tagged(StatusCode::CREATED, servers::create(&control, &caller, body).await?))
}

/// Get a server.
#[utoipa::path(get, path = "/api/v1/servers/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Server)))]
async fn get_server(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Response> {
    Ok(tagged(StatusCode::OK, servers::get(&control, &caller, &name).await?))
}

/// Change a server: a new revision and a rollout to it; nothing when nothing changes.
#[utoipa::path(patch, path = "/api/v1/servers/{name}", tag = TAG, request_body = UpdateServer,
    params(("name" = Name, Path), ("If-Match" = Option<String>, Header)), responses((status = 202, body = Server)))]
async fn update_server(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    headers: HeaderMap,
    Json(body): Json<UpdateServer>,
) -> Result<Response> {
    Ok(tagged(StatusCode::ACCEPTED, servers::update(&control, &caller, &name, body, if_match(&headers)).await?))
}

/// Delete a server: it is gone once the end of its instances was observed.
#[utoipa::path(delete, path = "/api/v1/servers/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 202, body = Server)))]
async fn delete_server(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Response> {
    Ok(tagged(StatusCode::ACCEPTED, servers::delete(&control, &caller, &name).await?))
}

/// Start a server.
#[utoipa::path(post, path = "/api/v1/servers/{name}/start", tag = TAG, params(("name" = Name, Path)),
    responses((status = 202, body = Server)))]
async fn start_server(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Response> {
    Ok(tagged(StatusCode::ACCEPTED, rollouts::start(&control, &caller, &name).await?))
}

/// Stop a server.
#[utoipa::path(post, path = "/api/v1/servers/{name}/stop", tag = TAG, params(("name" = Name, Path)),
    responses((status = 202, body = Server)))]
async fn stop_server(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Response> {
    Ok(tagged(StatusCode::ACCEPTED, rollouts::stop(&control, &caller, &name).await?))
}

/// Replace what serves by a new instance of the same revision.
#[utoipa::path(post, path = "/api/v1/servers/{name}/restart", tag = TAG, params(("name" = Name, Path)),
    responses((status = 202, body = Server)))]
async fn restart_server(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Response> {
    Ok(tagged(StatusCode::ACCEPTED, rollouts::restart(&control, &caller, &name).await?))
}

/// Point a server back to an earlier revision.
#[utoipa::path(post, path = "/api/v1/servers/{name}/rollback", tag = TAG, params(("name" = Name, Path)),
    request_body(content = Option<RollbackServer>), responses((status = 202, body = Server)))]
async fn rollback_server(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    body: Option<Json<RollbackServer>>,
) -> Result<Response> {
    let request = body.map(|Json(body)| body).unwrap_or_default();
    Ok(tagged(StatusCode::ACCEPTED, rollouts::rollback(&control, &caller, &name, &request).await?))
}

/// Copy a server under a new name; its credentials are shared.
#[utoipa::path(post, path = "/api/v1/servers/{name}/clone", tag = TAG, request_body = CloneServer,
    params(("name" = Name, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Server)))]
async fn clone_server(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Json(body): Json<CloneServer>,
) -> Result<Response> {
    Ok(tagged(StatusCode::CREATED, servers::clone(&control, &caller, &name, body).await?))
}

/// List a server's revisions, newest first.
#[utoipa::path(get, path = "/api/v1/servers/{name}/revisions", tag = TAG, params(("name" = Name, Path), PageQuery),
    responses((status = 200, body = Page<Revision>)))]
async fn list_revisions(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Revision>>> {
    servers::revisions(&control, &caller, &name, &query).await.map(Json)
}

/// Get the rollout under way, or the last one.
#[utoipa::path(get, path = "/api/v1/servers/{name}/rollout", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Rollout)))]
async fn get_rollout(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Json<Rollout>> {
    rollouts::get(&control, &caller, &name).await.map(Json)
}

/// Cancel the rollout under way: what served serves on, or again.
#[utoipa::path(post, path = "/api/v1/servers/{name}/rollout/cancel", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Rollout)))]
async fn cancel_rollout(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Rollout>> {
    rollouts::cancel(&control, &caller, &name).await.map(Json)
}

/// Let the revision that is tried as a canary serve.
#[utoipa::path(post, path = "/api/v1/servers/{name}/rollout/promote", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Rollout)))]
async fn promote_rollout(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Rollout>> {
    rollouts::promote_canary(&control, &caller, &name).await.map(Json)
}

/// Which log lines.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// How many of the last lines, at most 10000; 200 when absent.
    #[param(maximum = 10000)]
    tail: Option<u32>,
    /// Whether to go on with lines as they are written.
    follow: Option<bool>,
    /// Of which instance; the one that serves when absent, or the newest when none does.
    instance: Option<InstanceId>,
    /// Of an instance of this revision.
    revision: Option<u32>,
    /// Whether that of the instance that ended last is meant: of a deployment that failed, or of what ran before.
    previous: Option<bool>,
}

/// Read a server's log: one JSON object a line, as the toolbox's agent has it.
///
/// The log of an instance that is gone is kept for a while, for each revision; that of a package that could not be resolved
/// too. With `follow` and no choice made, the log goes on with the next instance when this one is gone. It ends with the server,
/// or with the instance that was chosen; where it breaks off before, as when Toolyard stops, it can be asked for again. The
/// headers `toolyard-instance` and `toolyard-revision` tell whose log it begins with, and the line before another instance's
/// log names it in `instance`. While the agent that has the log is not connected the answer is `server_not_ready`, and can be
/// asked for again; where the log stayed on a toolbox that was removed it is `conflict`.
#[utoipa::path(get, path = "/api/v1/servers/{name}/logs", tag = TAG, params(("name" = Name, Path), LogQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = toolyard_types::agent::LogLine)))]
async fn get_logs(
    State(control): State<Control>,
    caller: Caller,
    headers: HeaderMap,
    Path(name): Path<Name>,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    let tail = query.tail.unwrap_or(200);
    if tail > 10_000 {
        return Err(ControlError::field("tail", "must be at most 10000"));
    }
    let wanted =
        Wanted { instance: query.instance, revision: query.revision, previous: query.previous.unwrap_or(false) };
    let logged = logs::find(&control, caller.organization, &name, wanted).await?;
    let follow = query.follow.unwrap_or(false);
    let share = follow.then(|| control.event_streams().take(&caller, "event streams and followed logs")).transpose()?;
    let mut body = logs::open(&control, &logged, tail, follow).await?;
    let (instance, revision) = (logged.instance(), logged.revision);
    if follow {
        let chosen = wanted.instance.is_some() || wanted.revision.is_some() || wanted.previous;
        if !chosen {
            let (control, name) = (control.clone(), name.clone());
            body = Body::from_stream(logs::on_and_on(control, caller.organization, name, logged, body));
        }
        let resource = Resource::Server(name);
        let end = events::refused_from_now_on(control, caller, headers, Action::ServerLogs, resource);
        body = Body::from_stream(cut_off(body, end, share));
    }
    let head = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (head, body).into_response();
    response.headers_mut().insert(LOG_REVISION, revision.into());
    if let Some(id) = instance.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        response.headers_mut().insert(LOG_INSTANCE, id);
    }
    Ok(response)
}

/// A followed log breaks off.
#[derive(Debug, thiserror::Error)]
#[error("whoever reads the log may no longer, or Toolyard stops")]
struct CutOff;

/// A body that breaks off when `end` comes: what ends without that is over.
fn cut_off(
    body: Body,
    end: impl Future<Output = ()> + Send + 'static,
    share: Option<Share>,
) -> impl Stream<Item = std::result::Result<Bytes, axum::Error>> + Send {
    async_stream::stream! {
        let _share = share;
        let mut pieces = body.into_data_stream();
        let mut end = Box::pin(end);
        loop {
            let piece = tokio::select! {
                biased;
                () = &mut end => Some(Err(axum::Error::new(CutOff))),
                piece = pieces.next() => piece,
            };
            let Some(piece) = piece else { return };
            let is_last = piece.is_err();
            yield piece;
            if is_last {
                return;
            }
        }
    }
}
