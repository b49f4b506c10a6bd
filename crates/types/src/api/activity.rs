//! What happens: calls, metrics, the overview, and what the console reports of itself.

use super::identity::AuditRecord;
use super::servers::Health;
use crate::snapshot::{CallOutcome, CallRecord};
use crate::state::{Phase, Reason, ToolboxState};
use crate::{InstanceId, Name, ReportId, Timestamp};
use serde::{Deserialize, Serialize};

/// A call as recorded, with names for people.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Call {
    /// The record.
    #[serde(flatten)]
    pub record: CallRecord,
    /// The server's name, while it exists.
    #[serde(default)]
    pub server_name: Option<Name>,
    /// The number of the revision that had the call, while it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_number: Option<u32>,
    /// The toolset's name, while it exists.
    #[serde(default)]
    pub toolset_name: Option<Name>,
    /// Who called, for people: an e-mail address or a key's name, while there is one.
    #[serde(default)]
    pub actor_display: Option<String>,
}

/// Everything that the first page shows, read at one moment. A part that the caller may not read is `null`; a narrowed
/// key sees only its own servers and toolsets.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Overview {
    /// When it was read.
    pub at: Timestamp,
    /// Servers.
    #[serde(default)]
    pub servers: Option<ServersOverview>,
    /// Toolboxes by state.
    #[serde(default)]
    pub toolboxes: Option<Vec<ToolboxStateCount>>,
    /// How all instances fare.
    #[serde(default)]
    pub instances: Option<Health>,
    /// How many toolsets there are.
    #[serde(default)]
    pub toolsets: Option<u64>,
    /// How many credentials there are.
    #[serde(default)]
    pub credentials: Option<u64>,
    /// Calls of the last hour.
    #[serde(default)]
    pub calls: Option<CallsOverview>,
    /// The last 10 lines of the audit log, newest first.
    #[serde(default)]
    pub activity: Option<Vec<AuditRecord>>,
    /// What somebody new has done already.
    pub next_step: NextStep,
}

/// Servers at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServersOverview {
    /// How many there are.
    pub total: u64,
    /// How many of them should run.
    pub enabled: u64,
    /// How many are in each phase; every phase is there.
    pub phases: Vec<PhaseCount>,
    /// How many are in trouble.
    pub in_trouble: u64,
    /// Those in trouble, at most 20, the one that changed last first.
    pub trouble: Vec<ServerTrouble>,
}

/// How many servers are in a phase.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseCount {
    /// The phase.
    pub phase: Phase,
    /// How many.
    pub count: u64,
}

/// How many toolboxes are in a state.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolboxStateCount {
    /// The state.
    pub state: ToolboxState,
    /// How many.
    pub count: u64,
}

/// A server that does not do what it should.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerTrouble {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub phase: Phase,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When the next attempt is made, if one will be.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
}

/// Calls of the last 60 minutes, the one that is not over included.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CallsOverview {
    /// When the first minute begins.
    pub since: Timestamp,
    /// How many calls there were.
    pub total: u64,
    /// How they ended; only ways that occurred.
    pub outcomes: Vec<OutcomeCount>,
    /// One for each of the 60 minutes, oldest first.
    pub minutes: Vec<CallMinute>,
    /// How many records of the organization's calls wait on this replica's disk, because the database does not take
    /// them: they are missing above.
    #[serde(default)]
    pub records_waiting: u64,
    /// How many this replica lost since it started, because the disk did not take them either.
    #[serde(default)]
    pub records_lost: u64,
}

/// How many calls ended in one way.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutcomeCount {
    /// How they ended.
    #[serde(deserialize_with = "CallOutcome::read")]
    pub outcome: CallOutcome,
    /// How many.
    pub count: u64,
}

/// Calls of one minute.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CallMinute {
    /// When it begins.
    pub at: Timestamp,
    /// How many calls began in it.
    pub count: u64,
    /// How many of them neither succeeded nor were cancelled by their client.
    pub errors: u64,
}

/// What somebody new has done already, to say what could be next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NextStep {
    /// There is a server.
    pub has_servers: bool,
    /// There is a toolset.
    pub has_toolsets: bool,
    /// Somebody made an API key that is good now; the first start's own does not count.
    pub has_keys: bool,
    /// A call was recorded, as far back as records are kept.
    pub has_calls: bool,
}

/// How far back metrics go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum MetricsWindow {
    /// 15 minutes, in stretches of 15 seconds.
    #[serde(rename = "15m")]
    QuarterHour,
    /// An hour, in minutes.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// A day, in stretches of 15 minutes.
    #[serde(rename = "24h")]
    Day,
    /// A week, in stretches of two hours.
    #[serde(rename = "7d")]
    Week,
}

