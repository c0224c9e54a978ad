//! References: how people name images, normalised as Docker does.
//!
//! `alpine` is `docker.io/library/alpine:latest`. The rules are those of `distribution/reference` (its grammar stands in
//! the doc comment of its `reference.go`); `storage-registry` compares this parser with `oci-client`'s in a property test.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A whole reference: registry, repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("an image reference may not be empty: write it as [registry/]repository[:tag][@digest]")]
    Empty,
    /// Longer than any registry accepts.
    #[error("the image reference is {0} bytes long: at most 4096 are read")]
    TooLong(usize),
    /// The registry is not `host` or `host:port`.
    #[error("{0:?} is not a registry: write host or host:port")]
    Registry(String),
    /// The repository has characters outside Docker's alphabet.
    #[error("repository {0:?} is not valid: use lower-case letters, digits, and . _ - between them{hint}", hint = case_hint(.0))]
    Repository(String),
    /// Longer than 255 characters.
    #[error("repository {0:?}... is longer than 255 characters")]
    RepositoryTooLong(String),
    /// The tag has characters outside Docker's alphabet.
    #[error("tag {0:?} is not valid: use up to 128 letters, digits, _ . and -, not starting with . or -")]
    Tag(String),
    /// The digest is not one.
    #[error("the digest in the image reference is not valid")]
    Digest(#[from] crate::DigestError),
}

fn case_hint(repository: &str) -> &'static str {
    if repository.bytes().any(|c| c.is_ascii_uppercase()) { " (it has capital letters)" } else { "" }
}

/// Registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// Registry as the user means it: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository inside the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag, when there is one; `latest` is filled in only when there is no digest either.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest, when the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What is asked of the registry: the digest if there is one, else the tag.
    pub fn object(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository, pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The name as people write it: without `docker.io/library/`, or without `docker.io/`, where it means the same then.
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let Some(rest) = whole.strip_prefix("docker.io/") else { return whole };
        match self.repository.split_once('/') {
            Some(("library", name)) if !name.contains('/') => rest["library/".len()..].to_owned(),
            Some((first, _)) if is_registry(first) => whole,
            _ => rest.to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > 4096 {
            return Err(ReferenceError::TooLong(text.len()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        let registry = match registry {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        check_registry(registry)?;
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        check_repository(&repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Docker's rule: the first component is a registry if it could not be a repository component.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|c| c.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Registry(registry.chars().take(80).collect());
    let (host, port) = if let Some(inner) = registry.strip_prefix('[') {
        let (address, after) = inner.split_once(']').ok_or_else(bad)?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad());
        }
        match after {
            "" => return Ok(()),
            port => (None, Some(port.strip_prefix(':').ok_or_else(bad)?)),
        }
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        }
    };
    if let Some(host) = host {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return Err(bad());
        }
    }
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return Err(bad());
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    if repository.len() > 255 {
        return Err(ReferenceError::RepositoryTooLong(repository.chars().take(40).collect()));
    }
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err(ReferenceError::Repository(repository.chars().take(255).collect()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(first) || !word(last) {
        return false;
    }
    bytes
        .split(|c| word(*c))
        .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|c| *c == b'-'))
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let first = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let fine = tag.len() <= 128
        && tag.bytes().next().is_some_and(first)
        && tag.bytes().all(|c| first(c) || c == b'.' || c == b'-');
    if fine { Ok(()) } else { Err(ReferenceError::Tag(tag.chars().take(140).collect())) }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_normalised_as_docker_does() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("library/alpine", "docker.io/library/alpine:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("ghcr.io/x/y", "ghcr.io/x/y:latest"),
            ("HOST/app", "HOST/app:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), whole, "{text}");
        }
        let pinned: Reference = format!("alpine@sha256:{HEX}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/alpine@sha256:{HEX}"));
        assert_eq!(pinned.tag(), None);
        let both: Reference = format!("alpine:3@sha256:{HEX}").parse().unwrap();
        assert_eq!((both.tag(), both.object()), (Some("3"), format!("sha256:{HEX}")));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            ":tag",
            "a//b",
            "/a",
            "a/",
            "Alpine",
            "a:",
            "a:.b",
            "a:b:c",
            "a@sha256:00",
            "a@",
            "a b",
            "a\n",
            "../../etc/passwd",
            "host:99999/a",
            "host:/a",
            "-host.io/a",
            "a.b./c",
            "https://ghcr.io/a",
            "a___b",
            "a._b",
            "[::1/a",
            "\u{e9}",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn familiar_names_drop_what_docker_drops() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/alpine:latest"), "alpine:latest");
        assert_eq!(familiar("docker.io/user/app"), "user/app:latest");
        assert_eq!(familiar("ghcr.io/x/y:1"), "ghcr.io/x/y:1");
    }

    /// Found by fuzzing: `library/a/b` was shown as `a/b`, which is another image.
    #[test]
    fn familiar_names_mean_the_same_image() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("library/a/b"), "library/a/b:latest");
        assert_eq!(familiar("docker.io/localhost/a"), "docker.io/localhost/a:latest");
        assert_eq!(familiar("docker.io/host.example/a"), "docker.io/host.example/a:latest");
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "([a-zA-Z0-9.-]{1,12}(:[0-9]{1,5})?/)?[a-z0-9._/-]{1,20}(:[A-Za-z0-9._-]{1,10})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Reference>();
        }
    }
}
