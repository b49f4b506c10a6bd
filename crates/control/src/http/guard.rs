//! The only way to add a route to the API: together with its access.
//!
//! [`Routes::guarded`] puts a middleware before the handlers that finds out who is asking, asks the one
//! decision function, and leaves a [`Caller`] for the handler. It also writes the access into the API document
//! (`x-toolyard-action`), with the answers every guarded operation can give. [`Routes`] has no other method
//! that takes handlers, so a route without a declared access does not compile.

use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use toolyard_link::{Charge, Origin};
use toolyard_policy::Resource;
use toolyard_types::access::Action;
use toolyard_types::{Code, Name};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::edge::RequestId;
use super::problem::Answered;
use super::{extract, idempotency};
use crate::auth::{self, Purpose};
use crate::{Caller, Control, ControlError, Result, app};

/// The name of the extension that carries an operation's access in the API document.
pub(crate) const ACCESS_EXTENSION: &str = "x-toolyard-action";

/// Who a request is meant to come from: the `account` of `GET /api/v1/session`.
const ACCOUNT_HEADER: &str = "x-toolyard-account";

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, without a key.
    Public,
    /// Everybody who is signed in or has a key.
    SignedIn,
    /// Those whom the policies let do this.
    Action(Action),
}

impl Access {
    fn as_str(self) -> &'static str {
        match self {
            Access::Public => "public",
            Access::SignedIn => "signed_in",
            Access::Action(action) => action.as_str(),
        }
    }
}

/// Routes of the API, each with its access.
pub(crate) struct Routes(OpenApiRouter<Control>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(OpenApiRouter::default())
    }

    /// Adds the handlers of one path (`routes!(...)`), which all have this access.
    #[must_use]
    pub(crate) fn guarded(self, access: Access, routes: UtoipaMethodRouter<Control>) -> Self {
        let (schemas, mut paths, handlers) = routes;
        for item in paths.paths.values_mut() {
            operations(item).for_each(|operation| describe(operation, access));
        }
        let handlers = handlers.route_layer(from_fn(move |request, next| check(access, request, next)));
        Self(self.0.routes((schemas, paths, handlers)))
    }

    /// All of these and all of the others.
    #[must_use]
    pub(crate) fn merge(self, others: Routes) -> Self {
        Self(self.0.merge(others.0))
    }

    pub(super) fn into_inner(self) -> OpenApiRouter<Control> {
        self.0
    }
}

