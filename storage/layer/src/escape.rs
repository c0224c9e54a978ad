//! Extended attributes in overlayfs's own namespaces: escaped on the way in, taken back on the way out (row U18).
//!
//! `trusted.overlay.opaque` of an image would hide a directory of the layers below as soon as the layer is mounted. It
//! is data like any other, so it is written as `trusted.overlay.overlay.opaque`, which overlayfs of Linux 6.7 and later
//! shows to containers under its true name and never acts on (older kernels do not show it). umoci does the same.
//! `user.overlay.*` is escaped as well: a mount with `userxattr` would act on it.

use crate::tar::Xattrs;

/// The two namespaces.
const SPACES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// What an escaped name has after its namespace.
const AGAIN: &[u8] = b"overlay.";

/// Which of the namespaces an overlay uses for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// `trusted.overlay.`, the usual one.
    Trusted,
    /// `user.overlay.`, with the mount option `userxattr`.
    User,
}

impl Own {
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => SPACES[0],
            Self::User => SPACES[1],
        }
    }
}

/// The name an attribute of an image has on the disk, `None` if it keeps its own.
pub(crate) fn escaped(name: &[u8]) -> Option<Vec<u8>> {
    let space = SPACES.into_iter().find(|space| name.starts_with(space))?;
    Some([space, AGAIN, &name[space.len()..]].concat())
}

/// Attributes on the disk of an overlay layer, as the image has them: overlayfs's own left out, escaped ones freed.
pub(crate) fn packed(on_disk: Xattrs, own: Own) -> Xattrs {
    let mut packed: Xattrs =
        on_disk.into_iter().filter_map(|(name, value)| Some((freed(&name, own)?, value))).collect();
    packed.sort_unstable();
    packed.dedup_by(|later, earlier| later.0 == earlier.0);
    packed
}

fn freed(name: &[u8], own: Own) -> Option<Vec<u8>> {
    let Some(space) = SPACES.into_iter().find(|space| name.starts_with(space)) else {
        return Some(name.to_vec());
    };
    match name[space.len()..].strip_prefix(AGAIN) {
        Some(rest) => Some([space, rest].concat()),
        // Of the other namespace: set by the container itself, and no business of this overlay.
        None => (space != own.prefix()).then(|| name.to_vec()),
    }
}

/// Whether an attribute belongs to overlayfs and may change without a change of the layer.
pub(crate) fn is_overlays_own(name: &[u8]) -> bool {
    SPACES.iter().any(|space| name.strip_prefix(*space).is_some_and(|rest| !rest.starts_with(AGAIN)))
}

/// Labels of the machine and its policy, not of the image.
const LABELS: [&[u8]; 6] = [
    b"security.selinux",
    b"security.apparmor",
    b"security.SMACK64",
    b"security.ima",
    b"security.evm",
    b"system.nfs4_acl",
];

/// Whether an attribute is a label of the machine and not part of the image.
pub(crate) fn is_a_label(name: &[u8]) -> bool {
    LABELS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_name_comes_back_and_overlays_own_does_not() {
        for name in ["trusted.overlay.opaque", "user.overlay.redirect", "trusted.overlay.overlay.opaque"] {
            let on_disk = escaped(name.as_bytes()).unwrap();
            assert!(!is_overlays_own(&on_disk));
            for own in [Own::Trusted, Own::User] {
                let back = packed(vec![(on_disk.clone(), b"y".to_vec())], own);
                assert_eq!(back, [(name.as_bytes().to_vec(), b"y".to_vec())]);
            }
        }
        assert_eq!(escaped(b"user.overlayed"), None);
        assert_eq!(packed(vec![(b"trusted.overlay.origin".to_vec(), Vec::new())], Own::Trusted), []);
        let theirs = vec![(b"user.overlay.opaque".to_vec(), b"y".to_vec())];
        assert_eq!(packed(theirs.clone(), Own::Trusted), theirs);
        assert_eq!(packed(theirs, Own::User), []);
    }
}
