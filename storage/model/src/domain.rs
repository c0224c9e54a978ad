//! Who may share unpacked content.

use std::fmt;

use crate::{ChainId, Digest};

/// The set of users that may share one unpacked layer.
///
/// Plain layers share one domain. A layer that was decrypted lives in a domain of its own, derived from what proved
/// the right to read it, and a plain request can never name it: its snapshot is `H(domain, chain ID)`, not the chain
/// ID. containerd has no such rule, and an image that lists a victim's public diff IDs over junk layers mounts the
/// victim's decrypted files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ProtectionDomain {
    /// Content that anybody who can pull its blobs may see.
    #[default]
    Plain,
    /// Content that came out of an encrypted layer.
    Protected(Digest),
}

impl ProtectionDomain {
    /// Name of the committed snapshot that holds `chain` in this domain.
    pub fn snapshot_name(&self, chain: &ChainId) -> String {
        match self {
            Self::Plain => chain.to_string(),
            Self::Protected(domain) => {
                format!("protected:{}", Digest::of(format!("{domain} {chain}").as_bytes()).hex())
            }
        }
    }
}

impl fmt::Display for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain"),
            Self::Protected(domain) => write!(f, "protected:{}", domain.hex()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_never_names_a_protected_snapshot() {
        let chain = ChainId(Digest::of(b"layer"));
        let one = ProtectionDomain::Protected(Digest::of(b"one"));
        let two = ProtectionDomain::Protected(Digest::of(b"two"));
        assert_eq!(ProtectionDomain::Plain.snapshot_name(&chain), chain.to_string());
        assert_ne!(one.snapshot_name(&chain), chain.to_string());
        assert_ne!(one.snapshot_name(&chain), two.snapshot_name(&chain));
        assert!(one.snapshot_name(&chain).parse::<Digest>().is_err(), "no plain chain ID can be spelt so");
    }
}
