//! No request makes the mirror panic, and what it reads of one is a question that the API has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_serve::{Ask, Span, parse_range, parse_request};

fuzz_target!(|input: (&str, &str, u64)| {
    let (address, range, size) = input;
    if let Span::Part { first, last } = parse_range(range, size) {
        assert!(first <= last && last < size);
    }
    let Ok(uri) = address.parse() else { return };
    for method in ["GET", "HEAD", "PUT"] {
        let method = method.parse().expect("a method");
        match parse_request(&method, &uri) {
            Ok(Ask::Tags(name, _) | Ask::Manifest(name, _) | Ask::Blob(name, _) | Ask::Referrers(name, ..)) => {
                assert_ne!(method, "PUT");
                assert!(name.reference().is_ok());
            }
            Ok(Ask::Root | Ask::Catalog(_)) | Err(_) => {}
        }
    }
});
