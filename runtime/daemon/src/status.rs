//! Errors as gRPC statuses: the one place where a code is chosen.
//!
//! containerd's clients branch on codes alone (its `errdefs` map one to one), so the message is free for people: the
//! error and its causes, joined by colons.

use std::error::Error;

use runtime_api::any::AnyError;
use runtime_api::filter::FilterError;
use runtime_engine::EngineError;
use snapshotters_contract::SnapshotError;
use storage_content::{ErrorKind, StoreError};
use storage_model::{DigestError, LabelsError, NameError};
use tonic::{Code, Status};

/// The code of each class of error.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::OutOfRange => Code::OutOfRange,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
        // A class that was added without a code here.
        _ => Code::Unknown,
    }
}

/// An error that a call can end in.
pub(crate) trait Failure: Error {
    /// Its class.
    fn kind(&self) -> ErrorKind;
}

/// The error and its causes, each once: a transparent wrapper repeats the words of what it wraps.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The same words with the class at the end after a colon, where it is there: `image "x": not found`.
///
/// containerd's clients put the class behind every message that does not end so, and would say it twice.
fn classed(mut words: String, code: Code) -> String {
    let class = match code {
        Code::NotFound => " not found",
        Code::AlreadyExists => " already exists",
        _ => return words,
    };
    if words.ends_with(class) {
        words.insert(words.len() - class.len(), ':');
    }
    words
}

/// The status that a call ends in because of `error`.
pub(crate) fn status(error: impl Failure) -> Status {
    let code = code(error.kind());
    let words = classed(words(&error), code);
    if matches!(code, Code::Internal | Code::DataLoss | Code::Unknown) {
        tracing::error!(?code, "{words}");
    } else {
        tracing::debug!(?code, "{words}");
    }
    Status::new(code, words)
}

/// The status of a request that names no such thing as it should.
pub(crate) fn invalid(words: impl Into<String>) -> Status {
    Status::invalid_argument(words)
}

/// The status of work that a stopping daemon does not finish. Clients may try again.
pub(crate) fn stopping() -> Status {
    Status::unavailable("the daemon is stopping")
}

impl Failure for StoreError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl Failure for SnapshotError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

impl Failure for EngineError {
    fn kind(&self) -> ErrorKind {
        self.kind()
    }
}

macro_rules! invalid_argument {
    ($($error:ty),+) => {$(
        impl Failure for $error {
            fn kind(&self) -> ErrorKind {
                ErrorKind::InvalidArgument
            }
        }
    )+};
}

invalid_argument!(AnyError, FilterError, DigestError, LabelsError, NameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("cannot read the book")]
        Outer(#[source] std::io::Error),
        #[error(transparent)]
        Wrapped(Box<Nested>),
    }

    #[test]
    fn a_message_tells_each_cause_once() {
        let inner = Nested::Outer(std::io::Error::other("no light"));
        assert_eq!(words(&Nested::Wrapped(Box::new(inner))), "cannot read the book: no light");
    }

    #[test]
    fn a_message_that_ends_in_its_class_ends_as_containerds_do() {
        let words = |text: &str, code| classed(text.to_owned(), code);
        assert_eq!(words("image \"x\" not found", Code::NotFound), "image \"x\": not found");
        assert_eq!(words("lease \"x\" already exists", Code::AlreadyExists), "lease \"x\": already exists");
        assert_eq!(words("no image is called \"x\"", Code::NotFound), "no image is called \"x\"");
        assert_eq!(words("the book was not found", Code::Internal), "the book was not found");
    }

    #[test]
    fn every_class_has_a_code_of_its_own() {
        let kinds = [
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::InvalidArgument,
            ErrorKind::FailedPrecondition,
            ErrorKind::OutOfRange,
            ErrorKind::Unavailable,
            ErrorKind::ResourceExhausted,
            ErrorKind::DataLoss,
            ErrorKind::PermissionDenied,
            ErrorKind::Unauthenticated,
            ErrorKind::DeadlineExceeded,
            ErrorKind::Cancelled,
            ErrorKind::Aborted,
            ErrorKind::Unimplemented,
            ErrorKind::Internal,
        ];
        let codes: std::collections::BTreeSet<i32> = kinds.iter().map(|kind| code(*kind) as i32).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&(Code::Unknown as i32)));
    }
}
