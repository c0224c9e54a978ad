//! zTOCs and SOCI indexes.

use lazy_index::{Limits, soci as read};
use storage_model::{Compression, Descriptor, Digest, media};

use super::model::{assert_shows, in_file, layer, tar};
use crate::soci::{Version, index, ztoc};

#[test]
fn a_ztoc_shows_every_entry_and_byte_of_its_layer() {
    let given = layer();
    let tar = tar(&given);
    for (form, compression, blob) in super::index::forms(&tar) {
        let made = ztoc(&in_file(&blob), compression, 100_000);
        if compression == Compression::Zstd {
            assert!(made.unwrap_err().is_inexpressible(), "{form}");
            continue;
        }
        let made = made.unwrap();
        assert_eq!((made.blob_digest, made.tar_digest), (Digest::of(&blob), Digest::of(&tar)), "{form}");
        let toc = read::ztoc(&made.bytes, blob.len() as u64, &Limits::default()).unwrap();
        assert!(toc.groups.iter().all(|group| group.digest.is_some()));
        assert_shows(&toc, &blob, &given, true);
        assert_eq!(made, ztoc(&in_file(&blob), compression, 100_000).unwrap(), "{form}: the same again");
    }
}

#[test]
fn an_index_names_its_layers_and_version_one_its_image() {
    let image = Descriptor::of(media::OCI_MANIFEST, b"manifest");
    let layer = Descriptor::of(media::OCI_LAYER_GZIP, b"layer");
    let table = Descriptor::of(crate::soci::ZTOC_TYPE, b"ztoc");
    for (version, expected) in [(Version::One, Some(image.digest)), (Version::Two, None)] {
        let bytes = index(version, &image, &[(layer.clone(), table.clone())]);
        let found = read::Index::parse(&bytes).unwrap();
        assert_eq!(found.image, expected);
        assert_eq!(found.ztocs.len(), 1);
        assert_eq!((found.ztocs[0].layer, found.ztocs[0].descriptor.digest), (layer.digest, table.digest));
    }
}
