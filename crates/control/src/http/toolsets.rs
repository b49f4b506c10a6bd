//! Toolsets.

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::api::servers::{PutToolset, Toolset};
use toolyard_types::api::{Page, PageQuery};
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use super::servers::if_match;
use crate::app::toolsets;
use crate::{Caller, Control, Result};

const TAG: &str = "toolsets";

pub(super) fn routes() -> Routes {
    let action = Access::Action;
    Routes::new()
        .guarded(action(Action::ToolsetRead), routes!(list_toolsets))
        .guarded(action(Action::ToolsetManage), routes!(create_toolset))
        .guarded(action(Action::ToolsetRead), routes!(get_toolset))
        .guarded(action(Action::ToolsetManage), routes!(replace_toolset))
        .guarded(action(Action::ToolsetManage), routes!(delete_toolset))
}

/// List toolsets by name.
#[utoipa::path(get, path = "/api/v1/toolsets", tag = TAG, params(PageQuery),
    responses((status = 200, body = Page<Toolset>)))]
async fn list_toolsets(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Toolset>>> {
    toolsets::list(&control, &caller, &query).await.map(Json)
}

/// Create a toolset.
#[utoipa::path(post, path = "/api/v1/toolsets", tag = TAG, request_body = PutToolset,
    params(("Idempotency-Key" = Option<String>, Header)), responses((status = 201, body = Toolset)))]
async fn create_toolset(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<PutToolset>,
) -> Result<(StatusCode, Json<Toolset>)> {
    Ok((StatusCode::CREATED, Json(toolsets::create(&control, &caller, body).await?)))
}

/// Get a toolset.
#[utoipa::path(get, path = "/api/v1/toolsets/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Toolset)))]
async fn get_toolset(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Json<Toolset>> {
    toolsets::get(&control, &caller, &name).await.map(Json)
}

/// Replace what a toolset holds.
#[utoipa::path(put, path = "/api/v1/toolsets/{name}", tag = TAG, request_body = PutToolset,
    params(("name" = Name, Path), ("If-Match" = Option<String>, Header)), responses((status = 200, body = Toolset)))]
async fn replace_toolset(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    headers: HeaderMap,
    Json(body): Json<PutToolset>,
) -> Result<Json<Toolset>> {
    toolsets::replace(&control, &caller, &name, body, if_match(&headers)).await.map(Json)
}

/// Delete a toolset; its servers stay.
#[utoipa::path(delete, path = "/api/v1/toolsets/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 204)))]
async fn delete_toolset(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<StatusCode> {
    toolsets::delete(&control, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
