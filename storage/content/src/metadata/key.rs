//! How names become keys of the metadata store.
//!
//! A key begins with its namespace and a NUL; the parts behind are separated by NULs too. Namespaces have no NUL by their
//! alphabet and every other name is checked by [`check_name`], so no two lists of names make the same key and a prefix
//! that ends in a NUL finds exactly what is below it. A blob's key ends in its 32 raw bytes, always last.
//!
//! A snapshot's key carries its protection domain's class before its name: plain and protected content lie in different
//! ranges, so a plain request never meets a protected row, whatever its text.

use storage_model::{Digest, Namespace};

use crate::{StoreError, Subject};

/// Longest free name (image, snapshot, ingest reference, lease), in bytes: containerd's keys are its namespace, a number
/// and a client's key, all far below; it bounds what a client can make us store in a key.
pub(crate) const NAME_BYTES_MAX: usize = 4096;

/// Refuses a name that is empty, too long or holds a NUL.
pub(crate) fn check_name(subject: Subject, name: &str) -> Result<(), StoreError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(StoreError::Name { subject, name: name.chars().take(64).collect(), max: NAME_BYTES_MAX });
    }
    Ok(())
}

/// Everything in a namespace begins with this.
pub(crate) fn namespace_prefix(namespace: &Namespace) -> Vec<u8> {
    prefix(namespace, &[])
}

/// `namespace NUL part NUL part`: the key of one thing.
pub(crate) fn key(namespace: &Namespace, parts: &[&str]) -> Vec<u8> {
    let mut bytes = prefix(namespace, parts);
    if !parts.is_empty() {
        bytes.pop();
    }
    bytes
}

/// `namespace NUL part NUL`: the prefix of all that is below.
pub(crate) fn prefix(namespace: &Namespace, parts: &[&str]) -> Vec<u8> {
    let length = namespace.as_str().len() + 1 + parts.iter().map(|part| part.len() + 1).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(namespace.as_str().as_bytes());
    bytes.push(0);
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Key of a blob in a namespace.
pub(crate) fn blob(namespace: &Namespace, digest: &Digest) -> Vec<u8> {
    let mut bytes = namespace_prefix(namespace);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// Class of the protection domain that a snapshot's name belongs to.
///
/// [`storage_model::ProtectionDomain::snapshot_name`] makes protected names; nothing else begins so.
pub(crate) fn domain_class(name: &str) -> &'static str {
    if name.starts_with("protected:") { "x" } else { "p" }
}

/// Key of a snapshot.
pub(crate) fn snapshot(namespace: &Namespace, snapshotter: &str, name: &str) -> Vec<u8> {
    key(namespace, &[snapshotter, domain_class(name), name])
}

/// Key of the edge from a snapshot to one that stands on it.
pub(crate) fn child(namespace: &Namespace, snapshotter: &str, parent: &str, child: &str) -> Vec<u8> {
    key(namespace, &[snapshotter, domain_class(parent), parent, child])
}

/// Prefix of the edges from a snapshot to those that stand on it.
pub(crate) fn children(namespace: &Namespace, snapshotter: &str, parent: &str) -> Vec<u8> {
    prefix(namespace, &[snapshotter, domain_class(parent), parent])
}

/// Splits a key into its namespace and the bytes behind it.
pub(crate) fn split_namespace(key: &[u8]) -> Option<(Namespace, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let namespace = std::str::from_utf8(&key[..end]).ok()?.parse().ok()?;
    Some((namespace, &key[end + 1..]))
}

/// The NUL-separated names behind the namespace.
pub(crate) fn split_parts(rest: &[u8]) -> Option<Vec<&str>> {
    rest.split(|byte| *byte == 0).map(|part| std::str::from_utf8(part).ok()).collect()
}

/// First key behind all keys that begin with `prefix`; none if there is no such key.
pub(crate) fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn namespace(text: &str) -> Namespace {
        text.parse().unwrap()
    }

    #[test]
    fn a_protected_snapshot_lies_in_another_range_than_any_plain_name() {
        let plain = snapshot(&namespace("a"), "overlayfs", "x\u{1}name");
        let protected = snapshot(&namespace("a"), "overlayfs", "protected:00");
        assert!(plain.starts_with(b"a\0overlayfs\0p\0"));
        assert!(protected.starts_with(b"a\0overlayfs\0x\0"));
    }

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        for name in ["", "a\0b", &"x".repeat(4097)] {
            assert!(check_name(Subject::Image, name).is_err());
        }
        check_name(Subject::Snapshot, "default/3/extract-1 sha256:ab/../c").unwrap();
    }

    proptest! {
        #[test]
        fn different_names_make_different_keys(
            a in proptest::collection::vec("[^\0]{1,6}", 1..4),
            b in proptest::collection::vec("[^\0]{1,6}", 1..4),
        ) {
            let space = namespace("n");
            let parts = |names: &[String]| key(&space, &names.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(parts(&a) == parts(&b), a == b);
            let bytes = parts(&a);
            let (back, rest) = split_namespace(&bytes).unwrap();
            prop_assert_eq!(back, space);
            prop_assert_eq!(split_parts(rest).unwrap(), a);
        }

        #[test]
        fn the_key_behind_a_prefix_is_the_least_one_outside(prefix in proptest::collection::vec(any::<u8>(), 0..6)) {
            match behind(&prefix) {
                Some(end) => prop_assert!(end > prefix && !end.starts_with(&prefix)),
                None => prop_assert!(prefix.iter().all(|byte| *byte == u8::MAX)),
            }
        }
    }
}
