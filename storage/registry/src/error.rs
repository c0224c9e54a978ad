//! What can fail, in words that tell what, where, why and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use storage_model::{Digest, Reference};

use crate::docker_config::DockerConfigError;
use crate::fault::{ChallengeFault, RedirectFault};
use crate::helper::HelperFault;
use crate::hosts::HostsError;

/// What was asked for. `Display` is `registry/repository:tag` or `registry/repository@digest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Registry as the user means it: `docker.io`.
    pub registry: String,
    /// Repository inside it.
    pub repository: String,
    /// Tag or digest.
    pub object: String,
}

impl Target {
    /// The manifest `reference` names.
    pub(crate) fn of(reference: &Reference) -> Arc<Self> {
        Self::at(reference, reference.object())
    }

    /// Some content of the repository of `reference`.
    pub fn at(reference: &Reference, object: String) -> Arc<Self> {
        Arc::new(Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            object,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.object.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{mark}{}", self.registry, self.repository, self.object)
    }
}

/// How we had logged in when the registry refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Without credentials: none are known for the host.
    Anonymous,
    /// As this user.
    User(String),
    /// With an identity token.
    Token,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(
                "it wants a login and no credentials for it were found (log in with a tool that writes Docker's \
                 config.json, or give a user and password); a repository that does not exist looks the same",
            ),
            Self::User(user) => write!(f, "it refused the login of {user:?}: check the password"),
            Self::Token => f.write_str("it refused the stored identity token: log in again"),
        }
    }
}

