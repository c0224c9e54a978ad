//! From what a person writes to an image that is here.
//!
//! In this order, the first that finds something: the name itself; the whole name it is short for; and, if the text is a
//! digest or at least seven hex digits of one, the images whose target, manifest or config begins with it.

use storage_content::{ErrorKind, ImageRecord, Space};
use storage_model::{Document, Namespace, Reference};

use super::{ImageError, documents};
use crate::{Engine, EngineError};

/// Fewest hex digits that stand for a digest: Git's and Docker's custom, and 28 bits against clashes.
const HEX_DIGITS_MIN: usize = 7;
/// Most names listed in an error.
const NAMED_MAX: usize = 8;

impl Engine {
    /// Finds the image that `text` means: its name, a short name, a digest, or at least seven hex digits of the digest
    /// of its target, of a manifest or of a config.
    ///
    /// Several names of one target are one image; the first by name stands for it.
    ///
    /// # Errors
    /// [`EngineError::NoImage`] if there is none; [`ImageError::Ambiguous`] lists those there are when they have
    /// different targets.
    pub fn resolve_image(&self, namespace: &Namespace, text: &str) -> Result<ImageRecord, EngineError> {
        find(&self.space(namespace), text)
    }
}

/// See [`Engine::resolve_image`].
pub(crate) fn find(space: &Space, text: &str) -> Result<ImageRecord, EngineError> {
    if let Some(record) = by_name(space, text)? {
        return Ok(record);
    }
    let images = space.images()?;
    if let Some(prefix) = hex_prefix(text) {
        let found: Vec<ImageRecord> =
            images.iter().filter(|record| has_digest(space, record, prefix)).cloned().collect();
        if let [first, others @ ..] = found.as_slice() {
            if others.iter().all(|other| other.target.digest == first.target.digest) {
                return Ok(first.clone());
            }
            let candidates = named(
                found.iter().map(|record| format!("{} ({})", record.name, record.target.digest.short())),
            );
            return Err(ImageError::Ambiguous { text: text.to_owned(), candidates }.into());
        }
    }
    Err(EngineError::NoImage {
        name: text.to_owned(),
        namespace: space.namespace().to_string(),
        similar: similar(&images, text),
    })
}

/// The image called `text`, or what that is short for.
pub(crate) fn by_name(space: &Space, text: &str) -> Result<Option<ImageRecord>, EngineError> {
    let whole = text.parse::<Reference>().ok().map(|reference| reference.to_string());
    for name in std::iter::once(text.to_owned()).chain(whole) {
        match space.image(&name) {
            Ok(record) => return Ok(Some(record)),
            // What cannot be a name may still be a digest, or nothing at all.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The hex digits with which a digest begins, if the text is nothing else.
pub(crate) fn hex_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let fits = (HEX_DIGITS_MIN..=64).contains(&hex.len());
    (fits && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(hex)
}

/// Whether the target of an image, or a manifest or config below it that is here, begins with these digits. Documents
/// that cannot be read match nothing: a damaged image does not hide others.
fn has_digest(space: &Space, record: &ImageRecord, prefix: &str) -> bool {
    if record.target.digest.hex().starts_with(prefix) {
        return true;
    }
    let config = |document: &Document| match document {
        Document::Manifest(manifest) => manifest.config.digest.hex().starts_with(prefix),
        Document::Index(_) => false,
    };
    match documents::document(space, &record.name, &record.target) {
        Ok(Document::Index(index)) => index.manifests.iter().any(|entry| {
            entry.digest.hex().starts_with(prefix)
                || documents::document(space, &record.name, entry).is_ok_and(|document| config(&document))
        }),
        Ok(document) => config(&document),
        Err(_) => false,
    }
}

/// Images in other repositories of the same last name: what was probably meant.
fn similar(images: &[ImageRecord], text: &str) -> String {
    let Ok(wanted) = text.parse::<Reference>() else { return String::new() };
    let last = |reference: &Reference| reference.repository().rsplit('/').next().map(str::to_owned);
    let close = images.iter().filter(|record| {
        record.name.parse::<Reference>().is_ok_and(|reference| last(&reference) == last(&wanted))
    });
    named(close.map(|record| record.name.clone()))
}

fn named(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_seven_to_sixty_four_lower_hex_digits_stand_for_a_digest() {
        for text in ["0123456", "sha256:abcdef0", &"a".repeat(64)] {
            assert!(hex_prefix(text).is_some(), "{text}");
        }
        for text in ["012345", "sha256:", "sha512:abcdef0", "ABCDEF0", "abcdefg", "", &"a".repeat(65)] {
            assert!(hex_prefix(text).is_none(), "{text}");
        }
    }
}
