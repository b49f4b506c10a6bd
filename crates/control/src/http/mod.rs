//! The HTTP API: thin handlers, a file per noun, every route with its access.

mod agent;
mod audit;
mod calls;
mod catalog;
pub(crate) mod client;
mod connect;
mod credentials;
mod edge;
mod events;
mod extract;
mod flags;
mod guard;
mod idempotency;
mod identity;
mod keys;
mod members;
mod problem;
mod registry;
mod reports;
mod server_settings;
mod servers;
mod system;
mod toolboxes;
mod toolsets;

use axum::Router;
use toolyard_types::{Code, Problem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi};
use utoipa::{PartialSchema, ToSchema};

use crate::{Control, ControlError};
pub use agent::AgentIdentity;
use guard::Routes;
pub(crate) use idempotency::KEPT as IDEMPOTENCY_KEPT;
pub(crate) use registry::TURNS as REGISTRY_TURNS;

/// Every route of the public API. A new noun adds a line here and a file beside.
fn routes() -> Routes {
    Routes::new()
        .merge(system::routes())
        .merge(identity::routes())
        .merge(members::routes())
        .merge(keys::routes())
        .merge(credentials::routes())
        .merge(flags::routes())
        .merge(audit::routes())
        .merge(calls::routes())
        .merge(connect::routes())
        .merge(reports::routes())
        .merge(events::routes())
        .merge(catalog::routes())
        .merge(servers::routes())
        .merge(server_settings::routes())
        .merge(toolsets::routes())
        .merge(toolboxes::routes())
        .merge(registry::routes())
}

/// The public API as a service.
pub(crate) fn public_router(control: &Control) -> Router {
    let (router, _) = routes().into_inner().split_for_parts();
    edge::around(control, with_fallbacks(router))
}

/// The agents' API as a service.
pub(crate) fn agent_router(control: &Control) -> Router {
    edge::around(control, with_fallbacks(agent::routes()))
}

fn with_fallbacks(router: Router<Control>) -> Router<Control> {
    router
        .fallback(async || ControlError::problem(Code::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ControlError::problem(Code::MethodNotAllowed, "the path exists, but not with this method")
        })
}

/// The public API's description.
#[must_use]
pub fn openapi() -> OpenApi {
    let (_, mut api) = routes().into_inner().split_for_parts();
    api.info = InfoBuilder::new()
        .title("Toolyard")
        .version("v1")
        .description(Some("The public API of a Toolyard: catalog, servers, toolsets, toolboxes and who may use them."))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()))
        .build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(
        "api_key",
        SecurityScheme::Http(
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: `ty_...`.")).build(),
        ),
    );
    components.add_security_scheme(
        "session",
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::auth::cookie_name(false)))),
    );
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    components.schemas.extend(schemas);
    api
}