impl MetricsWindow {
    /// Seconds from its beginning to now.
    #[must_use]
    pub fn seconds(self) -> u32 {
        match self {
            Self::QuarterHour => 15 * 60,
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
            Self::Week => 7 * 24 * 3600,
        }
    }

    /// Seconds of one stretch; a whole part of a day.
    #[must_use]
    pub fn bucket_seconds(self) -> u32 {
        match self {
            Self::QuarterHour => 15,
            Self::Hour => 60,
            Self::Day => 15 * 60,
            Self::Week => 2 * 3600,
        }
    }
}

/// What a server did and used.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerMetrics {
    /// How far back it goes.
    pub window: MetricsWindow,
    /// When the first stretch begins.
    pub since: Timestamp,
    /// When it was read.
    pub until: Timestamp,
    /// Seconds of one stretch.
    pub bucket_seconds: u32,
    /// Calls by stretches, oldest first; stretches without a call are left out.
    pub calls: Vec<CallBucket>,
    /// What its instances that have not ended use, for the last hour at most.
    pub resources: Vec<InstanceResources>,
}

/// Calls of one stretch of time.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CallBucket {
    /// When it begins.
    pub at: Timestamp,
    /// How many calls began in it.
    pub count: u64,
    /// How many of them neither succeeded nor were cancelled by their client.
    pub errors: u64,
    /// The duration that half of them did not exceed, in microseconds.
    pub p50_us: u64,
    /// The duration that 95 in 100 of them did not exceed, in microseconds.
    pub p95_us: u64,
    /// The duration that 99 in 100 of them did not exceed, in microseconds.
    pub p99_us: u64,
}

/// What one instance used over time. Kept in the memory of the replica that the toolbox's agent speaks to: a restart of
/// Toolyard forgets it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceResources {
    /// The instance.
    pub instance: InstanceId,
    /// Its toolbox's name.
    #[serde(default)]
    pub toolbox: Option<Name>,
    /// When the first sample that is kept was taken.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Samples, oldest first, at least 15 seconds apart.
    pub samples: Vec<ResourceSample>,
}

/// What an instance used at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResourceSample {
    /// When it was measured.
    pub at: Timestamp,
    /// Resident memory of all its processes, in bytes.
    pub memory_bytes: u64,
    /// Processors kept busy since the sample before: 1 is one whole processor. Unknown for the first sample and after a
    /// restart of the process.
    #[serde(default)]
    pub cpu: Option<f64>,
    /// How many processes.
    pub processes: u32,
}

/// Reports of a browser about the console.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendConsoleReports {
    /// At most 50.
    pub reports: Vec<NewConsoleReport>,
}

/// What a browser reports: how fast a page was, that something was used, or that something broke. Never content.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConsoleReport {
    /// What it is.
    pub kind: ReportKind,
    /// The vital's name (`LCP`, `INP`, `CLS`, `FCP`, `TTFB`), what was used, or the error's class; at most 64 characters.
    pub name: String,
    /// The vital's value: milliseconds, for `CLS` a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The route's pattern, such as `/servers/$name`, never the path itself; at most 128 characters.
    pub route: String,
    /// What an error said; cut off after 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where an error happened; cut off after 4000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The console's build; at most 64 characters.
    pub build: String,
    /// When, by the browser's clock.
    pub at: Timestamp,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// A measurement of loading or responsiveness.
    WebVital,
    /// Something was used.
    Interaction,
    /// Something broke.
    Error,
}

impl ReportKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::WebVital, Self::Interaction, Self::Error];

    /// As written on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebVital => "web_vital",
            Self::Interaction => "interaction",
            Self::Error => "error",
        }
    }
}

/// What became of a batch of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConsoleReportsTaken {
    /// How many were stored; 0 while the feature `console_telemetry` is off.
    pub stored: u32,
}

/// A report as stored. What browsers say is hostile text.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConsoleReport {
    /// Its id.
    pub id: ReportId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// When it happened, by the browser's clock.
    pub at: Timestamp,
    /// What it is about.
    pub kind: ReportKind,
    /// The vital, what was used, or the error's class.
    pub name: String,
    /// The vital's value.
    #[serde(default)]
    pub value: Option<f64>,
    /// The route's pattern.
    pub route: String,
    /// What an error said.
    #[serde(default)]
    pub message: String,
    /// Where an error happened.
    #[serde(default)]
    pub stack: String,
    /// The console's build.
    pub build: String,
    /// The browser, as it calls itself; bounded.
    #[serde(default)]
    pub user_agent: String,
}
