//! Members.

use axum::extract::State;
use http::StatusCode;
use toolyard_types::UserId;
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::identity::{CreateMember, Member, UpdateMember};
use utoipa_axum::routes;

use super::extract::{Json, Path};
use super::guard::{Access, Routes};
use crate::app::members;
use crate::{Caller, Control, Result};

const TAG: &str = "members";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::MemberRead), routes!(list_members))
        .guarded(Access::Action(Action::MemberRead), routes!(get_member))
        .guarded(Access::Action(Action::MemberManage), routes!(create_member))
        .guarded(Access::Action(Action::MemberManage), routes!(update_member))
        .guarded(Access::Action(Action::MemberManage), routes!(delete_member))
}

/// List the members.
#[utoipa::path(get, path = "/api/v1/members", tag = TAG, responses((status = 200, body = Page<Member>)))]
async fn list_members(State(control): State<Control>, caller: Caller) -> Result<Json<Page<Member>>> {
    members::list(&control, &caller).await.map(Json)
}

/// Add a member with a first password. Needs every action of the member's role, which a narrowed key may lack. In a session
/// one's own password must have been given in the last five minutes.
#[utoipa::path(post, path = "/api/v1/members", tag = TAG, request_body = CreateMember,
    responses((status = 201, body = Member)))]
async fn create_member(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<CreateMember>,
) -> Result<(StatusCode, Json<Member>)> {
    Ok((StatusCode::CREATED, Json(members::create(&control, &caller, &body).await?)))
}

/// Get a member.
#[utoipa::path(get, path = "/api/v1/members/{id}", tag = TAG, params(("id" = UserId, Path)),
    responses((status = 200, body = Member)))]
async fn get_member(State(control): State<Control>, caller: Caller, Path(id): Path<UserId>) -> Result<Json<Member>> {
    members::get(&control, &caller, id).await.map(Json)
}

/// Change a member's role or password. Needs every action of the member's role, until now and from now on, which a narrowed
/// key may lack. In a session one's own password must have been given in the last five minutes.
#[utoipa::path(patch, path = "/api/v1/members/{id}", tag = TAG, params(("id" = UserId, Path)),
    request_body = UpdateMember, responses((status = 200, body = Member)))]
async fn update_member(
    State(control): State<Control>,
    caller: Caller,
    Path(id): Path<UserId>,
    Json(body): Json<UpdateMember>,
) -> Result<Json<Member>> {
    members::update(&control, &caller, id, &body).await.map(Json)
}

/// Remove a member, with their sessions and keys.
#[utoipa::path(delete, path = "/api/v1/members/{id}", tag = TAG, params(("id" = UserId, Path)),
    responses((status = 204)))]
async fn delete_member(State(control): State<Control>, caller: Caller, Path(id): Path<UserId>) -> Result<StatusCode> {
    members::delete(&control, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
