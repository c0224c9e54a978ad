//! A request's method and address as one of the questions this API has. Pure, and bounded by the length of its input.
//!
//! ```text
//! /v2/                                  is anybody there
//! /v2/_catalog?n=&last=                 repositories
//! /v2/NAME/tags/list?n=&last=           tags of one
//! /v2/NAME/manifests/TAG|DIGEST         a document
//! /v2/NAME/blobs/DIGEST                 a blob
//! /v2/NAME/referrers/DIGEST?artifactType=
//! ```
//! Each may carry `ns=REGISTRY`, as containerd asks mirrors (its `docs/hosts.md`).

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use storage_model::{Digest, Reference};

/// Longest path and query that are read, in bytes: a name has 255 at most, a digest 71.
const ADDRESS_BYTES_MAX: usize = 4096;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Whether this is a registry.
    Root,
    /// Which repositories there are.
    Catalog(Page),
    /// Which tags a repository has.
    Tags(Name, Page),
    /// A manifest or index.
    Manifest(Name, Object),
    /// A blob.
    Blob(Name, Digest),
    /// The manifests whose subject is this one, all or of one type.
    Referrers(Name, Digest, Option<String>),
}

/// A repository as the client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What stands in the path.
    pub path: String,
    /// The registry, when the client said it apart (`ns`).
    pub registry: Option<String>,
}

/// What a manifest is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// By tag.
    Tag(String),
    /// By digest.
    Digest(Digest),
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most this many entries.
    pub n: Option<usize>,
    /// Only entries after this one.
    pub last: Option<String>,
}

/// Why a request is none of the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskFault {
    /// A method that changes something, or an address of the write half.
    #[error("this registry is a mirror: it can be read only")]
    Unsupported,
    /// An address that no API has.
    #[error("there is nothing at this address: registries answer below /v2/")]
    Unknown,
    /// A name outside the grammar.
    #[error("the repository name is not valid")]
    Name,
    /// A tag outside the grammar.
    #[error("the tag is not valid")]
    Tag,
    /// A digest that is none, or of another algorithm than sha256.
    #[error("the digest is not valid: write sha256: and 64 hexadecimal digits")]
    Digest,
    /// `n` is not a number.
    #[error("n should be a number of entries")]
    Number,
}

/// Reads a request.
///
/// # Errors
/// [`AskFault`] says what is wrong with it.
pub fn parse(method: &Method, uri: &Uri) -> Result<Ask, AskFault> {
    if uri.path().len() + uri.query().map_or(0, str::len) > ADDRESS_BYTES_MAX {
        return Err(AskFault::Unknown);
    }
    let path = decoded(uri.path()).ok_or(AskFault::Unknown)?;
    let query = Query::of(uri.query().unwrap_or_default());
    let rest = path.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let rest = rest.ok_or(AskFault::Unknown)?.trim_start_matches('/');
    if method != Method::GET && method != Method::HEAD {
        return Err(AskFault::Unsupported);
    }
    match rest {
        "" => return Ok(Ask::Root),
        "_catalog" => return Ok(Ask::Catalog(query.page()?)),
        _ => {}
    }
    let (front, object) = rest.rsplit_once('/').ok_or(AskFault::Unknown)?;
    let (name, kind) = front.rsplit_once('/').ok_or(AskFault::Unknown)?;
    if front.ends_with("/blobs/uploads") || name.ends_with("/blobs/uploads") {
        return Err(AskFault::Unsupported);
    }
    let name = || Name::read(name, &query);
    let digest = || object.parse::<Digest>().map_err(|_| AskFault::Digest);
    match (kind, object) {
        ("tags", "list") => Ok(Ask::Tags(name()?, query.page()?)),
        ("manifests", _) if object.contains(':') => Ok(Ask::Manifest(name()?, Object::Digest(digest()?))),
        ("manifests", _) => {
            let name = name()?;
            // The grammar of tags is that of references.
            let whole = format!("registry.invalid/a:{object}").parse::<Reference>();
            if whole.is_ok_and(|whole| whole.tag() == Some(object) && whole.repository() == "a") {
                Ok(Ask::Manifest(name, Object::Tag(object.to_owned())))
            } else {
                Err(AskFault::Tag)
            }
        }
        ("blobs", _) => Ok(Ask::Blob(name()?, digest()?)),
        ("referrers", _) => Ok(Ask::Referrers(name()?, digest()?, query.get("artifactType"))),
        _ => Err(AskFault::Unknown),
    }
}

