//! No text makes the reader of `hosts.toml` panic; an address it accepts carries no login.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_registry::hosts::{HOSTS_MAX, HostsFile};

fuzz_target!(|text: &str| {
    if let Ok(file) = HostsFile::parse(text) {
        assert!(file.hosts.len() <= HOSTS_MAX);
        for host in file.hosts.iter().filter_map(|host| host.url.as_ref()) {
            assert!(matches!(host.scheme_str(), Some("http" | "https")));
            assert!(host.authority().is_some_and(|authority| !authority.as_str().contains('@')));
        }
    }
});
