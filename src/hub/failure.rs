//! A request that did not bring what was asked for, and what can be done about it.

use std::time::Duration;

use crate::error::Error;

/// Why, as far as what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No answer, a broken connection, or an answer that makes no sense: try again.
    Broken,
    /// The server is there and cannot answer now: try again, when it says so.
    Busy(Option<Duration>),
    /// The server does not want to: trying again is of no use.
    Refused,
    /// The repository does not exist, or not for us.
    Hidden,
    /// The repository is there, and what is wanted is not in it.
    Missing,
}

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) host: String,
    pub(super) status: Option<u16>,
    pub(super) cause: String,
    pub(super) remedy: String,
}

impl Failure {
    pub(super) fn new(
        kind: Kind,
        host: &str,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            host: host.to_owned(),
            status: None,
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }

    /// The error that a user sees.
    pub(super) fn into_error(self, what: &str, kept: u64) -> Error {
        if matches!(self.kind, Kind::Hidden | Kind::Missing) {
            return Error::ModelNotFound(format!("{}; {}", self.cause, self.remedy));
        }
        Error::Download {
            what: what.to_owned(),
            host: self.host,
            status: self.status,
            cause: self.cause,
            kept,
            remedy: self.remedy,
        }
    }
}

/// Why an attempt ended: the network's fault, or an error that no further attempt can mend.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Failure),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Stop {
    /// The error that a user sees.
    pub(super) fn into_error(self, what: &str, kept: u64) -> Error {
        match self {
            Self::Failed(failure) => failure.into_error(what, kept),
            Self::Error(error) => error,
        }
    }
}