impl Name {
    fn read(path: &str, query: &Query) -> Result<Self, AskFault> {
        let name = Self { path: path.to_owned(), registry: query.get("ns").filter(|ns| !ns.is_empty()) };
        name.reference().map(|_| name)
    }

    /// The repository as a reference: of the registry that was said, or that the path begins with, or Docker Hub.
    ///
    /// # Errors
    /// [`AskFault::Name`] if no reference can have such a name.
    pub fn reference(&self) -> Result<Reference, AskFault> {
        let whole = match self.registry.as_deref() {
            Some("registry-1.docker.io" | "index.docker.io") => format!("docker.io/{}", self.path),
            Some(registry) => format!("{registry}/{}", self.path),
            None => self.path.clone(),
        };
        let reference: Reference = whole.parse().map_err(|_| AskFault::Name)?;
        // A tag, a digest, or a registry that reads as part of the name would be another name than the one asked.
        let plain =
            !self.path.contains('@') && reference.tag() == Some("latest") && !self.path.ends_with(":latest");
        let said = self.registry.as_deref().is_none_or(|registry| {
            registry == reference.registry()
                || (registry.ends_with("docker.io") && reference.registry() == "docker.io")
        });
        if plain && said { Ok(reference) } else { Err(AskFault::Name) }
    }

    /// Whether the registry is the client's word, not our guess.
    pub fn is_whole(&self) -> bool {
        let first = self.path.split_once('/').map(|(first, _)| first);
        self.registry.is_some()
            || first.is_some_and(|first| first == "localhost" || first.contains(['.', ':']))
    }
}

/// A query, not yet decoded.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(key, _)| *key == name)?;
        decoded(&value.replace('+', "%20"))
    }

    fn page(&self) -> Result<Page, AskFault> {
        let n = match self.get("n") {
            None => None,
            Some(text) if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) => {
                Some(text.parse().unwrap_or(usize::MAX))
            }
            Some(_) => return Err(AskFault::Number),
        };
        Ok(Page { n, last: self.get("last").filter(|last| !last.is_empty()) })
    }
}

