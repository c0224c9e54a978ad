//! A digest that is accepted is written back letter for letter: there is one spelling of each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_model::Digest;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_hex(&digest.hex()).ok(), Some(digest));
    }
});
