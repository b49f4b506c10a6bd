//! Feature flags.

use axum::extract::State;
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::system::{Flag, FlagRule};
use utoipa_axum::routes;

use super::extract::{Json, Path};
use super::guard::{Access, Routes};
use crate::app::flags;
use crate::{Caller, Control, Result};

const TAG: &str = "flags";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::FlagRead), routes!(list_flags))
        .guarded(Access::Action(Action::FlagManage), routes!(set_flag))
}

/// List the feature flags as they apply here.
#[utoipa::path(get, path = "/api/v1/flags", tag = TAG, responses((status = 200, body = Page<Flag>)))]
async fn list_flags(State(control): State<Control>, caller: Caller) -> Result<Json<Page<Flag>>> {
    flags::list(&control, &caller).await.map(Json)
}

/// Set a feature flag's rule; an empty rule restores the default.
///
/// Where the installation has several organizations, each sees and sets its own entry of `organizations` and nothing else.
#[utoipa::path(put, path = "/api/v1/flags/{name}", tag = TAG, params(("name" = String, Path)),
    request_body = FlagRule, responses((status = 200, body = Flag)))]
async fn set_flag(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<FlagRule>,
) -> Result<Json<Flag>> {
    flags::set(&control, &caller, &name, body).await.map(Json)
}
