//! No bytes make the reader of Docker's `config.json` panic, and looking a login up in what it read does not either.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_registry::docker_config::DockerConfig;

fuzz_target!(|text: &[u8]| {
    if let Ok(config) = DockerConfig::parse(text) {
        let _ = config.helper(&["docker.io", "index.docker.io"]);
        let _ = config.login(&["docker.io", "index.docker.io"], "library/alpine");
    }
});
