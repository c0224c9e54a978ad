//! Why an answer is not followed: redirects and challenges that lead where we do not go.

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectFault {
    /// More hops than allowed.
    #[error("more than {0} redirects in a row")]
    TooMany(usize),
    /// From https to http.
    #[error("from https to plain http at {0}")]
    Downgrade(String),
    /// No place, or not one we understand.
    #[error("the Location header is missing or is not an http address")]
    Location,
    /// An address inside this machine or its link.
    #[error("{0} is an address of this machine or its link")]
    Internal(String),
}

/// Why a challenge is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeFault {
    /// No challenge, or none we can read.
    #[error("the answer has no readable WWW-Authenticate header")]
    Unreadable,
    /// Neither Basic nor Bearer.
    #[error("only Basic and Bearer logins are supported")]
    Scheme,
    /// A bearer challenge without a usable address.
    #[error("its token service has no usable address")]
    Realm,
    /// A token service without TLS for a registry with it.
    #[error("its token service {0} does not use https")]
    PlainRealm(String),
    /// A token service inside this machine or its link, or in a private network of a public registry.
    #[error("its token service {0} is an address of this machine or of a private network")]
    InternalRealm(String),
}
