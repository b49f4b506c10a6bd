//! The three state machines, each defined once, and the reasons a state can have.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident $(unknown is $unknown:ident)? {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As written on the wire and in the database.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                let known: Result<Self, UnknownState> = text.parse();
                $(let known = Ok::<_, UnknownState>(known.unwrap_or($name::$unknown));)?
                known.map_err(serde::de::Error::custom)
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;
            fn from_str(text: &str) -> Result<Self, UnknownState> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(UnknownState(text.to_owned())) }
            }
        }
    };
}

/// A state word that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`")]
pub struct UnknownState(pub String);

states! {
    /// Where an instance is: `pending -> preparing -> starting -> ready <-> degraded -> stopping -> stopped`,
    /// `failed` from any of them. Also the phase of a server, a roll-up of what serves now.
    Phase {
        /// Known, nothing done yet.
        Pending = "pending",
        /// Its packages are being resolved or installed.
        Preparing = "preparing",
        /// Its process was started and has not answered the MCP probe yet.
        Starting = "starting",
        /// It answered the MCP probe.
        Ready = "ready",
        /// It was ready and fails its probe, or is restarting after a crash.
        Degraded = "degraded",
        /// It was asked to end.
        Stopping = "stopping",
        /// It ended and was seen to have ended.
        Stopped = "stopped",
        /// It cannot run; the reason says why.
        Failed = "failed",
        /// Nobody knows: its toolbox has not been heard for too long. Shown, never observed.
        Unknown = "unknown",
    }
}

states! {
    /// Where a rollout is.
    RolloutState {
        /// Under way.
        Progressing = "progressing",
        /// The new revision serves.
        Done = "done",
        /// The new revision never got ready, or failed while it was observed; the old one serves on.
        RolledBack = "rolled_back",
        /// Somebody stopped it; the old revision serves on.
        Cancelled = "cancelled",
        /// The new revision never got ready and there was no old one.
        Failed = "failed",
    }
}

states! {
    /// Where a toolbox is.
    ToolboxState {
        /// Made, its agent was not heard yet.
        Enrolling = "enrolling",
        /// Its agent syncs.
        Online = "online",
        /// Its agent has been silent for too long.
        Unreachable = "unreachable",
        /// It takes nothing new.
        Draining = "draining",
        /// Gone.
        Removed = "removed",
    }
}

states! {
    /// Why something is in its state. One table for instances, rollouts, servers and toolboxes.
    ///
    /// On a wire a word that this version does not know reads as `internal`: a newer peer may know more of them, and
    /// the message beside it says what is meant.
    Reason unknown is Internal {
        /// Somebody asked for it.
        Requested = "requested",
        /// Waiting for a toolbox to take it.
        AwaitingToolbox = "awaiting_toolbox",
        /// The exact package versions are being determined.
        Resolving = "resolving",
        /// Packages are being installed.
        Installing = "installing",
        /// The process runs; waiting for the MCP answer.
        AwaitingProbe = "awaiting_probe",
        /// It answered the MCP probe.
        Answered = "answered",
        /// The container image does not exist.
        ImageNotFound = "image_not_found",
        /// The package or version does not exist.
        PackageNotFound = "package_not_found",
        /// The package could not be installed.
        InstallFailed = "install_failed",
        /// A downloaded file is not the one the lock names.
        ChecksumMismatch = "checksum_mismatch",
        /// The configuration cannot work.
        ConfigInvalid = "config_invalid",
        /// A required secret is not bound.
        CredentialMissing = "credential_missing",
        /// A secret's lease ended while the control plane was away.
        CredentialExpired = "credential_expired",
        /// It did not answer before the start deadline.
        StartTimeout = "start_timeout",
        /// It answered, but not as MCP.
        HandshakeFailed = "handshake_failed",
        /// It exits again and again.
        CrashLoop = "crash_loop",
        /// It ended by itself.
        Exited = "exited",
        /// It was killed for using more memory than allowed.
        OutOfMemory = "out_of_memory",
        /// It was stopped for keeping more on disk than allowed.
        OutOfDisk = "out_of_disk",
        /// It stopped answering the probe.
        ProbeFailed = "probe_failed",
        /// Its toolbox has not been heard for too long.
        ToolboxUnreachable = "toolbox_unreachable",
        /// The toolbox where it must run was removed.
        ToolboxRemoved = "toolbox_removed",
        /// What runs servers on the toolbox does not work.
        EngineUnavailable = "engine_unavailable",
        /// The engine cannot do what the revision asks.
        UnsupportedByEngine = "unsupported_by_engine",
        /// No toolbox can take it.
        NoCapacity = "no_capacity",
        /// A remote server cannot be reached.
        RemoteUnreachable = "remote_unreachable",
        /// Its catalog entry was withdrawn.
        Quarantined = "quarantined",
        /// A deadline passed.
        DeadlineExceeded = "deadline_exceeded",
        /// Another change took over.
        Superseded = "superseded",
        /// It lists fewer tools than what serves.
        ToolsLost = "tools_lost",
        /// It serves, and what served before is kept until it has done so for a while.
        Observing = "observing",
        /// It takes a part of the calls, until somebody promotes or cancels it.
        Canary = "canary",
        /// It waits for the time of day in which changes may be made.
        OutsideWindow = "outside_window",
        /// Its toolbox is being drained.
        Drained = "drained",
        /// There were more replicas than wanted.
        ScaledDown = "scaled_down",
        /// Something broke in Toolyard; the log has the cause.
        Internal = "internal",
    }
}

/// A state's explanation, carried by everything that has a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status<S> {
    /// The state.
    pub phase: S,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// When the next attempt is made, if one will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
}

impl<S: PartialEq> Status<S> {
    /// `next` after this: a phase that goes on began when it began, whatever is new about it.
    #[must_use]
    pub fn followed_by(&self, next: Self) -> Self {
        let since = if self.phase == next.phase { self.since } else { next.since };
        Self { since, ..next }
    }

    /// A status without a next attempt.
    pub fn new(phase: S, reason: Reason, message: impl Into<String>, since: Timestamp) -> Self {
        Self { phase, reason, message: message.into(), since, next_attempt_at: None }
    }

    /// Whether `other` differs in anything but `since`.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        self.phase != other.phase
            || self.reason != other.reason
            || self.message != other.message
            || self.next_attempt_at != other.next_attempt_at
    }
}
