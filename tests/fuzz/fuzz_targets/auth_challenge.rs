//! No header makes the challenge reader panic, and what it reads stays within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_registry::challenge::{CHALLENGES_MAX, PARAMETERS_MAX, parse};

fuzz_target!(|header: &str| {
    let challenges = parse(header);
    assert!(challenges.len() <= CHALLENGES_MAX);
    for challenge in challenges {
        assert!(challenge.parameters.len() <= PARAMETERS_MAX);
        assert!(!challenge.scheme.is_empty());
    }
});
