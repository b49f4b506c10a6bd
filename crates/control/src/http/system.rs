//! Version and API document.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use http::header;
use toolyard_types::access::Action;
use toolyard_types::api::system::{Readiness, Version};
use utoipa_axum::routes;

use super::extract::Json;
use super::guard::{Access, Routes};
use crate::Control;

const TAG: &str = "system";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Public, routes!(get_version))
        .guarded(Access::Public, routes!(get_openapi))
        .guarded(Access::Action(Action::ToolboxRead), routes!(get_readiness))
}

/// Tell the version, the environment and how Toolyard runs here.
#[utoipa::path(get, path = "/api/v1/version", tag = TAG, responses((status = 200, body = Version)))]
async fn get_version(State(control): State<Control>) -> Json<Version> {
    let options = control.options();
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: options.environment.clone(),
        deployment_target: options.deployment_target.clone(),
        api: "v1".to_owned(),
        database: control.store().backend_name().to_owned(),
    })
}

/// Tell whether the replica that answers is ready, in three parts: the gateway serves, writes last, the control plane
/// works.
#[utoipa::path(get, path = "/api/v1/readiness", tag = TAG, responses((status = 200, body = Readiness)))]
async fn get_readiness(State(control): State<Control>) -> Json<Readiness> {
    Json(control.readiness())
}

/// Get this API's description (OpenAPI 3.1).
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = TAG, responses((status = 200, body = serde_json::Value)))]
async fn get_openapi() -> impl IntoResponse {
    // Made once: it is large, and everybody may ask for it.
    static DOCUMENT: LazyLock<Bytes> =
        LazyLock::new(|| serde_json::to_vec(&super::openapi()).expect("the document serialises").into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}
