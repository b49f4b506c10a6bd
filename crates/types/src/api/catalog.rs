//! Catalog entries and sources.

use crate::server_json::ServerJson;
use crate::{EntryName, Name, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

/// An entry in a list.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntrySummary {
    /// Its name.
    pub name: EntryName,
    /// For people.
    #[serde(default)]
    pub title: Option<String>,
    /// What it does; hostile text.
    pub description: String,
    /// The latest version.
    pub version: String,
    /// The name of the source it came from.
    pub source: String,
    /// `active`, `deprecated` or `deleted`.
    pub status: String,
    /// What the publisher says about the status.
    #[serde(default)]
    pub status_message: Option<String>,
    /// Its categories.
    pub categories: Vec<String>,
    /// How it can run: `npm`, `pypi`, `oci`, `remote`, ...
    pub kinds: Vec<String>,
    /// Who verified it, if anyone.
    #[serde(default)]
    pub verified_by: Option<String>,
    /// Mean of the local ratings, 1 to 5.
    #[serde(default)]
    pub rating: Option<f64>,
    /// How many local ratings.
    pub ratings: u32,
    /// How many servers here came from it.
    pub deployments: u32,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// An entry in full.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// As in a list.
    #[serde(flatten)]
    pub summary: EntrySummary,
    /// The version shown.
    pub server: ServerJson,
    /// The SHA-256 of that version's document; send it as `If-Match` to approve exactly this one.
    #[serde(default)]
    pub digest: String,
    /// `approved`, `submitted` or `rejected`; entries from a source are approved.
    pub review: String,
    /// Why it was rejected.
    #[serde(default)]
    pub review_reason: Option<String>,
    /// Whether `/v0.1/servers` shows it without a key.
    pub public: bool,
    /// How the caller rated it, 1 to 5.
    #[serde(default)]
    pub own_rating: Option<u8>,
}

/// One version of an entry.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntryVersionSummary {
    /// The version.
    pub version: String,
    /// Whether it is the latest.
    pub latest: bool,
    /// `active`, `deprecated` or `deleted`.
    pub status: String,
    /// When it was published.
    #[serde(default)]
    pub published_at: Option<Timestamp>,
}

/// How to search the catalog.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EntryQuery {
    /// Words to look for in name, title, description and tags; small typing errors are forgiven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Only this category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Only entries that can run so: `npm`, `pypi`, `oci`, `remote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only from this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only verified ones, or only others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// `submitted`, `approved` or `rejected`; approved when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<String>,
    /// `relevance` (the default with a search), `name`, `updated`, `deployments`, `rating`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// How many at most, 1 to 500; 50 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A category and how many entries have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// How many approved entries.
    pub entries: u32,
}

/// Publish or submit an entry of one's own.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishEntry {
    /// The entry.
    pub server: serde_json::Value,
    /// Its categories.
    #[serde(default)]
    pub categories: Vec<String>,
    /// What people read about it, in Markdown, at most 64 KiB; a part of the version like the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readme: Option<String>,
    /// Whether `/v0.1/servers` shows it without a key.
    #[serde(default)]
    pub public: bool,
    /// Only check it.
    #[serde(default)]
    pub dry_run: bool,
}

/// What checking an entry found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Validation {
    /// It cannot be published with these.
    pub errors: Vec<crate::FieldError>,
    /// Likely mistakes.
    pub warnings: Vec<crate::FieldError>,
    /// What would make it better.
    pub advice: Vec<crate::FieldError>,
}

/// The answer to a publication.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Published {
    /// The entry; absent for a dry run.
    #[serde(default)]
    pub entry: Option<Entry>,
    /// What the check found.
    pub validation: Validation,
}

/// Review an entry: its latest version, which is the only one that an approval lets in.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewEntry {
    /// `true` to approve.
    pub approve: bool,
    /// Why not; needed to reject.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Change what we say about an entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateEntry {
    /// Mark it verified by the caller, or take the mark away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Whether `/v0.1/servers` shows it without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Its categories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
}

/// Rate an entry.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateEntry {
    /// 1 to 5.
    #[schema(minimum = 1, maximum = 5)]
    pub rating: u8,
}

/// A place entries come from.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: Name,
    /// `built_in`, `own`, `registry` (the registry API) or `file` (a JSON file or URL).
    pub kind: String,
    /// Where, for `registry` and `file`.
    #[serde(default)]
    pub url: Option<String>,
    /// Whether it is synced.
    pub enabled: bool,
    /// How many entries it has.
    pub entries: u32,
    /// How the last sync went: `never`, `running`, `done` or `failed`.
    pub sync_state: String,
    /// Why it failed, or what it did.
    #[serde(default)]
    pub sync_message: String,
    /// When it last succeeded.
    #[serde(default)]
    pub synced_at: Option<Timestamp>,
    /// When it is synced next.
    #[serde(default)]
    pub next_sync_at: Option<Timestamp>,
}

/// Add a source.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSource {
    /// Its name.
    pub name: Name,
    /// `registry` or `file`.
    pub kind: String,
    /// Where: a registry's base URL, or a JSON file's URL.
    pub url: String,
}
