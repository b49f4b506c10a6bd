//! What can go wrong in the control plane, without a word about HTTP.
//!
//! Every error has one problem code. The text of [`ControlError`] is for the caller; a cause that is nobody's
//! business outside stays in `source` and goes to the log, once, where the answer is made.

use std::time::Duration;

use toolyard_link::NoRoom;
use toolyard_store::StoreError;
use toolyard_types::access::Action;
use toolyard_types::{Code, FieldError, NameError, Problem};

/// A boxed cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such thing, or it belongs to another tenant.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// The state does not allow it now; says why.
    #[error("{0}")]
    Conflict(String),
    /// Fields of the request are not valid.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    /// A catalog entry is not valid.
    #[error("the entry is not valid: {}", summary(.0))]
    EntryInvalid(Vec<FieldError>),
    /// Nobody is signed in, and no good key was sent.
    #[error("{0}")]
    Unauthenticated(String),
    /// The principal may not do this.
    #[error("{detail}")]
    Forbidden {
        /// What was refused and by which rule, for a person.
        detail: String,
        /// The action that was refused and on what, where it is another than the route's.
        refused: Option<Box<(Action, String)>>,
    },
    /// Too many requests.
    #[error("too many requests; retry in {} s", .retry_after.as_secs())]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many requests or streams of somebody.
    #[error("{detail}")]
    Limited {
        /// Whose share is used up.
        detail: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Any other problem with a code of its own.
    #[error("{detail}")]
    Problem {
        /// The code.
        code: Code,
        /// What is wrong this time.
        detail: String,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// Something broke that the caller cannot help.
    #[error("something broke while {doing}")]
    Internal {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Cause,
    },
}

/// A result of the control plane.
pub type Result<T, E = ControlError> = std::result::Result<T, E>;

impl ControlError {
    /// One field is not valid.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// A problem of a code that has no variant of its own.
    pub fn problem(code: Code, detail: impl Into<String>) -> Self {
        Self::Problem { code, detail: detail.into() }
    }

    /// The principal may not do what the route is for.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::Forbidden { detail: detail.into(), refused: None }
    }

    /// For `map_err`: something broke while `doing` this.
    pub fn internal<E: Into<Cause>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Internal { doing, source: source.into() }
    }

    /// The problem code, which decides the HTTP status.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) | Self::Store(StoreError::AlreadyExists) => Code::AlreadyExists,
            Self::Conflict(_) => Code::Conflict,
            Self::Invalid(_) | Self::Store(StoreError::Unfit(_)) => Code::ValidationFailed,
            Self::EntryInvalid(_) => Code::EntryInvalid,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Forbidden { .. } => Code::Forbidden,
            Self::RateLimited { .. } | Self::Limited { .. } => Code::RateLimited,
            Self::Problem { code, .. } => *code,
            Self::Store(StoreError::Stale) => Code::PreconditionFailed,
            Self::Store(StoreError::Database(_) | StoreError::Removed(_) | StoreError::LogRemoved(_)) => {
                Code::StoreUnavailable
            }
            Self::Store(_) | Self::Internal { .. } => Code::Internal,
        }
    }

    /// What the caller is told.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let detail = match self {
            Self::Store(StoreError::AlreadyExists) => "a thing of that name already exists".to_owned(),
            Self::Store(StoreError::Stale) => "it changed since you read it".to_owned(),
            Self::Store(StoreError::Unfit(_)) => {
                "a value cannot be stored, such as a text with a NUL character in it".to_owned()
            }
            Self::Store(StoreError::Database(_) | StoreError::Removed(_) | StoreError::LogRemoved(_)) => {
                "the database did not answer as it should".to_owned()
            }
            Self::Store(_) | Self::Internal { .. } => "something broke in Toolyard; the log has the cause".to_owned(),
            told => told.to_string(),
        };
        let mut problem = Problem::new(self.code(), detail);
        if let Self::Invalid(errors) | Self::EntryInvalid(errors) = self {
            problem.errors.clone_from(errors);
        }
        problem
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NoRoom> for ControlError {
    fn from(no_room: NoRoom) -> Self {
        Self::Limited { detail: no_room.to_string(), retry_after: Duration::from_secs(1) }
    }
}

impl From<NameError> for ControlError {
    fn from(error: NameError) -> Self {
        Self::field("name", error.to_string())
    }
}

fn summary(errors: &[FieldError]) -> String {
    match errors {
        [only] => format!("`{}`: {}", only.field, only.message),
        [first, rest @ ..] => format!("`{}`: {} (and {} more)", first.field, first.message, rest.len()),
        [] => "a field is not valid".to_owned(),
    }
}
