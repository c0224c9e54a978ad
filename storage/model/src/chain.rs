//! Diff IDs and chain IDs: the identity of a layer, and of a stack of layers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Digest of a layer's uncompressed tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// Identity of a stack of layers, lowest first (OCI image-spec, `config.md`, "Layer ChainID").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Chain IDs of every prefix of `layers`, lowest first: the last one is the image's.
///
/// `chain(l0) = l0`; `chain(l0..ln) = sha256(chain(l0..ln-1) + " " + ln)`.
pub fn chain_ids(layers: &[DiffId]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        let digest = match chains.last() {
            None => layer.0,
            Some(below) => Digest::of(format!("{below} {layer}").as_bytes()),
        };
        chains.push(ChainId(digest));
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_one_is_its_diff_id_and_order_matters() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        assert_eq!(chain_ids(&[a])[0].0, a.0);
        let ab = chain_ids(&[a, b]);
        assert_eq!(ab[0].0, a.0);
        assert_eq!(ab[1].0, Digest::of(format!("{} {}", a.0, b.0).as_bytes()));
        assert_ne!(ab[1], chain_ids(&[b, a])[1]);
    }

    #[test]
    fn no_layers_make_no_chain() {
        assert!(chain_ids(&[]).is_empty());
    }
}