/// Any error below, as a cause.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a registry did not give what was asked for. Never holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No such repository, tag, manifest or blob.
    #[error("{target} was not found at {host}: check the name and the tag")]
    NotFound {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
    },
    /// The registry wants a login, or refused ours.
    #[error("{host} did not let us in for {target}: {login}")]
    Unauthorized {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// How we had logged in.
        login: Login,
    },
    /// The login is known and may not read this.
    #[error("{host} denies access to {target}{}", words(.message))]
    Denied {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// The registry's own words, cut to one line.
        message: String,
    },
    /// The bytes are not those that were named.
    #[error("{host} sent wrong content for {target}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// Digest that was asked for, or that the registry announced.
        expected: Digest,
        /// Digest of what it sent.
        actual: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{host} sends {actual} bytes for {target}, but its descriptor says {expected}")]
    SizeMismatch {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// Bytes in the descriptor.
        expected: u64,
        /// Bytes announced or seen so far.
        actual: u64,
    },
    /// A document beyond what is read into memory.
    #[error("{target} is larger than the {max} bytes that are read of such a document")]
    TooLarge {
        /// What was asked for.
        target: Arc<Target>,
        /// The limit in bytes.
        max: u64,
    },
    /// A tag answered with something that does not say what it is.
    #[error("{host} does not say which kind of manifest {target} is (Content-Type {content_type:?})")]
    MediaType {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// The header, cut.
        content_type: String,
    },
    /// The rate limit did not end within our patience.
    #[error("{host} limits our rate for {target}: try again later, or log in to raise the limit")]
    TooManyRequests {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// What `Retry-After` asked for, cut to the policy's limit.
        retry_after: Option<Duration>,
    },
    /// Any other answer that is not the content.
    #[error("{host} answered {status} for {target}{}", words(.message))]
    Status {
        /// What was asked for.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: StatusCode,
        /// The registry's own words, cut to one line.
        message: String,
        /// The registry's word for it (distribution-spec, "Error Codes": `SIZE_INVALID`); empty if it gave none.
        code: String,
        /// What `Retry-After` asked for, cut to the policy's limit.
        retry_after: Option<Duration>,
    },
    /// The registry has no such repository to push to, and makes none by itself.
    #[error("{host} has no repository for {target}: make it there first, or check the name{}", words(.message))]
    NoRepository {
        /// What was to be pushed.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// The registry's own words, cut to one line.
        message: String,
    },
    /// The registry received other bytes than their digest says: the local copy is damaged, or the way there changes
    /// what it carries.
    #[error("{host} got other bytes than {target} has: check the local copy{}", words(.message))]
    Refused {
        /// What was pushed.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// The registry's own words, cut to one line.
        message: String,
    },
    /// An answer to an upload without what the next step needs.
    #[error("{host} cannot take {target}: {fault}")]
    Upload {
        /// What was pushed.
        target: Arc<Target>,
        /// Who answered.
        host: String,
        /// What is wrong with the answer.
        fault: &'static str,
    },
    /// The local copy of what is pushed cannot be read.
    #[error("the local copy of {target} cannot be read")]
    Source {
        /// What was to be pushed.
        target: Arc<Target>,
        /// What the file system said.
        source: io::Error,
    },
    /// The name of the registry does not resolve.
    #[error("the host {host} of {target} is unknown: check its spelling and this machine's DNS")]
    UnknownHost {
        /// What was asked for.
        target: Arc<Target>,
        /// The name.
        host: String,
        /// What the resolver said.
        source: Cause,
    },
    /// No connection.
    #[error("cannot connect to {host} for {target}: is the registry running, and is the port right?")]
    Connect {
        /// What was asked for.
        target: Arc<Target>,
        /// Host and port.
        host: String,
        /// What the kernel said.
        source: Cause,
    },
    /// The TLS handshake failed.
    #[error("no secure connection to {host} for {target}: {advice}")]
    Tls {
        /// What was asked for.
        target: Arc<Target>,
        /// Host and port.
        host: String,
        /// What to do.
        advice: &'static str,
        /// What the handshake said.
        source: Cause,
    },
    /// We spoke https and the other side http.
    #[error("{host} does not speak https (asked for {target}): if plain http is meant, use --plain-http")]
    SpeaksHttp {
        /// What was asked for.
        target: Arc<Target>,
        /// Host and port.
        host: String,
    },
    /// We spoke http and the other side https.
    #[error("{host} speaks https (asked for {target}): leave out --plain-http")]
    SpeaksHttps {
        /// What was asked for.
        target: Arc<Target>,
        /// Host and port.
        host: String,
    },
    /// No answer, or too slow a body.
    #[error("{host} was too slow for {target}: {what} within {} s", .after.as_secs_f32())]
    Timeout {
        /// What was asked for.
        target: Arc<Target>,
        /// Who.
        host: String,
        /// What did not happen.
        what: &'static str,
        /// In which time.
        after: Duration,
    },
    /// The transfer broke off.
    #[error("the transfer of {target} from {host} broke off after {at} bytes")]
    Interrupted {
        /// What was asked for.
        target: Arc<Target>,
        /// Who.
        host: String,
        /// Bytes of the content received so far.
        at: u64,
        /// Why; absent when the body ended early without an error.
        source: Option<Cause>,
    },
    /// An answer to a range request that is not that range.
    #[error("{host} answered bytes {got:?} of {target} when asked from byte {asked}")]
    WrongRange {
        /// What was asked for.
        target: Arc<Target>,
        /// Who.
        host: String,
        /// First byte asked for.
        asked: u64,
        /// Its `Content-Range`, cut.
        got: String,
    },
    /// A redirect we do not follow.
    #[error("{host} redirects {target} to where we do not go: {fault}")]
    Redirect {
        /// What was asked for.
        target: Arc<Target>,
        /// Who redirected.
        host: String,
        /// Why not.
        fault: RedirectFault,
    },
    /// A login we cannot answer, or a token service we do not go to.
    #[error("{host} asks for a login for {target} that we do not do: {fault}")]
    Challenge {
        /// What was asked for.
        target: Arc<Target>,
        /// Who asked.
        host: String,
        /// Why not.
        fault: ChallengeFault,
    },
    /// The token service answered nonsense.
    #[error("the token service {realm} gave no usable token for {target}: {fault}")]
    Token {
        /// What was asked for.
        target: Arc<Target>,
        /// Host of the token service.
        realm: String,
        /// What is wrong with the token.
        fault: &'static str,
    },
    /// A credential helper failed: that is no reason to go on without a login, or with another.
    #[error("credential helper {helper} gave no credentials for {server}: {fault}")]
    Helper {
        /// Name of the program.
        helper: String,
        /// Registry that was asked for.
        server: String,
        /// What happened.
        #[source]
        fault: HelperFault,
    },
    /// Docker's `config.json` cannot be read.
    #[error("cannot read credentials from {}", .path.display())]
    DockerConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DockerConfigError,
    },
    /// A `hosts.toml`, or a file it names, cannot be used. Ignoring it could bypass a mirror that is meant.
    #[error("cannot use the registry configuration {}", .path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: HostsError,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use the certificate file {}: {problem}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// Why, when something below says more.
        source: Option<Cause>,
    },
    /// `hosts.toml` leaves no place to ask.
    #[error("no configured registry may serve {target}: look at the capabilities in its hosts.toml")]
    NoHost {
        /// What was asked for.
        target: Arc<Target>,
    },
    /// A resume point past the end of the content.
    #[error("cannot read {target} from byte {offset}: it has {size}")]
    Offset {
        /// What was asked for.
        target: Arc<Target>,
        /// Where reading should have begun.
        offset: u64,
        /// Size in the descriptor.
        size: u64,
    },
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// What a failure means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Asking again will not help.
    Final,
    /// It may pass; the registry may have said when.
    Passing(Option<Duration>),
    /// Nobody is there: worth fewer attempts.
    Absent,
}

impl RegistryError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.verdict() != Verdict::Final
    }

    /// How long the registry asked to be left alone, cut to the policy's limit.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::TooManyRequests { retry_after, .. } => Verdict::Passing(*retry_after),
            Self::Status { status, retry_after, .. } => match status.as_u16() {
                408 | 425 | 500 | 502 | 503 | 504 => Verdict::Passing(*retry_after),
                _ => Verdict::Final,
            },
            Self::Timeout { .. }
            | Self::Upload { .. }
            | Self::Interrupted { .. }
            | Self::WrongRange { .. } => Verdict::Passing(None),
            Self::UnknownHost { source, .. } => {
                let passing = source.to_string().contains("emporary failure");
                if passing { Verdict::Absent } else { Verdict::Final }
            }
            Self::Connect { source, .. } => match io_kind(&**source) {
                Some(io::ErrorKind::ConnectionRefused) => Verdict::Absent,
                _ => Verdict::Passing(None),
            },
            _ => Verdict::Final,
        }
    }
}

/// An error and all its causes. What an `io::Error` wraps is a cause too, which its `source` leaves out.
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// Kind of the innermost `io::Error` among the causes.
pub(crate) fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind)
}
