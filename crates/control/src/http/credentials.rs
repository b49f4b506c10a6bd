//! Credentials.

use axum::extract::State;
use http::StatusCode;
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::api::identity::{Credential, PutCredential};
use toolyard_types::api::{Page, PageQuery};
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use crate::app::credentials;
use crate::{Caller, Control, Result};

const TAG: &str = "credentials";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::CredentialRead), routes!(list_credentials))
        .guarded(Access::Action(Action::CredentialRead), routes!(get_credential))
        .guarded(Access::Action(Action::CredentialManage), routes!(put_credential))
        .guarded(Access::Action(Action::CredentialManage), routes!(delete_credential))
}

/// List credentials, without their secrets.
#[utoipa::path(get, path = "/api/v1/credentials", tag = TAG, params(PageQuery),
    responses((status = 200, body = Page<Credential>)))]
async fn list_credentials(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Credential>>> {
    credentials::list(&control, &caller, &query).await.map(Json)
}

/// Get a credential, without its secret.
#[utoipa::path(get, path = "/api/v1/credentials/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 200, body = Credential)))]
async fn get_credential(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<Credential>> {
    credentials::get(&control, &caller, &name).await.map(Json)
}

/// Create a credential, or give it a new secret.
#[utoipa::path(put, path = "/api/v1/credentials/{name}", tag = TAG, params(("name" = Name, Path)),
    request_body = PutCredential, responses((status = 200, body = Credential)))]
async fn put_credential(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Json(body): Json<PutCredential>,
) -> Result<Json<Credential>> {
    credentials::put(&control, &caller, &name, &body).await.map(Json)
}

/// Delete a credential that no server uses.
#[utoipa::path(delete, path = "/api/v1/credentials/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 204)))]
async fn delete_credential(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<StatusCode> {
    credentials::delete(&control, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
