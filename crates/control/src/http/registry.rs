//! The official registry's read API (`/v0.1`), served from our catalog without a key: approved entries that
//! are marked public, of the organization made at the first start.
//!
//! Another Toolyard, or an editor's server gallery, syncs from here as from the official registry: same
//! paths, paging, dates and status. It can be closed by a setting.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toolyard_store::{BoundedPage, PublicVersion, PublicVersionsQuery};
use toolyard_types::{Code, EntryName, Timestamp};
use utoipa_axum::routes;

use super::extract::{Path, Query};
use super::guard::{Access, Routes};
use crate::catalog::entry::OFFICIAL_META;
use crate::catalog::merge::OUR_META;
use crate::catalog::{no_entry, no_version};
use crate::{Control, ControlError, Result};

const TAG: &str = "registry";
const PAGE: u32 = 30;
const LARGEST_PAGE: u32 = 100;
const MAX_VERSIONS: u32 = 1000;
/// How many are read at once, and how long others wait for their turn.
pub(crate) const TURNS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Public, routes!(list_servers))
        .guarded(Access::Public, routes!(list_server_versions))
        .guarded(Access::Public, routes!(get_server_version))
}

/// Which servers.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ServersQuery {
    /// `nextCursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// How many at most, 1 to 100; 30 when absent.
    #[serde(default)]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Only names that contain this.
    #[serde(default)]
    search: Option<String>,
    /// Only what changed at or after this (RFC 3339); deleted ones are included.
    #[serde(default)]
    updated_since: Option<String>,
    /// `latest`, or one version.
    #[serde(default)]
    version: Option<String>,
    /// Deleted ones too.
    #[serde(default)]
    include_deleted: Option<bool>,
}

/// List public servers, as the official registry does.
#[utoipa::path(get, path = "/v0.1/servers", operation_id = "list_registry_servers", tag = TAG, params(ServersQuery),
    responses((status = 200, body = Value), (status = 304, description = "unchanged")))]
async fn list_servers(
    State(control): State<Control>,
    headers: HeaderMap,
    Query(query): Query<ServersQuery>,
) -> Result<Response> {
    let limit = match query.limit {
        None => PAGE,
        Some(limit) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => return Err(ControlError::field("limit", format!("must be 1 to {LARGEST_PAGE}"))),
    };
    let since = query.updated_since.as_deref().filter(|since| !since.is_empty()).map(Timestamp::parse).transpose();
    let updated_since = since.map_err(|_| ControlError::field("updated_since", "must be an RFC 3339 date-time"))?;
    let asked = PublicVersionsQuery {
        after: query.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(read_cursor).transpose()?,
        search: query.search.filter(|search| !search.is_empty()),
        updated_since,
        version: query.version.filter(|version| !version.is_empty()),
        name: None,
        include_deleted: query.include_deleted.unwrap_or(false) || updated_since.is_some(),
        limit,
    };
    Ok(conditional(&headers, &page(&find(&control, &asked).await?)?))
}

/// A page, with where the next one begins.
fn page(found: &BoundedPage<PublicVersion>) -> Result<Value> {
    let servers = found.rows.iter().map(shown).collect::<Result<Vec<_>>>()?;
    let mut metadata = json!({ "count": servers.len() });
    if let Some(last) = found.rows.last().filter(|_| found.more) {
        metadata["nextCursor"] = write_cursor(last).into();
    }
    Ok(json!({ "servers": servers, "metadata": metadata }))
}

/// Where the list of a server's versions goes on.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct VersionsQuery {
    /// `nextCursor` of the page before; the official registry has none here, and gives all at once.
    #[serde(default)]
    cursor: Option<String>,
}

/// List a public server's versions, as the official registry does.
#[utoipa::path(get, path = "/v0.1/servers/{name}/versions", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`"), VersionsQuery),
    responses((status = 200, body = Value)))]
