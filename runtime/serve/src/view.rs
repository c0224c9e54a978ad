//! The store's images as repositories with tags, and which of them a client's name means.
//!
//! Names that are no whole references (an import may make such) are not served: nobody could ask for them.

use std::collections::BTreeMap;

use storage_model::{Descriptor, Reference};

use crate::backend::Image;
use crate::reply::Refusal;
use crate::request::Name;

/// All repositories at one moment, by `registry/repository`.
#[derive(Debug, Default)]
pub(crate) struct View {
    repositories: BTreeMap<String, Repository>,
}

/// One repository.
#[derive(Debug, Default, Clone)]
pub(crate) struct Repository {
    /// Tags and what they name.
    pub(crate) tags: BTreeMap<String, Descriptor>,
    /// What its images, tagged or not, begin with.
    pub(crate) roots: Vec<Descriptor>,
}

/// `registry/repository` of a reference.
pub(crate) fn whole_name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

impl View {
    pub(crate) fn of(images: Vec<Image>) -> Self {
        let mut view = Self::default();
        for image in images {
            let Ok(reference) = image.name.parse::<Reference>() else { continue };
            if reference.to_string() != image.name {
                continue;
            }
            let repository = view.repositories.entry(whole_name(&reference)).or_default();
            if let (Some(tag), None) = (reference.tag(), reference.digest()) {
                repository.tags.insert(tag.to_owned(), image.target.clone());
            }
            repository.roots.push(image.target);
        }
        view
    }

    /// Names of all repositories, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.repositories.keys().map(String::as_str)
    }

    /// The repository that `name` means, if it is here.
    ///
    /// A name without a registry is Docker Hub's if that has it (Docker asks its mirrors so), else that of the only
    /// registry that has it.
    ///
    /// # Errors
    /// [`Refusal::Ambiguous`] if several registries have it.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<(&str, &Repository)>, Refusal> {
        let reference = name.reference().map_err(Refusal::Ask)?;
        let whole = whole_name(&reference);
        if let Some((found, repository)) = self.repositories.get_key_value(&whole) {
            return Ok(Some((found, repository)));
        }
        if name.is_whole() {
            return Ok(None);
        }
        let of_any = |found: &str| found.split_once('/').is_some_and(|(_, rest)| rest == name.path);
        let mut found = self.repositories.iter().filter(|(found, _)| of_any(found));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((found, repository)), None) => Ok(Some((found, repository))),
            (Some((one, _)), Some((other, _))) => {
                Err(Refusal::Ambiguous { name: name.path.clone(), found: format!("{one}, {other}") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_model::media;

    fn view(names: &[&str]) -> View {
        let target = Descriptor::of(media::OCI_MANIFEST, b"{}");
        View::of(
            names.iter().map(|name| Image { name: (*name).to_owned(), target: target.clone() }).collect(),
        )
    }

    fn find(view: &View, path: &str, registry: Option<&str>) -> Option<String> {
        let name = Name { path: path.to_owned(), registry: registry.map(str::to_owned) };
        view.find(&name).unwrap().map(|(name, _)| name.to_owned())
    }

    #[test]
    fn a_name_means_its_registry_or_docker_hub_or_the_only_one_that_has_it() {
        let view = view(&[
            "docker.io/library/alpine:3",
            "ghcr.io/library/alpine:3",
            "ghcr.io/a/b:1",
            "quay.io/a/b:1",
            "quay.io/c:1",
        ]);
        assert_eq!(find(&view, "library/alpine", None).as_deref(), Some("docker.io/library/alpine"));
        assert_eq!(find(&view, "alpine", None).as_deref(), Some("docker.io/library/alpine"));
        assert_eq!(find(&view, "library/alpine", Some("ghcr.io")).as_deref(), Some("ghcr.io/library/alpine"));
        assert_eq!(find(&view, "ghcr.io/a/b", None).as_deref(), Some("ghcr.io/a/b"));
        assert_eq!(find(&view, "c", None).as_deref(), Some("quay.io/c"));
        assert_eq!(find(&view, "c", Some("docker.io")), None);
        let name = Name { path: "a/b".to_owned(), registry: None };
        assert!(matches!(view.find(&name), Err(Refusal::Ambiguous { .. })));
    }

    #[test]
    fn names_that_nobody_can_ask_for_are_left_out_and_digests_are_no_tags() {
        let digest = storage_model::Digest::of(b"x");
        let view = view(&["alpine", "import-2026@x", &format!("quay.io/a@{digest}"), "quay.io/b:1"]);
        assert_eq!(view.names().collect::<Vec<_>>(), ["quay.io/a", "quay.io/b"]);
        assert!(view.repositories["quay.io/a"].tags.is_empty());
        assert_eq!(view.repositories["quay.io/a"].roots.len(), 1);
    }
}
