//! How a call ended: gRPC's codes, and a status of code and words.

use std::fmt;

/// gRPC's status codes, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    /// It went well.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// Nobody knows.
    Unknown = 2,
    /// What was asked makes no sense, whatever the state.
    InvalidArgument = 3,
    /// The time was up.
    DeadlineExceeded = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// What was to be made exists.
    AlreadyExists = 6,
    /// The caller may not.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// Not in the present state.
    FailedPrecondition = 9,
    /// Somebody else was quicker.
    Aborted = 10,
    /// Past the end.
    OutOfRange = 11,
    /// No such method.
    Unimplemented = 12,
    /// The other side is broken.
    Internal = 13,
    /// The other side is not there, or gone.
    Unavailable = 14,
    /// Bytes were lost.
    DataLoss = 15,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number; [`Code::Unknown`] for one that gRPC does not have.
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Unknown)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// Why a call was refused: what a [`Service`](crate::Service) answers instead of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Status {
    /// A status of `code` with words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_found_by_its_number_and_others_are_unknown() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), code);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }
}
