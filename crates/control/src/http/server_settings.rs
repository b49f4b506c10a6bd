//! A server's settings as they stand.

use axum::extract::State;
use toolyard_types::Name;
use toolyard_types::access::Action;
use toolyard_types::api::settings::CurrentSettings;
use utoipa_axum::routes;

use super::extract::{Json, Path};
use super::guard::{Access, Routes};
use crate::app::server_settings;
use crate::{Caller, Control, Result};

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::Action(Action::ServerRead), routes!(get_server_settings))
}

/// Get what was set on a server. Secrets are named, never shown. `change` is the body of a `PATCH` that changes nothing.
#[utoipa::path(get, path = "/api/v1/servers/{name}/settings", tag = "servers", params(("name" = Name, Path)),
    responses((status = 200, body = CurrentSettings)))]
async fn get_server_settings(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<Json<CurrentSettings>> {
    server_settings::get(&control, &caller, &name).await.map(Json)
}
