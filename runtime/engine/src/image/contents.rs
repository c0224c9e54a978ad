//! What an image consists of, for some of its platforms, and what of that is not here.
//!
//! An image pulled for one platform is a whole image: its index lists others that were never fetched. Whoever sends,
//! writes or converts an image asks here for a part of it and gets exactly that, or learns what is missing.

use std::collections::HashSet;

use storage_content::Space;
use storage_model::{Descriptor, Digest, Document, Index, LayerKind, Manifest, Platform, media};

use super::{ImageError, documents};
use crate::EngineError;

/// Deepest an index may lie inside others.
const INDEX_DEPTH_MAX: usize = 4;
/// Most documents of one image, over all its indexes.
const DOCUMENTS_MAX: usize = 16 * 1024;

/// Which platforms of an image are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that are here, whichever these are.
    Here,
    /// The best match for each of these.
    These(Vec<Platform>),
    /// All that the image lists.
    All,
}

impl Wanted {
    /// From what a request says: nothing is [`Wanted::Here`].
    ///
    /// # Errors
    /// [`EngineError::Platform`] for what is no platform.
    pub(crate) fn new(platforms: &[String], all: bool) -> Result<Self, EngineError> {
        if all {
            return Ok(Self::All);
        }
        let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        Ok(if platforms.is_empty() { Self::Here } else { Self::These(platforms) })
    }
}

/// One manifest of an image, all of whose blobs are here.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// As the index (or the image's name) points to it.
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Box<Manifest>,
}

/// The wanted part of an image.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// What the image's name stands for.
    pub(crate) top: Descriptor,
    /// Indexes, those inside others first.
    pub(crate) indexes: Vec<(Descriptor, Index)>,
    pub(crate) members: Vec<Member>,
    /// Manifests that the indexes list and that are wanted by nobody, or are not all here.
    pub(crate) left_out: Vec<Descriptor>,
}

impl Contents {
    /// Reads the wanted part of the image `name`.
    ///
    /// # Errors
    /// [`ImageError::Incomplete`] if something of it is not here; [`EngineError::NoPlatform`] if the image does not list
    /// a platform; [`EngineError::Document`] or [`EngineError::Store`] if its documents cannot be read.
    pub(crate) fn read(
        space: &Space,
        name: &str,
        top: &Descriptor,
        wanted: &Wanted,
    ) -> Result<Self, EngineError> {
        let mut walk = Walk {
            space,
            name,
            wanted,
            found: Self { top: top.clone(), indexes: Vec::new(), members: Vec::new(), left_out: Vec::new() },
            missing: Vec::new(),
            documents: 0,
        };
        walk.visit(top, 0)?;
        let Walk { found, missing, .. } = walk;
        let fails = match wanted {
            Wanted::Here => found.members.is_empty(),
            Wanted::These(_) | Wanted::All => !missing.is_empty(),
        };
        if fails {
            return Err(ImageError::Incomplete { name: name.to_owned(), missing: listed(&missing) }.into());
        }
        Ok(found)
    }

    /// Every config and layer, each once, in the order of the manifests.
    pub(crate) fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let all = self
            .members
            .iter()
            .flat_map(|member| std::iter::once(&member.manifest.config).chain(&member.manifest.layers));
        all.filter(|blob| seen.insert(blob.digest)).cloned().collect()
    }

    /// The member that runs best here: this machine's platform, else the first image.
    pub(crate) fn preferred(&self) -> Option<&Member> {
        let host = Platform::host();
        let images =
            self.members.iter().filter(|member| media::is_config(&member.manifest.config.media_type));
        images.min_by_key(|member| match &member.descriptor.platform {
            Some(offered) => host.rank(offered).map_or(u16::MAX, u16::from),
            None => u16::from(u8::MAX),
        })
    }
}

struct Walk<'a> {
    space: &'a Space,
    name: &'a str,
    wanted: &'a Wanted,
    found: Contents,
    /// Manifests that are wanted and not all here, each with the first part that is missing.
    missing: Vec<(Descriptor, Digest)>,
    documents: usize,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), EngineError> {
        self.documents += 1;
        if depth > INDEX_DEPTH_MAX || self.documents > DOCUMENTS_MAX {
            return Err(ImageError::TooDeep { name: self.name.to_owned(), digest: descriptor.digest }.into());
        }
        let document = match documents::document(self.space, self.name, descriptor) {
            Err(EngineError::Image(ImageError::Absent { digest, .. })) if depth > 0 => {
                self.missing.push((descriptor.clone(), digest));
                self.found.left_out.push(descriptor.clone());
                return Ok(());
            }
            other => other?,
        };
        match document {
            Document::Index(index) => {
                let chosen = self.choose(&index)?;
                for (number, child) in index.manifests.iter().enumerate() {
                    if chosen.contains(&number) {
                        self.visit(child, depth + 1)?;
                    } else {
                        self.found.left_out.push(child.clone());
                    }
                }
                self.found.indexes.push((descriptor.clone(), index));
            }
            Document::Manifest(manifest) => self.member(descriptor, manifest),
        }
        Ok(())
    }

    fn member(&mut self, descriptor: &Descriptor, manifest: Box<Manifest>) {
        let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        let absent = blobs.map(|blob| blob.digest).find(|digest| self.space.blob(digest).is_err());
        match absent {
            Some(digest) => {
                self.missing.push((descriptor.clone(), digest));
                self.found.left_out.push(descriptor.clone());
            }
            None => self.found.members.push(Member { descriptor: descriptor.clone(), manifest }),
        }
    }

    /// Places in `index` of what is wanted of it.
    fn choose(&self, index: &Index) -> Result<HashSet<usize>, EngineError> {
        let readable =
            |entry: &Descriptor| media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type);
        Ok(match self.wanted {
            Wanted::Here => (0..index.manifests.len()).filter(|n| readable(&index.manifests[*n])).collect(),
            // Attestations are an addition to the images: nobody misses those that were not fetched.
            Wanted::All => (0..index.manifests.len())
                .filter(|n| readable(&index.manifests[*n]))
                .filter(|n| {
                    let entry = &index.manifests[*n];
                    !is_attestation(entry) || self.space.blob(&entry.digest).is_ok()
                })
                .collect(),
            Wanted::These(platforms) => {
                let mut chosen = HashSet::new();
                for platform in platforms {
                    chosen.insert(choose(self.name, index, platform)?);
                }
                chosen
            }
        })
    }
}

