//! A manifest or index never panics its reader, and keeps to the limits when it is accepted.
//!
//! The first byte chooses the media type that the document is announced as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_model::{Document, limits, media};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let announced = media::MANIFEST_TYPES[usize::from(*choice) % media::MANIFEST_TYPES.len()];
    match Document::parse(announced, body) {
        Ok(document @ Document::Manifest(_)) => {
            assert!(media::is_manifest(announced));
            assert!(document.children().len() <= limits::LAYERS_MAX + 1);
        }
        Ok(document @ Document::Index(_)) => {
            assert!(media::is_index(announced));
            assert!(document.children().len() <= limits::INDEX_ENTRIES_MAX);
        }
        Err(_) => {}
    }
});
