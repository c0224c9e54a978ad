//! Lists: repositories, tags, referrers. Each is cut to a page; the next one is named in `Link` (RFC 8288).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;
use storage_model::{Descriptor, Digest, media};

use crate::backend::Backend;
use crate::reply::{Refusal, Reply, with_body};
use crate::request::{Name, Page};
use crate::server::Mirror;

/// Longest page, in entries: a client that asks for more gets this many and the way to the rest.
const PAGE_MAX: usize = 1000;
/// Most referrers told of one manifest.
const REFERRERS_MAX: usize = 1000;

/// An entry of a list of referrers: a descriptor, and what kind of artifact it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
}

impl<B: Backend> Mirror<B> {
    /// Answers with the repositories, each by its whole name.
    pub(crate) async fn catalog(&self, page: &Page) -> Result<Reply, Refusal> {
        let view = self.view().await?;
        let (entries, more) = cut(view.names(), page);
        Ok(list(json!({"repositories": entries}), &entries, more, "/v2/_catalog", page, ""))
    }

    /// Answers with the tags of a repository.
    pub(crate) async fn tags(&self, name: &Name, page: &Page) -> Result<Reply, Refusal> {
        let view = self.view().await?;
        let (_, repository) = view.find(name)?.ok_or_else(|| Refusal::NoRepository(name.path.clone()))?;
        let (entries, more) = cut(repository.tags.keys().map(String::as_str), page);
        let body = json!({"name": name.path, "tags": entries});
        let ns =
            name.registry.as_ref().map(|registry| format!("&ns={}", escape(registry))).unwrap_or_default();
        Ok(list(body, &entries, more, &format!("/v2/{}/tags/list", name.path), page, &ns))
    }

    /// Answers with the manifests of a repository whose subject is `digest`; none is an empty list, not an error.
    pub(crate) async fn referrers(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Reply, Refusal> {
        let view = self.view().await?;
        let mut found: BTreeMap<Digest, Referrer> = BTreeMap::new();
        if let Some((_, repository)) = view.find(name)? {
            // Clients of registries without this API list referrers in an index with a name made of the digest.
            let listed = repository.tags.get(&format!("sha256-{}", digest.hex()));
            let roots: Vec<_> = listed.into_iter().chain(&repository.roots).cloned().collect();
            self.graph
                .walk(&*self.backend, &roots, |descriptor, node| {
                    if let Some(node) = node.filter(|node| node.subject == Some(*digest)) {
                        let mut descriptor =
                            Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size);
                        descriptor.annotations.clone_from(&node.annotations);
                        let artifact_type = node.artifact_type.clone();
                        found.insert(descriptor.digest, Referrer { descriptor, artifact_type });
                    }
                    found.len() < REFERRERS_MAX
                })
                .await?;
        }
        let wanted =
            |one: &Referrer| artifact_type.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind));
        let manifests: Vec<_> = found.into_values().filter(wanted).collect();
        let body = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
        let mut reply = with_body(StatusCode::OK, media::OCI_INDEX, body.to_string().into());
        if artifact_type.is_some() {
            reply.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
        }
        Ok(reply)
    }
}

/// The page of sorted `entries` that was asked for, and whether more come after it.
fn cut<'a>(entries: impl Iterator<Item = &'a str>, page: &Page) -> (Vec<&'a str>, bool) {
    let n = page.n.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let mut after = entries.filter(|entry| page.last.as_deref().is_none_or(|last| *entry > last));
    let entries: Vec<_> = after.by_ref().take(n).collect();
    // Nobody can go on from an empty page.
    let more = !entries.is_empty() && after.next().is_some();
    (entries, more)
}

fn list(body: serde_json::Value, entries: &[&str], more: bool, path: &str, page: &Page, rest: &str) -> Reply {
    let mut reply = with_body(StatusCode::OK, "application/json", Bytes::from(body.to_string()));
    if let (true, Some(last)) = (more, entries.last()) {
        let n = page.n.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let next = format!("<{path}?n={n}&last={}{rest}>; rel=\"next\"", escape(last));
        if let Ok(next) = HeaderValue::from_str(&next) {
            reply.headers_mut().insert(header::LINK, next);
        }
    }
    reply
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_of(n: Option<usize>, last: Option<&str>) -> (Vec<&'static str>, bool) {
        cut(["a", "b", "c"].into_iter(), &Page { n, last: last.map(str::to_owned) })
    }

    #[test]
    fn pages_follow_each_other_and_the_last_one_says_so() {
        assert_eq!(cut_of(None, None), (vec!["a", "b", "c"], false));
        assert_eq!(cut_of(Some(2), None), (vec!["a", "b"], true));
        assert_eq!(cut_of(Some(2), Some("b")), (vec!["c"], false));
        assert_eq!(cut_of(Some(2), Some("bb")), (vec!["c"], false));
        assert_eq!(cut_of(Some(0), None), (vec![], false));
        assert_eq!(cut_of(Some(3), None), (vec!["a", "b", "c"], false));
    }

    #[test]
    fn vuln_c16_a_page_has_its_largest_size_whatever_is_asked() {
        let names: Vec<String> = (0..2000).map(|number| format!("{number:05}")).collect();
        let page = Page { n: Some(1_000_000_000), last: None };
        let (entries, more) = cut(names.iter().map(String::as_str), &page);
        assert_eq!((entries.len(), more), (PAGE_MAX, true));
    }
}
