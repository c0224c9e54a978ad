//! An image config never panics its reader, and has as many diff IDs as it was read for.
//!
//! The first byte is the number of layers of the manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_model::ImageConfig;

fuzz_target!(|bytes: &[u8]| {
    let Some((layers, body)) = bytes.split_first() else { return };
    let layers = usize::from(*layers);
    if let Ok(config) = ImageConfig::parse(body, layers) {
        assert_eq!(config.rootfs.diff_ids.len(), layers);
        let _ = config.platform();
        let _ = storage_model::chain_ids(&config.rootfs.diff_ids);
    }
});