/// Whether an entry of an index is no image but says something about one (BuildKit's form).
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
        || entry.annotations.contains_key("vnd.docker.reference.type")
}

/// Layers whose licence forbids to pass them on: their manifests say where their owner serves them.
pub(crate) fn is_bound(blob: &Descriptor) -> bool {
    matches!(media::layer_kind(&blob.media_type), LayerKind::Tar(_))
        && (blob.media_type.contains("nondistributable") || blob.media_type.contains("foreign"))
}

/// Place in `index` of the manifest that suits `wanted` best; among equals the first, which is the index's own
/// preference.
///
/// # Errors
/// [`EngineError::NoPlatform`] names those there are.
pub(crate) fn choose(name: &str, index: &Index, wanted: &Platform) -> Result<usize, EngineError> {
    let images = || {
        index.manifests.iter().enumerate().filter(|(_, entry)| {
            (media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type))
                && !is_attestation(entry)
        })
    };
    let ranked = images().filter_map(|(number, entry)| {
        // An entry without a platform is for any; its config is looked at afterwards.
        let rank = entry.platform.as_ref().map_or(Some(u8::MAX), |offered| wanted.rank(offered))?;
        Some((rank, number))
    });
    ranked.min().map(|(_, number)| number).ok_or_else(|| {
        let mut offered: Vec<String> =
            images().filter_map(|(_, entry)| entry.platform.as_ref()).map(ToString::to_string).collect();
        offered.dedup();
        no_platform(name, wanted, if offered.is_empty() { "none".to_owned() } else { offered.join(", ") })
    })
}

/// The error of an image that is not for `wanted`.
pub(crate) fn no_platform(name: &str, wanted: &Platform, offered: String) -> EngineError {
    EngineError::NoPlatform { reference: name.to_owned(), wanted: wanted.to_string(), offered }
}

/// Manifests that are not all here, in words.
fn listed(missing: &[(Descriptor, Digest)]) -> String {
    const NAMED_MAX: usize = 8;
    let mut words: Vec<String> = missing
        .iter()
        .take(NAMED_MAX)
        .map(|(manifest, absent)| match &manifest.platform {
            Some(platform) => format!("{platform} ({absent})"),
            None => absent.to_string(),
        })
        .collect();
    if missing.len() > NAMED_MAX {
        words.push(format!("{} more", missing.len() - NAMED_MAX));
    }
    if words.is_empty() { "every one of its manifests".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, platform: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::new(media::OCI_MANIFEST, Digest::of(name.as_bytes()), 1);
        entry.platform = platform.map(|text| text.parse().unwrap());
        entry
    }

    fn chosen(entries: &[Descriptor], wanted: &str) -> Result<Digest, EngineError> {
        let index = Index { manifests: entries.to_vec(), annotations: Default::default() };
        let number = choose("localhost/image", &index, &wanted.parse().unwrap())?;
        Ok(entries[number].digest)
    }

    #[test]
    fn the_exact_platform_is_chosen_before_a_lower_variant_and_an_unmarked_entry() {
        let entries = [
            entry("any", None),
            entry("arm", Some("linux/arm64")),
            entry("v1", Some("linux/amd64")),
            entry("v3", Some("linux/amd64/v3")),
        ];
        assert_eq!(chosen(&entries, "linux/amd64").unwrap(), Digest::of(b"v1"));
        assert_eq!(chosen(&entries, "linux/amd64/v3").unwrap(), Digest::of(b"v3"));
        assert_eq!(chosen(&entries, "linux/arm64").unwrap(), Digest::of(b"arm"));
        assert_eq!(chosen(&entries, "linux/riscv64").unwrap(), Digest::of(b"any"));
    }

    #[test]
    fn a_missing_platform_is_named_beside_those_there_are() {
        let entries = [entry("a", Some("linux/arm64")), entry("s", Some("unknown/unknown"))];
        let message = chosen(&entries, "linux/amd64").unwrap_err().to_string();
        assert!(message.contains("linux/amd64") && message.contains("it has linux/arm64"), "{message}");
        assert!(!message.contains("unknown"), "{message}");
    }
}
