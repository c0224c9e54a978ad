//! Restart policies: containers that are started again when they end.
//!
//! What a container should be stands in labels, under the names of containerd's restart monitor, which nerdctl writes too:
//! `containerd.io/restart.status` (`running`, `stopped`), `.policy` (`always`, `unless-stopped`, `on-failure[:COUNT]`; none
//! is `always`), `.count`, `.explicitly-stopped`, `.loguri`. So policies hold over restarts of the daemon and of the
//! machine, and for containers of containerd's clients.
//!
//! A container that ends soon after its start is started again later and later ([`PAUSE_FIRST`] to [`PAUSE_MAX`]), one that
//! ran for [`STEADY`] at once.

use std::str::FromStr;
use std::time::Duration;

use runtime_api::containerd::types::Mount;
use snapshotters_contract::ActiveKey;
use storage_content::{ContainerRecord, ErrorKind};
use storage_model::{Labels, Namespace};

use super::Started;
use super::making::{RESTART_POLICY, RESTART_STATUS};
use crate::{CreateTask, Engine, EngineError};

/// How often it was started again.
pub(super) const RESTART_COUNT: &str = "containerd.io/restart.count";
/// Somebody stopped it.
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";
/// Where the output of a container of containerd's clients goes when nobody is attached.
const LOG_URI: &str = "containerd.io/restart.loguri";

/// Before the first start after an end that came soon.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Before any later one, which is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A container that ran this long did not fail to start.
const STEADY: Duration = Duration::from_secs(10);

/// When a container is started again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    No,
    Always,
    UnlessStopped,
    /// After another exit code than 0, so many times.
    OnFailure(Option<u32>),
}

impl FromStr for Policy {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let unknown = || EngineError::RestartPolicy(text.chars().take(64).collect());
        match text.split_once(':') {
            None => match text {
                "" | "no" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure(None)),
                _ => Err(unknown()),
            },
            Some(("on-failure", count)) => Ok(Self::OnFailure(Some(count.parse().map_err(|_| unknown())?))),
            Some(_) => Err(unknown()),
        }
    }
}

impl Policy {
    /// What the labels of a container say.
    fn of(labels: &Labels) -> Self {
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        if label(RESTART_STATUS) != "running" {
            return Self::No;
        }
        // A policy that nobody knows is not obeyed.
        match label(RESTART_POLICY) {
            "" => Self::Always,
            policy => policy.parse().unwrap_or(Self::No),
        }
    }

    /// Whether a container with these labels that ended with `code` is started again.
    fn wants(labels: &Labels, code: u32) -> bool {
        match Self::of(labels) {
            Self::No => false,
            Self::Always => true,
            Self::UnlessStopped => labels.get(EXPLICITLY_STOPPED).is_none_or(|stopped| stopped != "true"),
            Self::OnFailure(most) => code != 0 && most.is_none_or(|most| count(labels) < most),
        }
    }
}

