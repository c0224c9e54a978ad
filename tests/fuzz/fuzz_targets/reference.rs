//! A reference that is accepted, written out and read again is the same reference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_model::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference), "{text:?} was written as {written:?}");
        let familiar = reference.familiar();
        assert_eq!(familiar.parse::<Reference>().as_ref(), Ok(&reference), "{text:?} is shown as {familiar:?}");
    }
});
