//! The same words mean the same to us and to `oci-client`.

use proptest::prelude::*;
use storage_model::Reference;

/// How oci-client reads a reference, written out.
fn peer(text: &str) -> Option<String> {
    text.parse::<oci_client::Reference>().ok().map(|reference| reference.whole())
}

fn agree(text: &str) -> Result<(), TestCaseError> {
    // Docker takes a first part with capital letters for a host (`splitDockerDomain` in distribution/reference);
    // oci-client does not, and there Docker is right.
    let first = text.split('/').next().unwrap_or_default();
    if text.contains('/') && first.contains(|c: char| c.is_ascii_uppercase()) {
        return Ok(());
    }
    // Where both accept, both mean the same; either may refuse what the other takes.
    if let (Ok(ours), Some(theirs)) = (text.parse::<Reference>(), peer(text)) {
        prop_assert_eq!(ours.to_string(), theirs, "{}", text);
    }
    Ok(())
}

proptest! {
    #[test]
    fn references_are_normalised_alike(
        text in "((docker\\.io|index\\.docker\\.io|localhost|[a-z]{1,5}\\.[a-z]{2,4}|[a-z]{1,6})(:[0-9]{2,4})?/)?[a-z0-9]{1,8}((/|-|__|\\.)[a-z0-9]{1,6}){0,3}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,9})?(@sha256:[0-9a-f]{64})?"
    ) {
        agree(&text)?;
    }

    #[test]
    fn strange_references_are_never_read_differently(text in "[a-zA-Z0-9:/@._-]{0,40}") {
        agree(&text)?;
    }
}

#[test]
fn plain_references_are_accepted_by_both() {
    for text in
        ["alpine", "alpine:3", "a/b", "ghcr.io/a/b:c", "localhost:5000/x", "index.docker.io/library/a"]
    {
        assert_eq!(Some(text.parse::<Reference>().unwrap().to_string()), peer(text), "{text}");
    }
}
