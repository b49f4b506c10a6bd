//! Problems: the one table of error codes, and the RFC 9457 body that carries them.
//!
//! Every failure an outside caller can see is a [`Code`]. `docs/reference/problems.md` is generated from
//! this table; the HTTP status is decided here and nowhere else.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $title:literal $help:literal;)*) => {
        /// A stable problem code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $code)] $variant,)*
        }

        crate::schema::schema_of_words!(Code, "A stable problem code.");

        impl Code {
            /// Every code, in the order of the reference page.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as written on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Code::$variant => $code,)* } }

            /// The HTTP status that goes with the code.
            #[must_use]
            pub fn status(self) -> u16 { match self { $(Code::$variant => $status,)* } }

            /// What the code means, in a few words.
            #[must_use]
            pub fn title(self) -> &'static str { match self { $(Code::$variant => $title,)* } }

            /// What the caller can do about it.
            #[must_use]
            pub fn help(self) -> &'static str { match self { $(Code::$variant => $help,)* } }
        }
    };
}

codes! {
    BadRequest "bad_request" 400 "the request cannot be read" "Correct the request as the detail says.";
    InvalidJson "invalid_json" 400 "the body is not valid JSON" "Send a JSON body; the detail names the line and column.";
    ValidationFailed "validation_failed" 422 "a field is not valid" "Correct the fields listed under `errors`.";
    Unauthenticated "unauthenticated" 401 "sign-in or an API key is needed" "Send `Authorization: Bearer <API key>`, or sign in.";
    InvalidCredentials "invalid_credentials" 401 "e-mail or password is wrong" "Check both; after several failures wait a minute.";
    TokenInvalid "token_invalid" 401 "the join token is not known" "Enroll the toolbox, or make another token with `toolyard toolboxes rejoin`.";
    TokenUsed "token_used" 401 "the join token was used before" "Make another one with `toolyard toolboxes rejoin`.";
    TokenExpired "token_expired" 401 "the join token has expired" "Make another one with `toolyard toolboxes rejoin`.";
    TokenForeign "token_foreign" 403 "the join token is for another toolbox" "Use the token that was made for this toolbox.";
    CertificateRequired "certificate_required" 401 "an agent's certificate is needed" "Start `toolyard dtma` with a join token.";
    CertificateRevoked "certificate_revoked" 401 "the agent's certificate was revoked or replaced" "Make a token with `toolyard toolboxes rejoin` and start `toolyard dtma` with it.";
    ToolboxRemoved "toolbox_removed" 401 "the agent's toolbox was removed" "What it runs ends. To use its host again, once what runs there has ended, enroll a toolbox and start `toolyard dtma` with that token and an empty data directory.";
    Forbidden "forbidden" 403 "your role does not allow this" "Ask an administrator; `toolyard why` names the rule.";
    ReauthenticationRequired "reauthentication_required" 403 "the password is needed again" "Send it to `POST /api/v1/session/authentication`, then repeat the request.";
    CsrfRejected "csrf_rejected" 403 "the request came from another site" "Send requests with a session cookie from the console's own origin.";
    FeatureDisabled "feature_disabled" 404 "this feature is switched off" "An administrator can switch the feature flag on.";
    NotFound "not_found" 404 "no such thing" "Check the name; list what exists.";
    MethodNotAllowed "method_not_allowed" 405 "the method is not allowed here" "See the API reference.";
    NotAcceptable "not_acceptable" 406 "no acceptable answer" "Accept `application/json` and `text/event-stream`.";
    AlreadyExists "already_exists" 409 "the name is taken" "Choose another name, or delete the other first.";
    Conflict "conflict" 409 "the state does not allow this now" "The detail says what stands in the way; repeat the request once it no longer does.";
    AccountChanged "account_changed" 409 "somebody else is signed in" "Ask `GET /api/v1/session` who; repeat the request as that account only if they mean it.";
    IdempotencyMismatch "idempotency_mismatch" 422 "the idempotency key was used for another request" "Use a new key for a new request.";
    PreconditionFailed "precondition_failed" 412 "it changed since you read it" "Read it again, then repeat the change.";
    RequestTimeout "request_timeout" 408 "the request did not arrive in time" "Send the request again, faster; the detail names the limit.";
    PreconditionRequired "precondition_required" 428 "the request must say what was seen" "Read it, and send its `ETag` as `If-Match`.";
    PayloadTooLarge "payload_too_large" 413 "the body is too large" "Send less; the detail names the limit.";
    UnsupportedMediaType "unsupported_media_type" 415 "the content type is not supported" "Send `Content-Type: application/json`.";
    RateLimited "rate_limited" 429 "too many requests" "Wait as long as `Retry-After` says.";
    UnsupportedByEngine "unsupported_by_engine" 422 "the toolbox's engine cannot do this" "Leave out what the detail names, or choose another toolbox or package.";
    CredentialMissing "credential_missing" 422 "a required secret is not bound" "Pass the secret, or bind a credential.";
    EntryInvalid "entry_invalid" 422 "the catalog entry is not valid" "Correct the entry as `errors` says.";
    ServerNotReady "server_not_ready" 503 "the server is not ready" "The detail says why; see `toolyard servers show`.";
    NoCapacity "no_capacity" 503 "there is no room for one more" "Retry in a moment; the detail says what is full.";
    AnswerDropped "answer_dropped" 500 "it was done, but its answer found no room in memory" "Look at what became of it before you repeat it; read the answers that wait for you, or raise `request_memory_mb`.";
    UpstreamFailed "upstream_failed" 502 "the MCP server failed" "See the server's log.";
    UpstreamTimeout "upstream_timeout" 504 "the MCP server did not answer in time" "Retry, or raise the server's call timeout.";
    SnapshotStale "snapshot_stale" 503 "the gateway lost the control plane for too long" "The gateway resumes by itself once it reaches the control plane.";
    ShuttingDown "shutting_down" 503 "Toolyard is shutting down" "Retry; another replica or the restarted one answers.";
    StoreUnavailable "store_unavailable" 503 "the database does not answer" "Check the database; Toolyard reconnects by itself.";
    VersionUnsupported "version_unsupported" 426 "the agent's protocol version is not supported" "Upgrade the agent as the detail says.";
    Internal "internal" 500 "something broke in Toolyard" "Report the request id; the log has the cause.";
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where: a path such as `environment.API_KEY`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// An error answer: `application/problem+json` (RFC 9457) with our stable `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A reference to the code's documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's meaning in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: Code,
    /// What is wrong this time, for a person.
    pub detail: String,
    /// The request id, to find the log lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Field by field, when a request did not validate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// Makes a problem with a detail for a person.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs/problems#{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            request_id: None,
            errors: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_it_serialises_and_has_a_status_title_and_help() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).expect("a string"), code.as_str());
            assert!((400..600).contains(&code.status()));
            assert!(!code.title().is_empty() && code.help().ends_with('.'));
        }
    }
}
