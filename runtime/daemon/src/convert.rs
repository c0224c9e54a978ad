//! Small translations that several services share: labels, times, field masks, filters, batches.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::time::SystemTime;

use prost_types::{FieldMask, Timestamp};
use runtime_api::containerd::types;
use runtime_api::filter::Filters;
use storage_content::LabelChange;
use storage_model::{Descriptor, Labels};
use tonic::Status;

use crate::status::{invalid, status};

/// Things per message of a listing (containerd's own number).
pub(crate) const BATCH: usize = 100;

pub(crate) fn labels_in<S: BuildHasher>(labels: HashMap<String, String, S>) -> Labels {
    labels.into_iter().collect()
}

pub(crate) fn labels_out(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}

pub(crate) fn time_out(time: SystemTime) -> Option<Timestamp> {
    Some(time.into())
}

/// A time that a client gives.
///
/// # Errors
/// `InvalidArgument` if this machine's clock cannot tell it.
pub(crate) fn system_time(time: Timestamp) -> Result<SystemTime, Status> {
    SystemTime::try_from(time).map_err(|error| invalid(format!("a time of the request: {error}")))
}

/// Checks labels that a client gives.
pub(crate) fn checked_labels<S: BuildHasher>(labels: HashMap<String, String, S>) -> Result<Labels, Status> {
    let labels = labels_in(labels);
    storage_model::validate_labels(&labels).map_err(status)?;
    Ok(labels)
}

/// A byte count on the wire, where it has a sign.
pub(crate) fn size_out(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(crate) fn filters(texts: &[String]) -> Result<Filters, Status> {
    Filters::parse(texts).map_err(status)
}

/// The label that a filter's path names: its fields joined by dots.
pub(crate) fn label<'a>(labels: &'a Labels, path: &[String]) -> Option<Cow<'a, str>> {
    labels.get(path.join(".").as_str()).map(|value| Cow::from(value.as_str()))
}

/// A text field for a filter; containerd calls an empty one absent.
pub(crate) fn field(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::from(text)).filter(|text| !text.is_empty())
}

/// The paths of a field mask; none at all means everything that can be changed.
pub(crate) fn paths(mask: Option<FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}

/// The change of labels that a field mask asks for, where nothing but labels can be changed.
///
/// `labels` or no path at all replaces them; `labels.<key>` sets or, with an empty value, deletes one.
///
/// # Errors
/// `InvalidArgument` for any other path, naming it and `what`.
pub(crate) fn label_change(
    mask: Option<FieldMask>,
    labels: Labels,
    what: &str,
) -> Result<LabelChange, Status> {
    let paths = paths(mask);
    if paths.is_empty() {
        return Ok(LabelChange::Replace(labels));
    }
    let mut patch = BTreeMap::new();
    let mut replace = false;
    for path in &paths {
        match path.strip_prefix("labels.") {
            Some(key) => {
                patch.insert(key.to_owned(), labels.get(key).cloned());
            }
            None if path == "labels" => replace = true,
            None => return Err(immutable(path, what)),
        }
    }
    Ok(if replace { LabelChange::Replace(labels) } else { LabelChange::Patch(patch) })
}

/// The status of an attempt to change what cannot be changed.
pub(crate) fn immutable(path: &str, what: &str) -> Status {
    invalid(format!("cannot update field {path:?} of {what}"))
}

pub(crate) fn descriptor_out(target: Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: target.media_type,
        digest: target.digest.to_string(),
        size: size_out(target.size),
        annotations: target.annotations.into_iter().collect(),
    }
}

/// # Errors
/// `InvalidArgument` if the type, the digest or the size is missing or wrong.
pub(crate) fn descriptor_in(target: types::Descriptor) -> Result<Descriptor, Status> {
    let size = u64::try_from(target.size).unwrap_or(0);
    if target.media_type.is_empty() || size == 0 {
        return Err(invalid("the target must have a media type and a size above zero"));
    }
    let mut descriptor = Descriptor::new(target.media_type, target.digest.parse().map_err(status)?, size);
    descriptor.annotations = target.annotations.into_iter().collect();
    Ok(descriptor)
}

/// The part of a request that must be there.
pub(crate) fn required<T>(part: Option<T>, what: &'static str) -> Result<T, Status> {
    part.ok_or_else(|| invalid(format!("the request has no {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(paths: &[&str]) -> Result<LabelChange, Status> {
        let labels = Labels::from([("a".to_owned(), "1".to_owned())]);
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        label_change(Some(FieldMask { paths }), labels, "thing")
    }

    #[test]
    fn a_mask_replaces_all_labels_or_patches_those_it_names() {
        assert!(matches!(change(&[]), Ok(LabelChange::Replace(_))));
        assert!(matches!(change(&["labels"]), Ok(LabelChange::Replace(_))));
        assert!(matches!(change(&["labels.a", "labels"]), Ok(LabelChange::Replace(_))));
        let patch = BTreeMap::from([("a".to_owned(), Some("1".to_owned())), ("b.c".to_owned(), None)]);
        assert_eq!(change(&["labels.a", "labels.b.c"]).unwrap(), LabelChange::Patch(patch));
        assert_eq!(change(&["parent"]).unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_target_without_type_size_or_digest_is_refused() {
        let good = types::Descriptor {
            media_type: "application/x".into(),
            digest: storage_model::Digest::of(b"x").to_string(),
            size: 1,
            ..Default::default()
        };
        assert!(descriptor_in(good.clone()).is_ok());
        for bad in [
            types::Descriptor { media_type: String::new(), ..good.clone() },
            types::Descriptor { size: 0, ..good.clone() },
            types::Descriptor { size: -1, ..good.clone() },
            types::Descriptor { digest: "sha256:00".into(), ..good },
        ] {
            assert_eq!(descriptor_in(bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
