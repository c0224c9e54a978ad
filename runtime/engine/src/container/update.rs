//! Changing what a container may use, and its policy; and what is told of one beyond its state.

use prost_types::Any;
use runtime_container::spec::Limits;
use runtime_shim::ShimConfig;
use serde_json::{Value, json};
use storage_content::ContainerRecord;
use storage_model::Namespace;

use super::launch::{self, RUN};
use super::{Status, restart};
use crate::{Engine, EngineError};

/// Type URL of an OCI spec's resources as containerd's clients spell it.
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// What a quota of processors is counted in, in microseconds (the kernel's own number).
const CPU_PERIOD_US: u64 = 100_000;

/// What is told of a container beyond its state.
#[derive(Debug, Clone, Default)]
pub struct ContainerDetails {
    /// The options it was made with, JSON; empty for one that a client of containerd made.
    pub options_json: String,
    /// How often its policy started it again.
    pub restarts: u32,
    /// Its policy: `no`, `always`, `unless-stopped`, `on-failure[:COUNT]`.
    pub restart: String,
    /// When it ended, in milliseconds since 1970; 0: it has not.
    pub finished_at_ms: u64,
    /// When its process was started, in seconds since 1970; 0: it was not, or nobody knows.
    pub started_at: i64,
    /// Why it never ran.
    pub error: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Directory of its task; empty: none.
    pub bundle: String,
    /// Where its output is kept; empty: nowhere.
    pub log_path: String,
}

impl Engine {
    /// More of a container.
    pub fn details(&self, namespace: &Namespace, state: &super::ContainerState) -> ContainerDetails {
        let (record, id) = (&state.record, state.record.id.as_str());
        let bundle = match self.plain_bundle(namespace, id) {
            Some(bundle) => bundle,
            None => self.tasks().directory(namespace, id),
        };
        let exit = runtime_shim::read_exit(&bundle).ok().flatten();
        let config = config_of(record);
        let started_at = match state.status {
            Status::Running { pid } => super::usage::started_at(pid),
            _ => 0,
        };
        ContainerDetails {
            options_json: config
                .as_ref()
                .and_then(|config| serde_json::to_string(&config.run_options).ok())
                .unwrap_or_default(),
            restarts: restart::count(&record.labels),
            restart: restart::policy_text(&record.labels),
            finished_at_ms: exit.as_ref().map_or(0, |exit| exit.finished_unix_ms),
            started_at,
            error: exit.and_then(|exit| exit.error).unwrap_or_default(),
            terminal: config.as_ref().is_some_and(|config| config.terminal),
            log_path: config
                .and_then(|config| config.log)
                .map(|log| log.display().to_string())
                .unwrap_or_default(),
            bundle: if bundle.exists() { bundle.display().to_string() } else { String::new() },
        }
    }

    /// Changes limits of a container, now if it runs and for every later start, and its policy. What is 0 or empty stays.
    ///
    /// # Errors
    /// [`EngineError::RestartPolicy`]; the shim's: a limit that the kernel refuses. Then nothing is changed.
    pub fn update_container(
        &self,
        namespace: &Namespace,
        id: &str,
        limits: &Limits,
        policy: &str,
    ) -> Result<(), EngineError> {
        let state = self.container(namespace, id)?;
        if !policy.is_empty() {
            restart::check(policy)?;
        }
        if *limits != Limits::default() {
            if matches!(state.status, Status::Running { .. }) {
                let resources = resources(limits).to_string().into_bytes();
                let resources = Any { type_url: RESOURCES_TYPE.to_owned(), value: resources };
                self.update_task(namespace, id, Some(resources), Default::default())?;
            }
            self.keep_limits(namespace, id, limits)?;
        }
        if policy.is_empty() {
            return Ok(());
        }
        self.relabel(namespace, id, |labels| restart::set_policy(labels, policy))
    }

    /// Writes limits into the record, for later starts.
    fn keep_limits(&self, namespace: &Namespace, id: &str, limits: &Limits) -> Result<(), EngineError> {
        let _one = self.watches().starting();
        let mut record = self.record(namespace, id)?;
        if let Some(mut config) = config_of(&record) {
            merge(&mut config.run_options.limits, limits);
            record.extensions.insert(RUN.to_owned(), launch::extension(&config));
        } else if let Ok(mut spec) = serde_json::from_slice::<Value>(&record.spec) {
            for (name, value) in resources(limits).as_object().into_iter().flatten() {
                for (key, number) in value.as_object().into_iter().flatten() {
                    spec["linux"]["resources"][name][key] = number.clone();
                }
            }
            record.spec = spec.to_string().into_bytes();
        }
        self.space(namespace).put_container(record)?;
        Ok(())
    }
}

fn config_of(record: &ContainerRecord) -> Option<ShimConfig> {
    serde_json::from_slice(&record.extensions.get(RUN)?.value).ok()
}

/// The limits that are given, as an OCI spec's resources.
fn resources(limits: &Limits) -> Value {
    let mut all = json!({});
    let mut set = |group: &str, name: &str, value: Value| all[group][name] = value;
    if limits.memory_bytes != 0 {
        set("memory", "limit", json!(limits.memory_bytes));
    }
    if limits.memory_swap_bytes != 0 {
        set("memory", "swap", json!(limits.memory_swap_bytes));
    }
    if limits.memory_reservation_bytes != 0 {
        set("memory", "reservation", json!(limits.memory_reservation_bytes));
    }
    if limits.cpu_millis != 0 {
        set("cpu", "period", json!(CPU_PERIOD_US));
        set("cpu", "quota", json!(limits.cpu_millis.saturating_mul(CPU_PERIOD_US) / 1000));
    }
    if limits.cpu_shares != 0 {
        set("cpu", "shares", json!(limits.cpu_shares));
    }
    if !limits.cpuset_cpus.is_empty() {
        set("cpu", "cpus", json!(limits.cpuset_cpus));
    }
    if !limits.cpuset_mems.is_empty() {
        set("cpu", "mems", json!(limits.cpuset_mems));
    }
    if limits.pids != 0 {
        set("pids", "limit", json!(limits.pids));
    }
    if limits.blkio_weight != 0 {
        set("blockIO", "weight", json!(limits.blkio_weight));
    }
    all
}

/// Puts the limits that are given over `old`.
fn merge(old: &mut Limits, new: &Limits) {
    macro_rules! over {
        ($($field:ident),*) => {$(
            if new.$field != Limits::default().$field {
                old.$field.clone_from(&new.$field);
            }
        )*};
    }
    over!(memory_bytes, memory_swap_bytes, memory_reservation_bytes, cpu_millis, cpu_shares, cpuset_cpus);
    over!(cpuset_mems, pids, blkio_weight);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_changed() {
        let new = Limits { memory_bytes: 1 << 26, cpu_millis: 1500, ..Limits::default() };
        assert_eq!(
            resources(&new),
            json!({ "memory": { "limit": 1 << 26 }, "cpu": { "period": 100_000, "quota": 150_000 } })
        );
        let mut old = Limits { pids: 7, memory_bytes: 1, ..Limits::default() };
        merge(&mut old, &new);
        assert_eq!((old.pids, old.memory_bytes, old.cpu_millis), (7, 1 << 26, 1500));
    }
}