/// Undoes percent-encoding once; `None` for what is no UTF-8 or has control characters.
fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.chars().any(char::is_control)).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(address: &str) -> Result<Ask, AskFault> {
        parse(&Method::GET, &address.parse().unwrap())
    }

    fn name(path: &str) -> Name {
        Name { path: path.to_owned(), registry: None }
    }

    #[test]
    fn each_address_of_the_api_is_understood() {
        let digest = Digest::of(b"x");
        assert_eq!(ask("/v2"), Ok(Ask::Root));
        assert_eq!(ask("/v2/"), Ok(Ask::Root));
        let page = Page { n: Some(5), last: Some("a/b".to_owned()) };
        assert_eq!(ask("/v2/_catalog?n=5&last=a%2Fb"), Ok(Ask::Catalog(page)));
        assert_eq!(ask("/v2/a/b/c/tags/list"), Ok(Ask::Tags(name("a/b/c"), Page::default())));
        assert_eq!(ask("/v2/tags/list/tags/list"), Ok(Ask::Tags(name("tags/list"), Page::default())));
        assert_eq!(ask(&format!("/v2/a/blobs/{digest}")), Ok(Ask::Blob(name("a"), digest)));
        let encoded = digest.to_string().replace(':', "%3A");
        let wanted = Ask::Manifest(name("blobs"), Object::Digest(digest));
        assert_eq!(ask(&format!("/v2/blobs/manifests/{encoded}")), Ok(wanted));
        let of = Name { path: "library/alpine".to_owned(), registry: Some("docker.io".to_owned()) };
        let wanted = Ask::Manifest(of, Object::Tag("3.20".to_owned()));
        assert_eq!(ask("/v2/library/alpine/manifests/3.20?ns=docker.io"), Ok(wanted));
        let wanted = Ask::Referrers(name("a"), digest, Some("application/x+y".to_owned()));
        assert_eq!(ask(&format!("/v2/a/referrers/{digest}?artifactType=application/x%2By")), Ok(wanted));
    }

    #[test]
    fn what_is_no_question_is_named() {
        for (address, fault) in [
            ("/", AskFault::Unknown),
            ("/v1/", AskFault::Unknown),
            ("/v2x", AskFault::Unknown),
            ("/v2/a", AskFault::Unknown),
            ("/v2/a/things/b", AskFault::Unknown),
            ("/v2/A/tags/list", AskFault::Name),
            ("/v2/a/../b/tags/list", AskFault::Name),
            ("/v2/a//b/tags/list", AskFault::Name),
            ("/v2/a:1/tags/list", AskFault::Name),
            ("/v2/a:latest/tags/list", AskFault::Name),
            ("/v2/a/tags/list?ns=a/b", AskFault::Name),
            ("/v2/a/tags/list?ns=%20", AskFault::Name),
            ("/v2/a/tags/list?n=-1", AskFault::Number),
            ("/v2/a/tags/list?n=x", AskFault::Number),
            ("/v2/a/manifests/.x", AskFault::Tag),
            ("/v2/a/manifests/x@y", AskFault::Tag),
            ("/v2/a/manifests/sha256:x", AskFault::Digest),
            ("/v2/a/blobs/md5:x", AskFault::Digest),
            ("/v2/a/blobs/uploads/", AskFault::Unsupported),
            ("/v2/a/blobs/uploads/1", AskFault::Unsupported),
            ("/v2/a%00b/tags/list", AskFault::Unknown),
        ] {
            assert_eq!(ask(address), Err(fault), "{address}");
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let asked = parse(&method, &"/v2/a/manifests/x".parse().unwrap());
            assert_eq!(asked, Err(AskFault::Unsupported));
        }
    }

    #[test]
    fn vuln_c16_a_number_of_entries_past_any_list_is_cut_and_a_long_address_is_refused() {
        let asked = ask("/v2/_catalog?n=99999999999999999999999999");
        assert_eq!(asked, Ok(Ask::Catalog(Page { n: Some(usize::MAX), last: None })));
        assert_eq!(ask(&format!("/v2/_catalog?last={}", "a".repeat(5000))), Err(AskFault::Unknown));
    }

    #[test]
    fn a_name_is_whole_when_the_client_said_the_registry() {
        let of = |path: &str, registry: Option<&str>| {
            let name = Name { path: path.to_owned(), registry: registry.map(str::to_owned) };
            (name.reference().unwrap().to_string(), name.is_whole())
        };
        assert_eq!(of("alpine", None), ("docker.io/library/alpine:latest".to_owned(), false));
        assert_eq!(of("a/b", None), ("docker.io/a/b:latest".to_owned(), false));
        assert_eq!(of("ghcr.io/a/b", None), ("ghcr.io/a/b:latest".to_owned(), true));
        assert_eq!(of("localhost:5000/b", None), ("localhost:5000/b:latest".to_owned(), true));
        assert_eq!(of("library/a", Some("docker.io")), ("docker.io/library/a:latest".to_owned(), true));
        let hub = ("docker.io/library/a:latest".to_owned(), true);
        assert_eq!(of("a", Some("registry-1.docker.io")), hub);
        assert_eq!(of("a", Some("r.example:5000")), ("r.example:5000/a:latest".to_owned(), true));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_nothing_panics_and_a_name_is_a_reference(path in "/v2/[ -~]{0,80}", put in any::<bool>()) {
            if let Ok(uri) = path.parse::<Uri>() {
                let method = if put { Method::PUT } else { Method::GET };
                if let Ok(Ask::Tags(name, _) | Ask::Manifest(name, _) | Ask::Blob(name, _)) = parse(&method, &uri) {
                    prop_assert!(name.reference().is_ok());
                    prop_assert!(!put);
                }
            }
        }
    }
}
