//! Keeper and server alone, without the engine around them: what the tests of this crate start.
//!
//! usage: lazy_processes lazy-keeper|lazy-server --root DIR --state DIR --program FILE [--adopt]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use lazy_mount::{ADOPT_FLAG, KEEPER_VERB, Places, SERVER_VERB};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let mut values = HashMap::new();
    let mut adopt = false;
    while let Some(flag) = words.next() {
        if flag == ADOPT_FLAG {
            adopt = true;
        } else if let Some(value) = words.next() {
            values.insert(flag, PathBuf::from(value));
        }
    }
    let mut path = |flag: &str| values.remove(flag).unwrap_or_default();
    let places = Places { root: path("--root"), state: path("--state"), program: path("--program") };
    match verb.as_str() {
        KEEPER_VERB => lazy_mount::keeper_main(&places, adopt),
        SERVER_VERB => lazy_mount::server_main(&places),
        _ => ExitCode::from(2),
    }
}
