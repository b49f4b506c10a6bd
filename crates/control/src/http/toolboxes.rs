//! Toolboxes.

use axum::extract::State;
use http::StatusCode;
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::servers::{EnrollToolbox, EnrolledToolbox, RejoinToolbox, Toolbox, UpdateToolbox};
use utoipa_axum::routes;

use super::extract::{Json, Path};
use super::guard::{Access, Routes};
use crate::app::toolboxes;
use crate::{Caller, Control, Result};

const TAG: &str = "toolboxes";

pub(super) fn routes() -> Routes {
    let action = Access::Action;
    Routes::new()
        .guarded(action(Action::ToolboxRead), routes!(list_toolboxes))
        .guarded(action(Action::ToolboxManage), routes!(enroll_toolbox))
        .guarded(action(Action::ToolboxRead), routes!(get_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(update_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(remove_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(rejoin_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(revoke_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(drain_toolbox))
        .guarded(action(Action::ToolboxManage), routes!(resume_toolbox))
}

/// List toolboxes.
#[utoipa::path(get, path = "/api/v1/toolboxes", tag = TAG, responses((status = 200, body = Page<Toolbox>)))]
async fn list_toolboxes(State(control): State<Control>, caller: Caller) -> Result<Json<Page<Toolbox>>> {
    toolboxes::list(&control, &caller).await.map(Json)
}

/// Make a toolbox and a token for its agent, which is shown only now.
#[utoipa::path(post, path = "/api/v1/toolboxes", tag = TAG, request_body = EnrollToolbox,
    responses((status = 201, body = EnrolledToolbox)))]
async fn enroll_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<EnrollToolbox>,
) -> Result<(StatusCode, Json<EnrolledToolbox>)> {
    Ok((StatusCode::CREATED, Json(toolboxes::enroll(&control, &caller, body).await?)))
}

/// Get a toolbox.
#[utoipa::path(get, path = "/api/v1/toolboxes/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Toolbox)))]
async fn get_toolbox(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<Json<Toolbox>> {
    toolboxes::get(&control, &caller, &name).await.map(Json)
}

/// Change a toolbox's labels.
#[utoipa::path(patch, path = "/api/v1/toolboxes/{name}", tag = TAG, params(("name" = Name, Path)),
    request_body = UpdateToolbox, responses((status = 200, body = Toolbox)))]
async fn update_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Json(body): Json<UpdateToolbox>,
) -> Result<Json<Toolbox>> {
    toolboxes::update(&control, &caller, &name, body).await.map(Json)
}

/// Make another token for a toolbox, which is shown only now.
#[utoipa::path(post, path = "/api/v1/toolboxes/{name}/rejoin", tag = TAG, params(("name" = Name, Path)),
    request_body = RejoinToolbox, responses((status = 200, body = EnrolledToolbox)))]
async fn rejoin_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Json(body): Json<RejoinToolbox>,
) -> Result<Json<EnrolledToolbox>> {
    toolboxes::rejoin(&control, &caller, &name, &body).await.map(Json)
}

/// End a toolbox's certificates and close its connections. It may join again with a new token.
#[utoipa::path(post, path = "/api/v1/toolboxes/{name}/revoke", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Toolbox)))]
async fn revoke_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Toolbox>> {
    toolboxes::revoke(&control, &caller, &name).await.map(Json)
}

/// Remove a toolbox: its certificates end, its instances are placed elsewhere. What runs there ends as soon as its agent hears of it; one that is away goes on until then.
#[utoipa::path(delete, path = "/api/v1/toolboxes/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 204)))]
async fn remove_toolbox(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<StatusCode> {
    toolboxes::remove(&control, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Place nothing new on a toolbox.
#[utoipa::path(post, path = "/api/v1/toolboxes/{name}/drain", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Toolbox)))]
async fn drain_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Toolbox>> {
    toolboxes::drain(&control, &caller, &name, true).await.map(Json)
}

/// Place things on a drained toolbox again.
#[utoipa::path(post, path = "/api/v1/toolboxes/{name}/resume", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Toolbox)))]
async fn resume_toolbox(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Toolbox>> {
    toolboxes::drain(&control, &caller, &name, false).await.map(Json)
}
