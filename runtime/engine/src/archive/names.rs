//! What images out of an archive are called.
//!
//! An archive names its images in annotations or tags; none of that is believed further than it has to be. A whole name
//! is normalised as Docker does; a tag alone gets the base name in front; an image without a name keeps its digest as one,
//! so that it is not lost. With a base name that the user gave, names outside it count as none (containerd's rule).

use std::collections::BTreeMap;
use std::time::SystemTime;

use storage_model::{Descriptor, Reference};

use super::ArchiveError;

/// Annotation with an image's whole name (containerd, BuildKit, Docker).
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation with an image's tag, or sometimes its whole name (OCI image-layout).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How images are named.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    /// In front of names that are tags alone.
    base: String,
    /// The user gave the base: names outside it count as none.
    within_base: bool,
    /// Named images get `<base>@<digest>` too.
    digests: bool,
}

impl Naming {
    /// # Errors
    /// [`ArchiveError::ImageName`] if the base is no name.
    pub(crate) fn new(base: &str, digests: bool, now: SystemTime) -> Result<Self, ArchiveError> {
        let given = !base.is_empty();
        let text = if given { base.to_owned() } else { format!("import-{}", date(now)) };
        let whole = parse(&text)?;
        let base = format!("{}/{}", whole.registry(), whole.repository());
        Ok(Self { base, within_base: given, digests })
    }

    /// Names of the image `target`, which its descriptor's annotations may name.
    ///
    /// # Errors
    /// [`ArchiveError::ImageName`] if the archive's name for it is none.
    pub(crate) fn of_annotated(&self, target: &Descriptor) -> Result<Vec<String>, ArchiveError> {
        let given = |key: &str| target.annotations.get(key).filter(|name| !name.is_empty());
        let name = given(IMAGE_NAME).or_else(|| given(REF_NAME));
        self.names(name.into_iter().map(String::as_str), target)
    }

    /// Names of the image `target`, which the archive calls `given`.
    ///
    /// # Errors
    /// As [`of_annotated`](Self::of_annotated).
    pub(crate) fn names<'a>(
        &self,
        given: impl Iterator<Item = &'a str>,
        target: &Descriptor,
    ) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        for name in given {
            names.extend(self.whole(name)?);
        }
        if names.is_empty() || self.digests {
            names.push(format!("{}@{}", self.base, target.digest));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn whole(&self, name: &str) -> Result<Option<String>, ArchiveError> {
        if !name.contains(['/', ':', '@']) {
            let whole = format!("{}:{name}", self.base);
            return parse(&whole).map(|reference| Some(reference.to_string()));
        }
        let reference = parse(name)?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let inside =
            repository.strip_prefix(&self.base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        Ok(if self.within_base && !inside { None } else { Some(reference.to_string()) })
    }
}

fn parse(name: &str) -> Result<Reference, ArchiveError> {
    name.parse().map_err(|source| ArchiveError::ImageName { name: name.chars().take(128).collect(), source })
}

/// Annotations that give an image `name` in an archive, besides those it has.
pub(crate) fn annotated(name: &str, target: &Descriptor) -> BTreeMap<String, String> {
    let mut annotations = target.annotations.clone();
    annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    // The tag alone; a name without one is given whole (containerd does the same).
    let tag = match name.parse::<Reference>() {
        Ok(reference) => reference.object(),
        Err(_) => name.to_owned(),
    };
    annotations.insert(REF_NAME.to_owned(), tag);
    annotations
}

/// `YYYY-MM-DD`, UTC.
fn date(now: SystemTime) -> String {
    let date = time::OffsetDateTime::from(now).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};
    use storage_model::media;

    fn target(annotations: &[(&str, &str)]) -> Descriptor {
        let mut target = Descriptor::of(media::OCI_MANIFEST, b"x");
        target.annotations =
            annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        target
    }

    fn names(base: &str, digests: bool, annotations: &[(&str, &str)]) -> Vec<String> {
        let naming = Naming::new(base, digests, UNIX_EPOCH + Duration::from_secs(86_400 * 59)).unwrap();
        naming.of_annotated(&target(annotations)).unwrap()
    }

    #[test]
    fn whole_names_are_normalised_tags_get_the_base_and_the_nameless_their_digest() {
        let digest = target(&[]).digest;
        assert_eq!(
            names("", false, &[(IMAGE_NAME, "alpine")]),
            ["docker.io/library/import-1970-03-01:alpine"]
        );
        assert_eq!(names("", false, &[(IMAGE_NAME, "alpine:3")]), ["docker.io/library/alpine:3"]);
        assert_eq!(names("", false, &[(REF_NAME, "3"), (IMAGE_NAME, "ghcr.io/a/b:4")]), ["ghcr.io/a/b:4"]);
        assert_eq!(names("local/app", false, &[(REF_NAME, "3")]), ["docker.io/local/app:3"]);
        assert_eq!(names("local/app", false, &[]), [format!("docker.io/local/app@{digest}")]);
        assert_eq!(
            names("local/app", true, &[(REF_NAME, "3")]),
            ["docker.io/local/app:3".to_owned(), format!("docker.io/local/app@{digest}")]
        );
    }

    #[test]
    fn vuln_c14_with_a_base_the_archive_cannot_name_anything_outside_it() {
        let digest = target(&[]).digest;
        for name in ["alpine:3", "docker.io/local/application:1", "ghcr.io/local/app:1"] {
            assert_eq!(
                names("local/app", false, &[(IMAGE_NAME, name)]),
                [format!("docker.io/local/app@{digest}")]
            );
        }
        assert_eq!(
            names("local/app", false, &[(IMAGE_NAME, "local/app/part:1")]),
            ["docker.io/local/app/part:1"]
        );
    }

    #[test]
    fn a_name_that_is_none_is_an_error_and_no_invention() {
        let naming = Naming::new("", false, UNIX_EPOCH).unwrap();
        for name in ["../../etc", "a b:c", "UPPER/x:1:2", "-x"] {
            assert!(naming.of_annotated(&target(&[(IMAGE_NAME, name)])).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_annotated_is_read_back_as_the_same_name() {
        for name in ["docker.io/library/alpine:3", "ghcr.io/a/b:v1"] {
            let mut target = target(&[("other", "stays")]);
            target.annotations = annotated(name, &target);
            let naming = Naming::new("", false, UNIX_EPOCH).unwrap();
            assert_eq!(naming.of_annotated(&target).unwrap(), [name]);
            assert_eq!(target.annotations["other"], "stays");
        }
    }
}
