//! Referrers: which manifests say that they are about another one (signatures, SBOMs).
//!
//! Registries of distribution-spec 1.1 list them at `referrers/<digest>`, page by page; for the others a tag made of the
//! digest names an index that pushing clients keep (`sha256-<hex>`, "Referrers Tag Schema").
//!
//! Nothing listed is verified here: a descriptor says where to look, and what is fetched by it is proved.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use storage_model::{Descriptor, Digest, Reference, limits, media};

use crate::body::Body;
use crate::call::{Call, Place};
use crate::client::Core;
use crate::endpoint::escape;
use crate::session::admit;
use crate::{Client, RegistryError, Target};

/// Most pages of one list that are read.
const PAGES_MAX: usize = 16;

/// A manifest that refers to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its type, digest and size, and its annotations.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What kind of artifact it is, such as `application/vnd.dev.cosign.simplesigning.v1+json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// A list of referrers as registries give it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schema_version: u32,
    #[serde(default = "index_type")]
    media_type: String,
    manifests: Vec<Referrer>,
}

/// What a pushed manifest says of itself, as far as a list of referrers repeats it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pushed {
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

fn index_type() -> String {
    media::OCI_INDEX.to_owned()
}

impl Client {
    /// The manifests whose `subject` is `digest`, of all kinds or only of `artifact_type`, in the registry's order.
    /// A registry without the API and without the tag that stands for it has none.
    ///
    /// # Errors
    /// As [`Client::resolve`]; [`RegistryError::MediaType`] if the answer is no index,
    /// [`RegistryError::TooLarge`] if a page of it is longer than a manifest may be.
    ///
    /// Cancel safety: nothing is left behind.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let mut found = match self.core().listed(reference, digest, artifact_type).await {
            Err(RegistryError::NotFound { .. }) => self.core().tagged(reference, digest).await?,
            other => other?,
        };
        found.retain(|found| {
            artifact_type.is_none_or(|wanted| found.artifact_type.as_deref() == Some(wanted))
        });
        Ok(found)
    }
}

impl Core {
    /// What the referrers API lists, at the first place that may say what a tag is.
    async fn listed(
        &self,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let target = Target::at(reference, digest.to_string());
        let place = self.places(reference.registry(), &target, true, None)?.remove(0);
        let filter = artifact_type.map(|kind| format!("?artifactType={}", escape(kind))).unwrap_or_default();
        let mut next = Some(Place::Path(format!("referrers/{digest}{filter}")));
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(page) = next.take() else { break };
            let base = match &page {
                Place::Named(uri) => Some(uri.clone()),
                Place::Path(path) => place.uri(self.scheme_of(&place), reference.repository(), path),
            };
            let call = Call { place: page, ..Call::get(&place, &target, String::new()) };
            let answer = self.persist(&call).await?;
            let (head, body) = answer.response.into_parts();
            let body = Body::new(body, &self.config.retry).collect(limits::MANIFEST_BYTES_MAX).await;
            let max = limits::MANIFEST_BYTES_MAX;
            let bytes = body.map_err(|fault| self.body_error(fault, &target, &answer.host, 0, max))?;
            found.extend(entries(&bytes, &target, &answer.host)?);
            if let (Some(link), Some(base)) = (next_page(&head.headers), base) {
                next = Some(Place::Named(admit(&call, &base, Some(&link))?));
            }
        }
        Ok(found)
    }

    /// What the tag lists that stands for the API.
    async fn tagged(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let Some(tag) = tag_of(reference, digest) else { return Ok(Vec::new()) };
        match self.resolve(&tag).await {
            Ok(resolved) => {
                entries(&resolved.bytes.unwrap_or_default(), &Target::of(&tag), reference.registry())
            }
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Adds a pushed manifest to the tag that lists the referrers of its subject, if it has a subject.
    ///
    /// Two clients that do this at once for one subject may lose one entry: the protocol has no way to refuse the
    /// second.
    pub(crate) async fn list_referrer(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let Ok(Pushed { subject: Some(subject), artifact_type, config, annotations }) =
            serde_json::from_slice::<Pushed>(bytes)
        else {
            return Ok(());
        };
        let Some(tag) = tag_of(reference, &subject.digest) else { return Ok(()) };
        let mut manifests = self.tagged(reference, &subject.digest).await?;
        let mut descriptor = Descriptor::of(media_type, bytes);
        if manifests.iter().any(|known| known.descriptor.digest == descriptor.digest) {
            return Ok(());
        }
        descriptor.annotations = annotations.unwrap_or_default();
        let artifact_type = artifact_type.or(config.map(|config| config.media_type));
        manifests.push(Referrer { descriptor, artifact_type });
        let list = List { schema_version: 2, media_type: index_type(), manifests };
        let list = serde_json::to_vec(&list).expect("strings and numbers are JSON");
        self.put_manifest(&tag, media::OCI_INDEX, list.into()).await.map(|_| ())
    }
}

/// The tag that lists the referrers of `digest`.
fn tag_of(reference: &Reference, digest: &Digest) -> Option<Reference> {
    format!("{}/{}:sha256-{}", reference.registry(), reference.repository(), digest.hex()).parse().ok()
}

fn entries(bytes: &[u8], target: &Arc<Target>, host: &str) -> Result<Vec<Referrer>, RegistryError> {
    let list: List = serde_json::from_slice(bytes).map_err(|_| RegistryError::MediaType {
        target: Arc::clone(target),
        host: host.to_owned(),
        content_type: "no list of referrers".to_owned(),
    })?;
    if list.manifests.len() > limits::INDEX_ENTRIES_MAX {
        return Err(RegistryError::TooLarge { target: Arc::clone(target), max: limits::MANIFEST_BYTES_MAX });
    }
    Ok(list.manifests)
}

/// The address in `Link: <ADDRESS>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::LINK)?.to_str().ok()?;
    let (address, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
    next.then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_the_next_page_is_followed() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, text.parse().unwrap());
            next_page(&headers)
        };
        assert_eq!(read("</v2/a?x=1>; rel=\"next\"").as_deref(), Some("/v2/a?x=1"));
        assert_eq!(read("<https://a/b>;title=x; rel=next").as_deref(), Some("https://a/b"));
        for wrong in ["", "</v2/a>", "</v2/a>; rel=\"prev\"", "/v2/a; rel=next", "</v2/a; rel=next"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
