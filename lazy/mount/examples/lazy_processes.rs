//! Keeper and server alone, without the engine around them: what the tests of this crate start.
//!
//! usage: lazy_processes lazy-keeper|lazy-server --root DIR --state DIR --program FILE [--adopt PID]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use lazy_mount::{ADOPT_FLAG, KEEPER_VERB, Places, SERVER_VERB};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let mut values = HashMap::new();
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        values.insert(flag, value);
    }
    let adopt = values.remove(ADOPT_FLAG).and_then(|pid| pid.parse().ok());
    let mut path = |flag: &str| PathBuf::from(values.remove(flag).unwrap_or_default());
    let places = Places { root: path("--root"), state: path("--state"), program: path("--program") };
    match verb.as_str() {
        KEEPER_VERB => lazy_mount::keeper_main(&places, adopt),
        SERVER_VERB => lazy_mount::server_main(&places),
        _ => ExitCode::from(2),
    }
}
