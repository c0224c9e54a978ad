//! Filters never panic their parser, and one that is accepted can be asked without panicking either.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use runtime_api::filter::Filters;

fuzz_target!(|texts: Vec<String>| {
    if let Ok(filters) = Filters::parse(&texts) {
        let _ = filters.matches(|path| {
            assert!(!path.is_empty());
            Some(Cow::from(path.join(".")))
        });
        let _ = filters.matches(|_| None);
    }
});
