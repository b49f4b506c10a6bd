//! API keys.

use axum::extract::State;
use http::StatusCode;
use toolyard_types::ApiKeyId;
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::identity::{ApiKey, CreateApiKey, CreatedApiKey, KeysQuery, RotateApiKey};
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use crate::app::keys;
use crate::{Caller, Control, Result};

const TAG: &str = "keys";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::KeyRead), routes!(list_keys))
        .guarded(Access::Action(Action::KeyRead), routes!(get_key))
        .guarded(Access::Action(Action::KeyManage), routes!(create_key))
        .guarded(Access::Action(Action::KeyManage), routes!(rotate_key))
        .guarded(Access::Action(Action::KeyManage), routes!(delete_key))
}

/// List API keys: all, or only one's own. With `made_by` those of somebody, and the keys made with these.
#[utoipa::path(get, path = "/api/v1/keys", tag = TAG, params(KeysQuery),
    responses((status = 200, body = Page<ApiKey>)))]
async fn list_keys(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<KeysQuery>,
) -> Result<Json<Page<ApiKey>>> {
    keys::list(&control, &caller, &query).await.map(Json)
}

/// Create an API key. The answer is the only time it is shown.
///
/// One made with another key ends when that is revoked. In a session the password must have been given in the last five
/// minutes: else `reauthentication_required`, see `POST /api/v1/session/authentication`.
#[utoipa::path(post, path = "/api/v1/keys", tag = TAG, request_body = CreateApiKey,
    responses((status = 201, body = CreatedApiKey)))]
async fn create_key(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<CreateApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>)> {
    Ok((StatusCode::CREATED, Json(keys::create(&control, &caller, &body).await?)))
}

/// Get an API key, without the key itself.
#[utoipa::path(get, path = "/api/v1/keys/{id}", tag = TAG, params(("id" = ApiKeyId, Path)),
    responses((status = 200, body = ApiKey)))]
async fn get_key(State(control): State<Control>, caller: Caller, Path(id): Path<ApiKeyId>) -> Result<Json<ApiKey>> {
    keys::get(&control, &caller, id).await.map(Json)
}

/// Give an API key another secret. The answer is the only time it is shown.
///
/// Its id, name, role and scope stay, and the keys made with it go on to work. The secret until now ends at once, or after
/// `overlap_seconds`, in which it calls tools and reads, and is refused everything else. In a session the password must have
/// been given in the last five minutes.
#[utoipa::path(post, path = "/api/v1/keys/{id}/rotate", tag = TAG, params(("id" = ApiKeyId, Path)),
    request_body = RotateApiKey, responses((status = 200, body = CreatedApiKey)))]
async fn rotate_key(
    State(control): State<Control>,
    caller: Caller,
    Path(id): Path<ApiKeyId>,
    body: Option<Json<RotateApiKey>>,
) -> Result<Json<CreatedApiKey>> {
    let body = body.map(|Json(body)| body).unwrap_or_default();
    keys::rotate(&control, &caller, id, &body).await.map(Json)
}

/// Revoke an API key, and every key made with it: `GET /api/v1/keys?made_by=api_key:<id>&active=true` lists those first.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = TAG, params(("id" = ApiKeyId, Path)),
    responses((status = 204)))]
async fn delete_key(State(control): State<Control>, caller: Caller, Path(id): Path<ApiKeyId>) -> Result<StatusCode> {
    keys::revoke(&control, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
