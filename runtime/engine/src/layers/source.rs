//! Where a blob came from, as a label: `containerd.io/distribution.source.<registry>` is `repository[,repository...]`.
//!
//! A push to the same registry mounts from there instead of sending; a repair fetches from there.

use storage_model::{Labels, Reference};

/// Longest value we write, in bytes: key and value together may have 4096 (containerd's limit).
const VALUE_BYTES_MAX: usize = 3 * 1024;

/// Prefix of the label's key; the registry follows.
pub(crate) const SOURCE_PREFIX: &str = "containerd.io/distribution.source.";

/// The label that says that a blob with `labels` is also in the repository of `reference`; none if it says so already.
pub(crate) fn source_label(labels: &Labels, reference: &Reference) -> Option<(String, String)> {
    let key = format!("{SOURCE_PREFIX}{}", reference.registry());
    let repository = reference.repository();
    let before = labels.get(&key).map_or("", String::as_str);
    if before.split(',').any(|known| known == repository) {
        return None;
    }
    let mut known: Vec<&str> = before.split(',').filter(|known| !known.is_empty()).collect();
    known.push(repository);
    // The oldest go when there are too many: any one is enough to mount from.
    while known.len() > 1 && known.iter().map(|known| known.len() + 1).sum::<usize>() > VALUE_BYTES_MAX {
        known.remove(0);
    }
    Some((key, known.join(",")))
}

/// Repositories of `registry` that hold a blob with `labels`, as far as we know.
pub(crate) fn repositories(labels: &Labels, registry: &str) -> Vec<String> {
    let known = labels.get(&format!("{SOURCE_PREFIX}{registry}")).map_or("", String::as_str);
    known.split(',').filter(|known| !known.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repository_is_named_once_and_the_oldest_go_when_there_are_too_many() {
        let mut labels = Labels::new();
        for number in 0..1000 {
            let reference: Reference = format!("localhost:5000/some/repository/{number}").parse().unwrap();
            let (key, value) = source_label(&labels, &reference).unwrap();
            labels.insert(key, value);
            assert_eq!(source_label(&labels, &reference), None);
            storage_model::validate_labels(&labels).unwrap();
        }
        let known = repositories(&labels, "localhost:5000");
        assert_eq!(known.last().unwrap(), "some/repository/999");
        assert!(known.len() > 50 && !known.contains(&"some/repository/0".to_owned()));
        assert!(repositories(&labels, "localhost").is_empty());
    }
}
