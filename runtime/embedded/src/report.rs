//! What is told of containers: `state`, `list`, `ps`.

use std::fs;
use std::io::{self, Write};

use libcgroups::common::CgroupManager;
use libcontainer::container::Container;
use serde_json::{Value, json};

use crate::args::{Args, ListArgs};
use crate::error::EmbeddedError;
use crate::life::load;
use crate::limits::{failed, manager};

/// Prints a container's state, as the OCI runtime specification describes it.
pub(crate) fn state(args: &Args, id: &str) -> Result<(), EmbeddedError> {
    let container = load(args, id)?;
    print(&format!("{:#}\n", describe(&container)))
}

/// Prints all containers.
pub(crate) fn list(args: &Args, list: &ListArgs) -> Result<(), EmbeddedError> {
    let mut found: Vec<Value> = fs::read_dir(&args.root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| load(args, entry.file_name().to_str()?).ok())
        .map(|container| describe(&container))
        .collect();
    found.sort_by_key(|state| state["id"].to_string());
    if list.quiet {
        return print(&found.iter().map(|state| format!("{}\n", word(&state["id"]))).collect::<String>());
    }
    if list.format == "json" {
        return print(&format!("{}\n", Value::Array(found)));
    }
    let mut text = format!("{:<36} {:>8} {:<10} BUNDLE\n", "ID", "PID", "STATUS");
    for state in found {
        let (id, status, bundle) = (word(&state["id"]), word(&state["status"]), word(&state["bundle"]));
        text.push_str(&format!("{id:<36} {:>8} {status:<10} {bundle}\n", state["pid"].to_string()));
    }
    print(&text)
}

/// Prints the processes of a container.
pub(crate) fn ps(args: &Args, id: &str, format: &str) -> Result<(), EmbeddedError> {
    let container = load(args, id)?;
    let pids = manager(&container)?.get_all_pids().map_err(failed("list processes"))?;
    let pids: Vec<i32> = pids.into_iter().map(|pid| pid.as_raw()).collect();
    if format == "json" {
        return print(&format!("{}\n", json!(pids)));
    }
    print(
        &std::iter::once("PID\n".to_owned())
            .chain(pids.iter().map(|pid| format!("{pid}\n")))
            .collect::<String>(),
    )
}

fn describe(container: &Container) -> Value {
    let ended = !container.can_kill();
    json!({
        "ociVersion": container.state.oci_version,
        "id": container.id(),
        "status": container.status().to_string().to_lowercase(),
        "pid": if ended { 0 } else { container.pid().map_or(0, |pid| pid.as_raw()) },
        "bundle": container.bundle(),
        "annotations": container.state.annotations,
        "created": container.created(),
    })
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn print(text: &str) -> Result<(), EmbeddedError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(EmbeddedError::Output)
}
