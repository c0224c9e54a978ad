//! Docker's `config.json`: which login belongs to which registry.
//!
//! Read: `auths`, `credHelpers`, `credsStore`, and containers' `registry/namespace` keys in `auths`. Everything else
//! in the file is ignored. A key answers for its own host (and port) only.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{Credentials, Secret};

/// Largest `config.json` that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The credential part of `config.json`.
#[derive(Default, Deserialize)]
pub struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

/// Why `config.json` cannot be used. Never quotes the file: it holds secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerConfigError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    /// Longer than any real one.
    #[error("the file has {0} bytes: at most {CONFIG_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not the JSON Docker writes.
    #[error("line {line}, column {column}: this is not Docker's configuration format")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// `auth` is not base64 of `user:password`.
    #[error("the auth of {0:?} is not base64 of user:password")]
    Auth(String),
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&String> = self.auths.iter().flat_map(BTreeMap::keys).collect();
        f.debug_struct("DockerConfig")
            .field("auths", &hosts)
            .field("helpers", &self.helpers)
            .field("store", &self.store)
            .finish()
    }
}

impl DockerConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`DockerConfigError::TooLarge`] and [`DockerConfigError::Syntax`].
    pub fn parse(text: &[u8]) -> Result<Self, DockerConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(DockerConfigError::TooLarge(text.len()));
        }
        // The reader's own message may quote a value of the wrong type, which may be a secret: keep the place only.
        serde_json::from_slice(text)
            .map_err(|error| DockerConfigError::Syntax { line: error.line(), column: error.column() })
    }

    /// The credential helper for a host known under `names`: its own, else the store for all.
    pub fn helper(&self, names: &[&str]) -> Option<&str> {
        let own = self.helpers.iter().flatten().find(|(key, _)| names.contains(&host_of(key).0));
        own.map(|(_, helper)| helper).or(self.store.as_ref()).map(String::as_str).filter(|h| !h.is_empty())
    }

    /// The login stored in the file for `repository` of a host known under `names`.
    ///
    /// A `registry/namespace` key goes before the registry's own, the longest first.
    ///
    /// # Errors
    /// [`DockerConfigError::Auth`] if there is one that cannot be read.
    pub fn login(&self, names: &[&str], repository: &str) -> Result<Option<Credentials>, DockerConfigError> {
        let mut fitting: Vec<(usize, &String, &Entry)> = Vec::new();
        for (key, entry) in self.auths.iter().flatten() {
            let (host, namespace) = host_of(key);
            let inside = namespace.is_empty()
                || repository.strip_prefix(namespace).is_some_and(|r| r.is_empty() || r.starts_with('/'));
            if names.contains(&host) && inside {
                fitting.push((namespace.len(), key, entry));
            }
        }
        fitting.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        for (_, key, entry) in fitting {
            if let Some(credentials) = entry.credentials(key)? {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }
}

impl Entry {
    fn credentials(&self, key: &str) -> Result<Option<Credentials>, DockerConfigError> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credentials::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = given(&self.auth) {
            let bad = || DockerConfigError::Auth(key.chars().take(80).collect());
            let raw = STANDARD.decode(auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(raw).map_err(|_| bad())?;
            let (username, password) = text.split_once(':').ok_or_else(bad)?;
            return Ok(Some(Credentials::password(username, password.trim_end_matches('\0'))));
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(Credentials::password(username, password))),
            _ => Ok(None),
        }
    }
}

/// Host (with port) and namespace of a key: `https://index.docker.io/v1/` is the host alone, `quay.io/team` both.
fn host_of(key: &str) -> (&str, &str) {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
    match path.trim_end_matches('/') {
        "v1" | "v2" => (host, ""),
        _ if bare.is_some() => (host, ""),
        namespace => (host, namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(config: &DockerConfig, names: &[&str], repository: &str) -> Option<String> {
        match config.login(names, repository).unwrap() {
            Some(Credentials::Password { username, .. }) => Some(username),
            Some(_) => Some("token".to_owned()),
            None => None,
        }
    }

    #[test]
    fn each_key_answers_for_its_own_host_and_port_only() {
        let text = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "example.com":{"username":"a","password":"b"},
            "example.com:5000":{"auth":"cG9ydDpwdw=="},
            "quay.io":{"auth":"cTpw"}, "quay.io/team":{"auth":"dGVhbTpw"},
            "ecr.example":{"identitytoken":"t","auth":"PHRva2VuPjo="},
            "empty.example":{}}}"#;
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(user(&config, &["docker.io", "index.docker.io"], "library/a").as_deref(), Some("hub"));
        assert_eq!(user(&config, &["example.com"], "x").as_deref(), Some("a"));
        assert_eq!(user(&config, &["example.com:5000"], "x").as_deref(), Some("port"));
        assert_eq!(user(&config, &["example.com:5001"], "x"), None);
        assert_eq!(user(&config, &["quay.io"], "team/app").as_deref(), Some("team"));
        assert_eq!(user(&config, &["quay.io"], "teamster/app").as_deref(), Some("q"));
        assert_eq!(user(&config, &["ecr.example"], "x").as_deref(), Some("token"));
        assert_eq!(user(&config, &["empty.example"], "x"), None);
        assert_eq!(user(&config, &["evil.com"], "x"), None);
    }

    #[test]
    fn the_helper_of_a_host_goes_before_the_store() {
        let text = r#"{"credsStore":"pass","credHelpers":{"gcr.io":"gcloud"},"auths":null}"#;
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.helper(&["gcr.io"]), Some("gcloud"));
        assert_eq!(config.helper(&["other.io"]), Some("pass"));
        assert_eq!(DockerConfig::default().helper(&["other.io"]), None);
    }

    #[test]
    fn errors_and_debug_output_hold_no_secret() {
        let wrong = DockerConfig::parse(br#"{"auths":{"a":{"auth":["hunter2"]}}}"#).unwrap_err();
        assert!(!format!("{wrong:?} {wrong}").contains("hunter2"));
        let config = DockerConfig::parse(br#"{"auths":{"a":{"password":"hunter2"}}}"#).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let bad = DockerConfig::parse(br#"{"auths":{"a.io":{"auth":"!hunter2"}}}"#).unwrap();
        let error = bad.login(&["a.io"], "x").unwrap_err();
        assert!(error.to_string().contains("a.io") && !format!("{error:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(config) = DockerConfig::parse(&text) {
                let _ = config.login(&["a"], "b");
            }
        }
    }
}
