//! Namespaces that are not the container's own, files that are mounted over the image's, and a first process of ours.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use super::{SpecError, built, defaults};

/// Which namespace of a kind a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// As it is by default.
    #[default]
    Default,
    /// One of its own.
    Private,
    /// The machine's.
    Host,
    /// That of this path.
    Path(PathBuf),
}

/// Namespaces, network files, first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joins {
    /// Network; see also `RunOptions::net_host`.
    pub network: Join,
    /// Processes.
    pub pid: Join,
    /// System V IPC and POSIX queues.
    pub ipc: Join,
    /// Host name.
    pub uts: Join,
    /// Cgroups.
    pub cgroup: Join,
    /// Pairs of a file of the machine and the place it is mounted at: `/etc/hosts` and its kin.
    pub files: Vec<(PathBuf, String)>,
    /// Program of the machine that becomes the first process and runs the container's as its child.
    pub init: Option<PathBuf>,
}

/// Where the first process of ours is found inside: `/run` is the container's own.
pub const INIT_PATH: &str = "/run/windlass-init";

/// Words before the container's own, with a first process of ours.
const INIT_WORDS: [&str; 2] = [INIT_PATH, "--"];

/// Writes `joins` into `spec`.
///
/// # Errors
/// None so far; [`SpecError`] as the others of its kind.
pub(super) fn apply(spec: &mut Spec, joins: &Joins) -> Result<(), SpecError> {
    let kinds = [
        (LinuxNamespaceType::Network, &joins.network),
        (LinuxNamespaceType::Pid, &joins.pid),
        (LinuxNamespaceType::Ipc, &joins.ipc),
        (LinuxNamespaceType::Uts, &joins.uts),
        (LinuxNamespaceType::Cgroup, &joins.cgroup),
    ];
    if let Some(linux) = spec.linux_mut() {
        let mut list = linux.namespaces().clone().unwrap_or_default();
        for (kind, join) in kinds {
            let namespace = LinuxNamespaceBuilder::default().typ(kind);
            let namespace = match join {
                Join::Default => continue,
                Join::Host => None,
                Join::Private => Some(namespace),
                Join::Path(path) => Some(namespace.path(path)),
            };
            list.retain(|other| other.typ() != kind);
            list.extend(namespace.map(|namespace| built(namespace.build())));
        }
        linux.set_namespaces(Some(list));
    }
    if joins.uts == Join::Host {
        // The runtime would set the machine's own name.
        spec.set_hostname(None);
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (source, destination) in &joins.files {
        mounts.retain(|mount| mount.destination().to_str() != Some(destination));
        let options = ["rbind", "rprivate", "rw"];
        mounts.push(defaults::mount(destination, "bind", &source.to_string_lossy(), &options));
    }
    if let Some(init) = &joins.init {
        mounts.push(defaults::mount(INIT_PATH, "bind", &init.to_string_lossy(), &["bind", "ro"]));
        if let Some(process) = spec.process_mut() {
            let own = process.args().clone().unwrap_or_default();
            process.set_args(Some(INIT_WORDS.map(str::to_owned).into_iter().chain(own).collect()));
        }
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// The word that names the container's own program, whoever the first process is.
pub fn program_word(spec: &Spec) -> Option<&str> {
    let words = spec.process().as_ref()?.args().as_ref()?;
    let at = if words.iter().zip(INIT_WORDS).filter(|(word, own)| word == own).count() == 2 { 2 } else { 0 };
    words.get(at).map(String::as_str)
}
