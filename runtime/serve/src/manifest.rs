//! Manifests and indexes: by tag, by digest, as the client accepts them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use storage_model::{Descriptor, Digest, Reference, media};

use crate::backend::Backend;
use crate::flights::Flight;
use crate::graph::document;
use crate::reply::{Refusal, Reply, empty, is_known, name_content, with_body};
use crate::request::{Name, Object};
use crate::server::Mirror;

/// A document and what it is.
type Found = (Descriptor, Bytes);

impl<B: Backend> Mirror<B> {
    /// Answers for a manifest.
    pub(crate) async fn manifest(
        self: &Arc<Self>,
        name: &Name,
        object: &Object,
        headers: &HeaderMap,
    ) -> Result<Reply, Refusal> {
        let (descriptor, bytes) = match object {
            Object::Tag(tag) => self.tagged(name, tag).await?,
            Object::Digest(digest) => self.named(name, digest).await?,
        };
        if !accepts(headers, &descriptor.media_type) {
            return Err(Refusal::NotAccepted(descriptor.media_type));
        }
        let mut reply = if is_known(headers, &descriptor.digest) {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            with_body(StatusCode::OK, &descriptor.media_type, bytes)
        };
        name_content(reply.headers_mut(), &descriptor.digest, matches!(object, Object::Digest(_)));
        Ok(reply)
    }

    /// What a tag names: at its registry, if that is to be asked and answers, else here.
    async fn tagged(self: &Arc<Self>, name: &Name, tag: &str) -> Result<Found, Refusal> {
        let unknown = || Refusal::NoManifest(format!("{}:{tag}", name.path));
        let view = self.view().await?;
        let found = view.find(name)?;
        let here = found.and_then(|(_, repository)| repository.tags.get(tag).cloned());
        let mut failure = None;
        if let Some(reference) = self.reference(name, found.map(|(name, _)| name), &format!(":{tag}"))
            && let Some(flights) = &self.flights
            && flights.admits(&reference)
            && !(here.is_some() && flights.is_fresh(&reference))
        {
            match self.landed(flights.join(&reference, false)?).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::info!(%reference, %error, "not pulled");
                    failure = Some(error);
                }
            }
        }
        if let Some(target) = here {
            // A damaged or half removed one is an error, not an absence: the tag is here.
            let bytes = document(&*self.backend, &target.digest).await?.ok_or_else(unknown)?;
            return Ok((target, bytes));
        }
        Err(match (failure, found) {
            (Some(failure), _) => failure,
            (None, Some(_)) => unknown(),
            (None, None) => Refusal::NoRepository(name.path.clone()),
        })
    }

    /// The document `digest` of a repository.
    async fn named(self: &Arc<Self>, name: &Name, digest: &Digest) -> Result<Found, Refusal> {
        let view = self.view().await?;
        let found = view.find(name)?;
        let whole = found.map(|(name, _)| name);
        if let Some((_, repository)) = found
            && let Some(descriptor) = self.graph.find(&*self.backend, &repository.roots, digest).await?
            && is_document(&descriptor)
            && let Some(bytes) = document(&*self.backend, digest).await?
        {
            return Ok((descriptor, bytes));
        }
        if self.arriving(name, whole, digest).await?.is_some()
            && let Some(bytes) = document(&*self.backend, digest).await?
            && let Some(descriptor) = describe(&bytes)
        {
            return Ok((descriptor, bytes));
        }
        if let Some(reference) = self.reference(name, whole, &format!("@{digest}"))
            && let Some(flights) = &self.flights
            && flights.admits(&reference)
        {
            return self.landed(flights.join(&reference, true)?).await;
        }
        match found {
            Some(_) => Err(Refusal::NoManifest(digest.to_string())),
            None => Err(Refusal::NoRepository(name.path.clone())),
        }
    }

    /// The reference by which what the client named is pulled, given the repository it means here.
    fn reference(&self, name: &Name, here: Option<&str>, object: &str) -> Option<Reference> {
        let whole = match here {
            Some(whole) => whole.to_owned(),
            None => crate::view::whole_name(&name.reference().ok()?),
        };
        format!("{whole}{object}").parse().ok()
    }

    /// The document a pull resolves its reference to, as soon as it is here.
    async fn landed(self: &Arc<Self>, mut flight: Flight) -> Result<Found, Refusal> {
        loop {
            let state = flight.look();
            if let Some(root) = state.root
                && let Some(bytes) = document(&*self.backend, &root).await?
            {
                let nonsense = || Refusal::NoManifest(format!("{root} (it is no manifest)"));
                return Ok((describe(&bytes).ok_or_else(nonsense)?, bytes));
            }
            match state.ended {
                Some(Err(error)) => return Err(Refusal::Pull(error)),
                Some(Ok(())) => return Err(Refusal::NoManifest(flight.reference.to_string())),
                None => flight.changed().await,
            }
        }
    }
}

fn is_document(descriptor: &Descriptor) -> bool {
    media::is_index(&descriptor.media_type) || media::is_manifest(&descriptor.media_type)
}

/// The descriptor of a document that nothing here points to yet: its type is its own word, or its shape.
pub(crate) fn describe(bytes: &Bytes) -> Option<Descriptor> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    let media_type = match shape {
        Shape { media_type: Some(media_type), .. } => media_type,
        Shape { manifests: Some(_), layers: None, .. } => media::OCI_INDEX.to_owned(),
        Shape { manifests: None, layers: Some(_), .. } => media::OCI_MANIFEST.to_owned(),
        _ => return None,
    };
    let descriptor = Descriptor::of(media_type, bytes);
    is_document(&descriptor).then_some(descriptor)
}

/// Whether `Accept` takes a document of this type. Clients that send none take everything.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    said.peek().is_none()
        || said.flat_map(|text| text.split(',')).any(|one| {
            let range = one.split(';').next().unwrap_or_default().trim();
            range == "*/*" || range == "application/*" || range.eq_ignore_ascii_case(media_type)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_a_type_it_accepts_or_hears_which_one_there_is() {
        let accept = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().unwrap());
            accepts(&headers, media::OCI_INDEX)
        };
        assert!(accepts(&HeaderMap::new(), media::OCI_INDEX));
        assert!(accept("*/*") && accept(&format!("{}, {};q=0.5", media::DOCKER_INDEX, media::OCI_INDEX)));
        assert!(!accept(media::OCI_MANIFEST) && !accept("text/html"));
    }

    #[test]
    fn a_documents_type_is_its_own_word_or_its_shape() {
        let of =
            |text: &'static str| describe(&Bytes::from_static(text.as_bytes())).map(|found| found.media_type);
        let docker = r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","layers":[]}"#;
        assert_eq!(of(docker).as_deref(), Some(media::DOCKER_MANIFEST));
        assert_eq!(of(r#"{"manifests":[]}"#).as_deref(), Some(media::OCI_INDEX));
        assert_eq!(of(r#"{"layers":[]}"#).as_deref(), Some(media::OCI_MANIFEST));
        for no in ["{}", "[]", r#"{"manifests":[],"layers":[]}"#, r#"{"mediaType":"text/html"}"#] {
            assert_eq!(of(no), None, "{no}");
        }
    }
}