/// How often a container was started again by its policy.
pub(super) fn count(labels: &Labels) -> u32 {
    labels.get(RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The policy in the labels of a container, as it is written.
pub(super) fn policy_text(labels: &Labels) -> String {
    match (labels.get(RESTART_STATUS), labels.get(RESTART_POLICY)) {
        (_, Some(policy)) => policy.clone(),
        (Some(_), None) => "always".to_owned(),
        (None, None) => "no".to_owned(),
    }
}

/// Refuses what is no policy.
pub(super) fn check(text: &str) -> Result<(), EngineError> {
    text.parse::<Policy>().map(drop)
}

/// How soon a container is started again, after `failures` ends in a row that came soon.
fn pause(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(PAUSE_MAX)
}

/// The labels of a container with another policy.
pub(super) fn set_policy(labels: &mut Labels, text: &str) -> Result<(), EngineError> {
    if text.parse::<Policy>()? == Policy::No {
        labels.remove(RESTART_POLICY);
        labels.remove(RESTART_STATUS);
    } else {
        labels.insert(RESTART_POLICY.to_owned(), text.to_owned());
        labels.insert(RESTART_STATUS.to_owned(), "running".to_owned());
    }
    Ok(())
}

impl Engine {
    /// Notes that somebody wants a container to be stopped, or to run: its policy is obeyed accordingly.
    pub(super) fn note_wanted(
        &self,
        namespace: &Namespace,
        id: &str,
        running: bool,
    ) -> Result<(), EngineError> {
        self.relabel(namespace, id, |labels| {
            if labels.contains_key(RESTART_STATUS) {
                let status = if running { "running" } else { "stopped" };
                labels.insert(RESTART_STATUS.to_owned(), status.to_owned());
                labels.insert(EXPLICITLY_STOPPED.to_owned(), (!running).to_string());
            }
            Ok(())
        })
    }

    /// Changes labels of a container; nothing is written if nothing changes.
    pub(super) fn relabel(
        &self,
        namespace: &Namespace,
        id: &str,
        change: impl FnOnce(&mut Labels) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let _one = self.watches().starting();
        let mut record = self.record(namespace, id)?;
        let before = record.labels.clone();
        change(&mut record.labels)?;
        if record.labels != before {
            self.space(namespace).put_container(record)?;
        }
        Ok(())
    }

    /// A container has ended: starts it again if its policy says so, after a while.
    pub(crate) fn obey_policy(&self, namespace: &Namespace, id: &str, code: u32, ran: Duration) {
        let Ok(record) = self.record(namespace, id) else { return };
        if !Policy::wants(&record.labels, code) {
            return;
        }
        let failures = self.watches().failures(namespace, id, ran >= STEADY);
        let (weak, namespace, id) = (self.downgrade(), namespace.clone(), id.to_owned());
        let later = move || {
            std::thread::sleep(pause(failures));
            // The daemon that goes leaves it to the next one.
            let Some(engine) = weak.upgrade() else { return };
            let wanted =
                engine.record(&namespace, &id).is_ok_and(|record| Policy::wants(&record.labels, code));
            if !wanted {
                return;
            }
            let counted = engine.relabel(&namespace, &id, |labels| {
                let count = count(labels).saturating_add(1);
                labels.insert(RESTART_COUNT.to_owned(), count.to_string());
                Ok(())
            });
            match counted.and_then(|()| engine.start_again(&namespace, &id, false)) {
                Ok(_) | Err(EngineError::Running { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, %namespace, %id, "a container could not be started again");
                    engine.obey_policy(&namespace, &id, code.max(1), Duration::ZERO);
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("restart".to_owned()).spawn(later) {
            tracing::warn!(%error, "a container is not started again");
        }
    }

    /// Starts a container of containerd's clients again: as its restart monitor does, with output to the URI in its label.
    pub(super) fn start_task_again(
        &self,
        namespace: &Namespace,
        record: ContainerRecord,
    ) -> Result<Started, EngineError> {
        let id = record.id.as_str();
        match self.delete_task(namespace, id) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut wanted = CreateTask::default();
        if !record.snapshot_key.is_empty() {
            let key: ActiveKey = record.snapshot_key.parse()?;
            let mounts = self.snapshotter(&record.snapshotter, self.space(namespace))?.mounts(&key)?;
            wanted.rootfs = mounts.into_iter().map(mount_out).collect();
        }
        if let Some(uri) = record.labels.get(LOG_URI) {
            (wanted.stdout, wanted.stderr) = (uri.clone(), uri.clone());
        }
        self.create_task(namespace, id, wanted)?;
        if let Err(error) = self.start_process(namespace, id, "") {
            let _ = self.delete_task(namespace, id);
            return Err(error);
        }
        Ok(Started { id: record.id, shim_socket: std::path::PathBuf::new() })
    }

    /// Starts the containers again that should run and do not: at the start of an engine.
    pub(super) fn obey_policies(&self, namespace: &Namespace) {
        for state in self.containers(namespace).unwrap_or_default() {
            let code = match state.status {
                super::Status::Exited { code } => code,
                super::Status::Lost => 137,
                super::Status::Created | super::Status::Running { .. } => continue,
            };
            self.obey_policy(namespace, state.record.id.as_str(), code, STEADY);
        }
    }
}

fn mount_out(mount: snapshotters_contract::Mount) -> Mount {
    Mount { r#type: mount.kind, source: mount.source, target: mount.target, options: mount.options }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(policy: &str, more: &[(&str, &str)]) -> Labels {
        let mut labels = Labels::new();
        set_policy(&mut labels, policy).unwrap();
        labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        labels
    }

    #[test]
    fn a_policy_says_when_a_container_is_started_again() {
        for (policy, more, code, wanted) in [
            ("no", &[][..], 1, false),
            ("always", &[], 0, true),
            ("always", &[(EXPLICITLY_STOPPED, "true")], 0, true),
            ("unless-stopped", &[], 0, true),
            ("unless-stopped", &[(EXPLICITLY_STOPPED, "true")], 0, false),
            ("on-failure", &[], 0, false),
            ("on-failure", &[], 3, true),
            ("on-failure:2", &[(RESTART_COUNT, "1")], 3, true),
            ("on-failure:2", &[(RESTART_COUNT, "2")], 3, false),
            ("always", &[(RESTART_STATUS, "stopped")], 0, false),
        ] {
            assert_eq!(Policy::wants(&labels(policy, more), code), wanted, "{policy} {more:?} {code}");
        }
        let nerdctl = Labels::from([(RESTART_STATUS.to_owned(), "running".to_owned())]);
        assert!(Policy::wants(&nerdctl, 0), "a status alone is `always`");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for bad in ["sometimes", "on-failure:", "on-failure:x", "on-failure:-1", "always:3"] {
            assert!(matches!(bad.parse::<Policy>(), Err(EngineError::RestartPolicy(_))), "{bad}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        assert_eq!(pause(0), PAUSE_FIRST);
        assert_eq!(pause(3), PAUSE_FIRST * 8);
        assert_eq!(pause(31), PAUSE_MAX);
        assert_eq!(pause(1000), PAUSE_MAX);
    }
}
