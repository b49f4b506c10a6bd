//! The catalog: entries, their review, and the sources they come from.
//!
//! An entry's name holds a slash, so in a path it is written `namespace%2Fname`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use toolyard_types::access::Action;
use toolyard_types::api::Page;
use toolyard_types::api::catalog::{
    Category, CreateSource, Entry, EntryQuery, EntrySummary, EntryVersionSummary, PublishEntry, Published, RateEntry,
    ReviewEntry, Source, UpdateEntry,
};
use toolyard_types::{EntryName, Name};
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use super::servers::if_match;
use crate::app::catalog as app;
use crate::{Caller, Control, Result};

const TAG: &str = "catalog";

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::CatalogRead), routes!(list_entries))
        .guarded(Access::Action(Action::CatalogSubmit), routes!(publish_entry))
        .guarded(Access::Action(Action::CatalogRead), routes!(get_entry))
        .guarded(Access::Action(Action::CatalogReview), routes!(update_entry, delete_entry))
        .guarded(Access::Action(Action::CatalogRead), routes!(list_entry_versions))
        .guarded(Access::Action(Action::CatalogReview), routes!(review_entry))
        .guarded(Access::Action(Action::CatalogRate), routes!(rate_entry))
        .guarded(Access::Action(Action::CatalogRead), routes!(list_categories))
        .guarded(Access::Action(Action::CatalogRead), routes!(list_sources))
        .guarded(Access::Action(Action::CatalogManage), routes!(create_source))
        .guarded(Access::Action(Action::CatalogManage), routes!(delete_source))
        .guarded(Access::Action(Action::CatalogManage), routes!(sync_source))
}

/// Which version of an entry.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// This version; the latest when absent.
    #[serde(default)]
    version: Option<String>,
}

/// Search and list catalog entries.
#[utoipa::path(get, path = "/api/v1/catalog/entries", tag = TAG, params(EntryQuery),
    responses((status = 200, body = Page<EntrySummary>)))]
async fn list_entries(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<EntryQuery>,
) -> Result<Json<Page<EntrySummary>>> {
    app::list_entries(&control, &caller, query).await.map(Json)
}

/// Publish an entry of one's own, or submit it for review; `dry_run` only checks it.
#[utoipa::path(post, path = "/api/v1/catalog/entries", tag = TAG, request_body = PublishEntry,
    responses((status = 200, body = Published, description = "checked"), (status = 201, body = Published)))]
async fn publish_entry(
    State(control): State<Control>,
    caller: Caller,
    Json(request): Json<PublishEntry>,
) -> Result<(StatusCode, Json<Published>)> {
    let published = app::publish(&control, &caller, request).await?;
    let status = if published.entry.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(published)))
}

/// Get an entry with its latest version, or the version named.
#[utoipa::path(get, path = "/api/v1/catalog/entries/{name}", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`"), VersionQuery),
    responses((status = 200, body = Entry)))]
async fn get_entry(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
    Query(query): Query<VersionQuery>,
) -> Result<Response> {
    app::get_entry(&control, &caller, &name, query.version.as_deref()).await.map(tagged)
}

/// An entry with its `ETag`: the digest of the version shown.
fn tagged(entry: Entry) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", entry.digest)).ok();
    let mut response = Json(entry).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Verify an entry, make it public, or choose its categories.
#[utoipa::path(patch, path = "/api/v1/catalog/entries/{name}", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`")), request_body = UpdateEntry,
    responses((status = 200, body = Entry)))]
async fn update_entry(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
    Json(request): Json<UpdateEntry>,
) -> Result<Json<Entry>> {
    app::update(&control, &caller, &name, request).await.map(Json)
}

/// Withdraw an entry that was published here. Servers deployed from it run on.
#[utoipa::path(delete, path = "/api/v1/catalog/entries/{name}", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`")), responses((status = 204)))]
async fn delete_entry(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
) -> Result<StatusCode> {
    app::delete(&control, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List an entry's versions, newest first.
#[utoipa::path(get, path = "/api/v1/catalog/entries/{name}/versions", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`")),
    responses((status = 200, body = Page<EntryVersionSummary>)))]
async fn list_entry_versions(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
) -> Result<Json<Page<EntryVersionSummary>>> {
    app::list_versions(&control, &caller, &name).await.map(Json)
}

/// Approve or reject the latest version of a submitted entry.
///
/// An approval needs `If-Match` with the `digest` that was read, so that nothing is approved but what was seen.
#[utoipa::path(post, path = "/api/v1/catalog/entries/{name}/review", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`")), request_body = ReviewEntry,
    responses((status = 200, body = Entry)))]
async fn review_entry(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
    headers: HeaderMap,
    Json(request): Json<ReviewEntry>,
) -> Result<Json<Entry>> {
    app::review(&control, &caller, &name, request, if_match(&headers)).await.map(Json)
}

/// Rate an entry; rating again replaces one's rating.
#[utoipa::path(put, path = "/api/v1/catalog/entries/{name}/rating", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`")), request_body = RateEntry,
    responses((status = 200, body = Entry)))]
async fn rate_entry(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<EntryName>,
    Json(request): Json<RateEntry>,
) -> Result<Json<Entry>> {
    app::rate(&control, &caller, &name, request).await.map(Json)
}

/// List the categories with how many entries have each.
#[utoipa::path(get, path = "/api/v1/catalog/categories", tag = TAG, responses((status = 200, body = Page<Category>)))]
async fn list_categories(State(control): State<Control>, caller: Caller) -> Result<Json<Page<Category>>> {
    app::list_categories(&control, &caller).await.map(Json)
}

/// List catalog sources.
#[utoipa::path(get, path = "/api/v1/catalog/sources", tag = TAG, responses((status = 200, body = Page<Source>)))]
async fn list_sources(State(control): State<Control>, caller: Caller) -> Result<Json<Page<Source>>> {
    app::list_sources(&control, &caller).await.map(Json)
}

/// Add a catalog source; its first sync begins at once.
#[utoipa::path(post, path = "/api/v1/catalog/sources", tag = TAG, request_body = CreateSource,
    responses((status = 201, body = Source)))]
async fn create_source(
    State(control): State<Control>,
    caller: Caller,
    Json(request): Json<CreateSource>,
) -> Result<(StatusCode, Json<Source>)> {
    let source = app::create_source(&control, &caller, request).await?;
    Ok((StatusCode::CREATED, Json(source)))
}

/// Remove a catalog source with its entries.
#[utoipa::path(delete, path = "/api/v1/catalog/sources/{name}", tag = TAG, params(("name" = Name, Path)),
    responses((status = 204)))]
async fn delete_source(State(control): State<Control>, caller: Caller, Path(name): Path<Name>) -> Result<StatusCode> {
    app::delete_source(&control, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Have a catalog source synced now; the source tells how it goes.
#[utoipa::path(post, path = "/api/v1/catalog/sources/{name}/sync", tag = TAG, params(("name" = Name, Path)),
    responses((status = 202, body = Source)))]
async fn sync_source(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
) -> Result<(StatusCode, Json<Source>)> {
    let source = app::sync_source(&control, &caller, &name).await?;
    Ok((StatusCode::ACCEPTED, Json(source)))
}
