//! Secrets that do not print, and where they come from.
//!
//! The order for one host: the login given by the caller (for the registry of the reference only), then the
//! credential helper configured for the host, then `auths`. A helper that fails ends the search with an error:
//! falling back would send another login than the configured one (CVE-2021-41092).

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use storage_model::{Digest, Hasher};

use crate::docker_config::{DockerConfig, DockerConfigError};
use crate::{Login, RegistryError, helper};

/// Text that never appears in `Debug` output. There is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one header or form that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password (or access token used as one).
    Password {
        /// The user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// An OAuth2 refresh token, as `docker login` stores for some registries.
    IdentityToken(Secret),
    /// A bearer token to be sent as it is.
    RegistryToken(Secret),
}

impl Credentials {
    /// A user with a password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { username: username.into(), password: Secret::new(password) }
    }

    /// The `Authorization` header of the Basic scheme, if this login has one.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
    }

    /// How an error names this login.
    pub(crate) fn login(&self) -> Login {
        match self {
            Self::Password { username, .. } => Login::User(username.clone()),
            Self::IdentityToken(_) | Self::RegistryToken(_) => Login::Token,
        }
    }

    /// Tells two logins apart without holding either.
    pub(crate) fn id(&self) -> Digest {
        let (kind, name, secret) = match self {
            Self::Password { username, password } => ("password", username.as_str(), password),
            Self::IdentityToken(token) => ("identity", "", token),
            Self::RegistryToken(token) => ("registry", "", token),
        };
        let mut hasher = Hasher::new();
        for part in [kind, name, secret.reveal()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finish()
    }
}

/// A header value that `Debug` hides, if the text can be one at all.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Names under which Docker and others file credentials for Docker Hub.
const HUB: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// The name helpers know Docker Hub by.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// Whether `host` is one of Docker Hub's names.
pub(crate) fn is_hub(host: &str) -> bool {
    HUB.contains(&host)
}

/// Finds the login for `host` in Docker's configuration at `path`; `None` is anonymous.
///
/// # Errors
/// [`RegistryError::DockerConfig`] and [`RegistryError::Helper`]: both end the request, whatever the registry wants.
pub(crate) async fn find(
    path: Option<&PathBuf>,
    host: &str,
    repository: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let Some(path) = path else { return Ok(None) };
    let bad = |source| RegistryError::DockerConfig { path: path.clone(), source };
    let config = match tokio::fs::read(path).await {
        Ok(bytes) => DockerConfig::parse(&bytes).map_err(bad)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(DockerConfigError::Read(error))),
    };
    let names: Vec<&str> = if is_hub(host) { HUB.to_vec() } else { vec![host] };
    let server = if is_hub(host) { HUB_SERVER } else { host };
    if let Some(name) = config.helper(&names) {
        let failed =
            |fault| RegistryError::Helper { helper: helper::program(name), server: server.to_owned(), fault };
        if let Some(credentials) = helper::get(name, server).await.map_err(failed)? {
            return Ok(Some(credentials));
        }
    }
    config.login(&names, repository).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let login = Credentials::password("user", "hunter2");
        assert!(!format!("{login:?}").contains("hunter2"));
        let header = login.basic().unwrap();
        assert_eq!(header.as_bytes(), b"Basic dXNlcjpodW50ZXIy");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(!format!("{:?}", Credentials::IdentityToken(Secret::new("hunter2"))).contains("hunter2"));
    }

    #[test]
    fn two_logins_have_two_ids_even_when_their_parts_run_together() {
        assert_ne!(Credentials::password("a", "bc").id(), Credentials::password("ab", "c").id());
        assert_ne!(
            Credentials::IdentityToken(Secret::new("x")).id(),
            Credentials::RegistryToken(Secret::new("x")).id()
        );
    }
}