/// The operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// Writes the access into the document, and the answers that come with it.
fn describe(operation: &mut Operation, access: Access) {
    let extensions = operation.extensions.get_or_insert_default();
    extensions.insert(ACCESS_EXTENSION.to_owned(), access.as_str().into());
    let mut codes = vec![("default", "any other problem; `code` says which")];
    if access != Access::Public {
        codes.push(("401", Code::Unauthenticated.title()));
        operation.security = Some(vec![
            SecurityRequirement::new::<_, [&str; 0], &str>("api_key", []),
            SecurityRequirement::new::<_, [&str; 0], &str>("session", []),
        ]);
    }
    if matches!(access, Access::Action(_)) {
        codes.push(("403", Code::Forbidden.title()));
    }
    for (status, text) in codes {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(text).content("application/problem+json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    }
}

async fn check(access: Access, request: Request, next: Next) -> Response {
    let control = request.extensions().get::<Control>().cloned().expect("the edge leaves it in every request");
    if access == Access::Public {
        let settled = request.extensions().get::<Charge>().map_or(Ok(()), Charge::settle);
        return match settled {
            Ok(()) => next.run(request).await,
            Err(no_room) => ControlError::from(no_room).into_response(),
        };
    }
    let changes = !request.method().is_safe();
    let (caller, route, request) = match admit(&control, access, request).await {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let response = idempotency::run(&control, &caller, request, next).await;
    if changes {
        let answered = response.extensions().get::<Answered>().cloned();
        note_refused(&control, &caller, access, &route, answered).await;
    }
    // What was made, changed or taken away is so at the gateway too, for whoever acts on the answer at once.
    if changes && response.status().is_success() {
        crate::snapshot::caught_up(&control, caller.organization).await;
    }
    response
}

/// A change that the route's own action allows may ask for more than that: what was refused then is noted as well.
async fn note_refused(
    control: &Control,
    caller: &Caller,
    access: Access,
    route: &Resource,
    answered: Option<Answered>,
) {
    let Some(answered) = answered else { return };
    let ControlError::Forbidden { detail, refused } = &*answered.0 else { return };
    let (action, what) = match (refused, access) {
        (Some(refused), _) => (refused.0, refused.1.clone()),
        (None, Access::Action(action)) => (action, route.to_string()),
        (None, _) => return,
    };
    let target = if *route == Resource::Organization { what } else { route.to_string() };
    app::audit_refusal(control, caller, action.as_str(), &target, detail).await;
}

/// Authenticates and decides; leaves the caller in the request. Answers with what the path is about, too.
async fn admit(control: &Control, access: Access, request: Request) -> Result<(Caller, Resource, Request)> {
    let (mut parts, body) = request.into_parts();
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.to_string());
    let purpose = if parts.method.is_safe() { Purpose::Read } else { Purpose::Change };
    let caller = auth::authenticate(control, &parts.headers, request_id, purpose).await?;
    if let Some(charge) = parts.extensions.get::<Charge>() {
        charge.known(caller.organization, &caller.share_of)?;
    }
    control.request_rates().count(&caller)?;
    same_account(&parts.headers, &caller)?;
    if caller.session.is_some() && !parts.method.is_safe() {
        same_origin(&parts.headers, control.options().public_url.as_deref())?;
    }
    let resource = resource(&mut parts).await;
    if let Access::Action(action) = access
        && let Err(error) = app::allow(control, &caller, action, &resource)
    {
        // A refused look is not worth a row; a refused deed is.
        if !parts.method.is_safe() {
            app::audit_refusal(control, &caller, action.as_str(), &resource.to_string(), &error.to_string()).await;
        }
        return Err(error);
    }
    parts.extensions.insert(caller.clone());
    Ok((caller, resource, Request::from_parts(parts, body)))
}

/// What the path is about, as far as a decision may depend on it.
async fn resource(parts: &mut http::request::Parts) -> Resource {
    let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let noun: fn(Name) -> Resource = if path.starts_with("/api/v1/servers/{name}") {
        Resource::Server
    } else if path.starts_with("/api/v1/toolsets/{name}") {
        Resource::Toolset
    } else if path.starts_with("/api/v1/credentials/{name}") {
        Resource::Credential
    } else {
        return Resource::Organization;
    };
    let name = extract::path_params(parts).await.remove("name").and_then(|name| Name::new(name).ok());
    name.map_or(Resource::Organization, noun)
}

/// Refuses a request that was meant for another account: pages of one browser share its cookie, and what one person
/// filled in must not be sent as another who signed in in the next tab.
///
/// # Errors
/// `account_changed`.
fn same_account(headers: &HeaderMap, caller: &Caller) -> Result<()> {
    let meant = headers.get(ACCOUNT_HEADER);
    if meant.is_none_or(|meant| meant.as_bytes() == app::identity::account(caller).as_bytes()) {
        return Ok(());
    }
    let detail = format!("the request was made for another account than {}, who is signed in now", caller.display);
    Err(ControlError::problem(Code::AccountChanged, detail))
}

/// Refuses a change that another site made a browser send along with the session cookie.
///
/// # Errors
/// `csrf_rejected`.
pub(super) fn same_origin(headers: &HeaderMap, public_url: Option<&str>) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => is_ours(origin, text(header::HOST.as_str()), public_url),
        (None, None) => false,
    };
    if same {
        return Ok(());
    }
    let detail = "a change with a session cookie must come from the console's own origin; use an API key elsewhere";
    Err(ControlError::problem(Code::CsrfRejected, detail))
}

/// Whether the page is of the address that is asked, or of our own. Where our own is known it is the whole of it: another
/// scheme is another site, which anybody on the way can speak for.
fn is_ours(origin: &str, host: Option<&str>, public_url: Option<&str>) -> bool {
    let Some(origin) = Origin::parse(origin) else { return false };
    let public = public_url.and_then(Origin::parse);
    match public.filter(|public| public.host == origin.host) {
        Some(public) => public == origin,
        None => host.is_some_and(|host| origin.is_at(host)),
    }
}