async fn list_server_versions(
    State(control): State<Control>,
    headers: HeaderMap,
    Path(name): Path<EntryName>,
    Query(query): Query<VersionsQuery>,
) -> Result<Response> {
    let after = query.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(read_cursor).transpose()?;
    let is_first = after.is_none();
    let asked = PublicVersionsQuery { after, name: Some(name.to_string()), limit: MAX_VERSIONS, ..Default::default() };
    let found = find(&control, &asked).await?;
    if found.rows.is_empty() && is_first {
        return Err(no_entry(&name));
    }
    Ok(conditional(&headers, &page(&found)?))
}

/// Get one version of a public server, or `latest`, as the official registry does.
#[utoipa::path(get, path = "/v0.1/servers/{name}/versions/{version}", tag = TAG,
    params(("name" = EntryName, Path, description = "`namespace%2Fname`"), ("version" = String, Path)),
    responses((status = 200, body = Value)))]
async fn get_server_version(
    State(control): State<Control>,
    headers: HeaderMap,
    Path((name, version)): Path<(EntryName, String)>,
) -> Result<Response> {
    let asked = PublicVersionsQuery {
        name: Some(name.to_string()),
        version: Some(version.clone()),
        include_deleted: true,
        limit: 1,
        ..Default::default()
    };
    let found = find(&control, &asked).await?;
    let row = found.rows.first().ok_or_else(|| no_version(&name, &version))?;
    Ok(conditional(&headers, &shown(row)?))
}

async fn find(control: &Control, asked: &PublicVersionsQuery) -> Result<BoundedPage<PublicVersion>> {
    if !control.options().serve_registry {
        return Err(ControlError::problem(Code::FeatureDisabled, "this Toolyard does not show its catalog to others"));
    }
    // Anybody may ask, and what others need of the database is not theirs.
    let Ok(_turn) = tokio::time::timeout(PATIENCE, control.registry_turns().acquire()).await else {
        return Err(ControlError::RateLimited { retry_after: PATIENCE });
    };
    let tx = control.store().system_read("find the organization whose catalog is shown to others").await?;
    let organization = tx.catalog_organizations().await?.into_iter().next();
    drop(tx);
    let Some(organization) = organization else { return Ok(BoundedPage { rows: Vec::new(), more: false }) };
    Ok(control.store().org_read(organization).await?.public_catalog_versions_page(asked).await?)
}

/// A version as the official registry shows it, with what we know beside.
fn shown(row: &PublicVersion) -> Result<Value> {
    let version = &row.version;
    let server: Value =
        serde_json::from_str(&version.document).map_err(ControlError::internal("reading a stored server.json"))?;
    let mut official = json!({
        "status": version.status,
        "statusChangedAt": version.updated_at,
        "publishedAt": version.published_at.unwrap_or(row.created_at),
        "updatedAt": version.updated_at,
        "isLatest": version.latest,
    });
    if let Some(message) = &version.status_message {
        official["statusMessage"] = message.as_str().into();
    }
    Ok(json!({ "server": server, "_meta": { OFFICIAL_META: official, OUR_META: { "categories": row.categories } } }))
}

/// The answer, or 304 when the caller has it already.
fn conditional(headers: &HeaderMap, body: &Value) -> Response {
    let text = body.to_string();
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())));
    // Compared weakly (RFC 9110 section 13.1.2): compression on the way may have weakened the tag.
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let same = known.split(',').map(|known| known.trim().trim_start_matches("W/")).any(|known| known == tag);
    let tag = HeaderValue::from_str(&tag).expect("quoted base64url is a header value");
    if same {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind), (header::ETAG, tag)], text).into_response()
}

fn write_cursor(row: &PublicVersion) -> String {
    let place = json!([row.name, row.version.version, row.version.entry_id]);
    URL_SAFE_NO_PAD.encode(place.to_string())
}

fn read_cursor(text: &str) -> Result<(String, String, String)> {
    let place = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let place = place.filter(|(name, version, entry): &(String, String, String)| {
        ![name, version, entry].into_iter().any(|text| text.contains('\0'))
    });
    place.ok_or_else(|| ControlError::field("cursor", "must be a `nextCursor` of this list"))
}
