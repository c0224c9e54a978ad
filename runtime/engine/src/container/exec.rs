//! A further process in a container that runs: what it is made of, and its start.
//!
//! It is the container's own process with another command: same environment, directory, user, limits and capabilities,
//! but for what is asked for. Another user than root has no capabilities, as when a program changes its user.

use std::path::Path;
use std::time::SystemTime;

use prost_types::Any;
use runtime_container::files::MountedRoot;
use runtime_container::spec::resolve_user;
use serde_json::{Value, json};
use storage_model::Namespace;

use super::{ContainerState, Status};
use crate::{Engine, EngineError, ExecTask};

/// Type URL of an OCI process as containerd's clients spell it.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// All capabilities of Linux, in the order of their numbers (`capability.h`, up to 6.18).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A process to be started in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Its name; empty: one is made up.
    pub exec_id: String,
    /// Its command.
    pub args: Vec<String>,
    /// Variables beside the container's own; one without a value is taken away.
    pub env: Vec<String>,
    /// Another directory than the container's; empty: that.
    pub cwd: String,
    /// Another user, by the container's own files; empty: the container's.
    pub user: String,
    /// It gets a terminal.
    pub terminal: bool,
    /// It gets all capabilities.
    pub privileged: bool,
    /// Paths of FIFOs; empty: nothing is connected.
    pub stdin: String,
    /// Of standard output.
    pub stdout: String,
    /// Of standard error.
    pub stderr: String,
    /// Lines and characters per line of its terminal; 0: unknown.
    pub size: (u32, u32),
}

impl Engine {
    /// Starts a further process; returns its name and its process id.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`]; [`EngineError::ExecSpec`] for an unknown user; the shim's, with the OCI runtime's words.
    /// Nothing of it is left then.
    pub fn exec(
        &self,
        namespace: &Namespace,
        id: &str,
        wanted: ExecRequest,
    ) -> Result<(String, u32), EngineError> {
        let state = self.container(namespace, id)?;
        let Status::Running { pid } = state.status else {
            return Err(EngineError::NotRunning { id: id.to_owned() });
        };
        let process = process(&state, pid, &wanted)?;
        let exec_id = if wanted.exec_id.is_empty() { made_up(id) } else { wanted.exec_id };
        let value = process.to_string().into_bytes();
        let task = ExecTask {
            exec_id: exec_id.clone(),
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            terminal: wanted.terminal,
            spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value }),
        };
        self.exec_task(namespace, id, task)?;
        match self.start_process(namespace, id, &exec_id) {
            Ok(pid) => {
                let (rows, columns) = wanted.size;
                if wanted.terminal && rows > 0 && columns > 0 {
                    // It may have ended already.
                    let _ = self.resize_terminal(namespace, id, &exec_id, columns, rows);
                }
                Ok((exec_id, pid))
            }
            Err(error) => {
                let _ = self.delete_exec(namespace, id, &exec_id);
                Err(error)
            }
        }
    }
}

/// A name that no other exec has.
fn made_up(id: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = format!("{:?} {} {id}", SystemTime::now(), COUNT.fetch_add(1, Ordering::Relaxed));
    storage_model::Digest::of(seed.as_bytes()).short()
}

fn process(state: &ContainerState, pid: u32, wanted: &ExecRequest) -> Result<Value, EngineError> {
    if wanted.args.is_empty() {
        return Err(EngineError::NoCommand);
    }
    let spec: Value = serde_json::from_str(&state.spec_json).unwrap_or_default();
    let mut process = spec["process"].clone();
    process["args"] = json!(wanted.args);
    process["terminal"] = json!(wanted.terminal);
    process["env"] = environment(&process["env"], &wanted.env, wanted.terminal);
    if !wanted.cwd.is_empty() {
        process["cwd"] = json!(wanted.cwd);
    }
    let (rows, columns) = wanted.size;
    match process.as_object_mut() {
        Some(object) if rows > 0 && columns > 0 && wanted.terminal => {
            object.insert("consoleSize".to_owned(), json!({ "height": rows, "width": columns }));
        }
        Some(object) => drop(object.remove("consoleSize")),
        None => {}
    }
    if !wanted.user.is_empty() {
        let root = format!("/proc/{pid}/root");
        let files = MountedRoot::open(Path::new(&root))
            .map_err(|source| EngineError::io("look into", Path::new(&root), source))?;
        let id = state.record.id.to_string();
        let account =
            resolve_user(&wanted.user, &files).map_err(|source| EngineError::ExecSpec { id, source })?;
        process["user"] =
            json!({ "uid": account.uid, "gid": account.gid, "additionalGids": account.all_groups() });
        if account.uid != 0 {
            for set in ["effective", "permitted", "inheritable", "ambient"] {
                process["capabilities"][set] = json!([]);
            }
        }
    }
    if wanted.privileged {
        let all: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
        for set in ["bounding", "effective", "permitted"] {
            process["capabilities"][set] = json!(all);
        }
        process["noNewPrivileges"] = json!(false);
    }
    Ok(process)
}

/// The container's variables, and those asked for.
fn environment(own: &Value, more: &[String], terminal: bool) -> Value {
    let own = own.as_array().cloned().unwrap_or_default();
    let mut all: Vec<String> =
        own.into_iter().filter_map(|variable| variable.as_str().map(str::to_owned)).collect();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    if terminal && !all.iter().chain(more).any(|variable| name(variable) == "TERM") {
        all.push("TERM=xterm".to_owned());
    }
    for variable in more {
        all.retain(|other| name(other) != name(variable));
        if variable.contains('=') {
            all.push(variable.clone());
        }
    }
    json!(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_replace_those_of_the_container_and_one_without_a_value_goes() {
        let own = json!(["PATH=/bin", "A=1", "B=2"]);
        let more = ["A=3".to_owned(), "B".to_owned(), "C=".to_owned()];
        assert_eq!(environment(&own, &more, false), json!(["PATH=/bin", "A=3", "C="]));
        assert_eq!(environment(&own, &[], true), json!(["PATH=/bin", "A=1", "B=2", "TERM=xterm"]));
    }

    #[test]
    fn names_that_are_made_up_differ() {
        assert_ne!(made_up("c"), made_up("c"));
    }
}
