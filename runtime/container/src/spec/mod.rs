//! The OCI runtime spec of a container, from its image's config and the user's wishes.
//!
//! The defaults are containerd's (`oci.WithDefaultSpec`, `WithDefaultUnixDevices`, `WithImageConfig`, the default
//! seccomp profile), so that a command behaves here as under `ctr run`. One table per subject: [`defaults`] (mounts,
//! capabilities, devices, hidden paths), [`seccomp`], [`user`], `privileged`. What the user asks for beyond them is written
//! over them: [`grants`], [`limits`], [`join`].
//!
//! Not here: checking that the command exists (`program`).
mod command;
pub mod defaults;
pub mod grants;
pub mod join;
pub mod limits;
mod privileged;
mod seccomp;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    BoxBuilder, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, Mount, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder,
    UserBuilder,
};
use serde::{Deserialize, Serialize};
use storage_model::ImageConfig;

pub use grants::Grants;
pub use join::{Join, Joins, program_word};
pub use limits::{Limits, Ulimit};
pub use oci_spec::runtime::Spec;
pub use user::{Account, resolve as resolve_user};

use crate::files::{FileLookup, LookupError};

/// What the user of `run` asks for beyond the image's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// Words after the image's name; they replace the image's command, not its entrypoint.
    pub args: Vec<String>,
    /// Replaces the image's entrypoint and, as with Docker, drops its command.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` sets a variable, `NAME` alone takes one of the image's away.
    pub env: Vec<String>,
    /// Absolute directory to start in instead of the image's.
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid` instead of the image's.
    pub user: Option<String>,
    /// Give the process a terminal.
    pub terminal: bool,
    /// Share the host's network.
    pub net_host: bool,
    /// More mounts, made in order after the default ones.
    pub mounts: Vec<MountOption>,
    /// Host name inside; the container's id when absent.
    pub hostname: Option<String>,
    /// Mount the root read-only.
    pub read_only: bool,
    /// All capabilities, all devices, nothing hidden, no system call filter.
    pub privileged: bool,
    /// Limits.
    pub limits: Limits,
    /// Permissions beyond the defaults, and prohibitions.
    pub grants: Grants,
    /// Namespaces that are not its own, network files, and a first process of ours.
    pub joins: Joins,
    /// Annotations of the spec.
    pub annotations: BTreeMap<String, String>,
    /// Domain name inside (NIS).
    pub domainname: Option<String>,
    /// Parent of the container's cgroup instead of `/windlass/NAMESPACE`.
    pub cgroup_parent: Option<String>,
}

/// A mount asked for by the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOption {
    /// File system type; `bind` when empty.
    #[serde(default)]
    pub kind: String,
    /// Path on the host, or what the type wants.
    pub source: String,
    /// Absolute path inside.
    pub destination: String,
    /// Options as in fstab; a bind without `bind` or `rbind` among them gets `rbind`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Why there is no spec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Neither the image nor the user names a command.
    #[error("the image names no command to run: give one after the image's name")]
    NoCommand,
    /// A word that no process can be given.
    #[error("{what} {text:?} holds a NUL character, which no process can be given")]
    Nul {
        /// `argument`, `environment variable`, ...
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A variable without a name.
    #[error("environment variable {0:?} has no name: write NAME=value")]
    Variable(String),
    /// A relative directory.
    #[error("{what} {path:?} is not an absolute path")]
    Relative {
        /// `working directory`, `mount destination`.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// Digits outside the range of user and group numbers.
    #[error("{what} {text} is out of range: numbers go from 0 to 2147483647")]
    NumberRange {
        /// `user` or `group`.
        what: &'static str,
        /// The digits.
        text: String,
    },
    /// Not of the form `user[:group]`.
    #[error("user {0:?} is not of the form USER or USER:GROUP")]
    UserSyntax(String),
    /// A name that the image does not know.
    #[error("{what} {name:?} is not in the image's {file}: use a name from there, or a number")]
    UnknownName {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The file asked.
        file: &'static str,
    },
    /// The image's account files cannot be read.
    #[error("cannot look {what} {name:?} up")]
    Accounts {
        /// `user` or `group`.
        what: &'static str,
        /// What was looked up.
        name: String,
        /// The cause.
        #[source]
        source: LookupError,
    },
    /// No such capability.
    #[error("{0:?} is not a capability: write a name such as NET_ADMIN, or ALL")]
    Capability(String),
    /// A device that cannot be given.
    #[error("device {given:?} cannot be given: {reason}")]
    Device {
        /// What was asked for.
        given: String,
        /// Why not.
        reason: &'static str,
    },
    /// A security option that cannot be followed.
    #[error("security option {given:?} cannot be followed: {reason}")]
    Security {
        /// What was asked for.
        given: String,
        /// Why not.
        reason: &'static str,
    },
    /// A limit that no kernel takes.
    #[error("{what} {given} is no limit: {reason}")]
    Limit {
        /// Its name.
        what: &'static str,
        /// What was asked for.
        given: String,
        /// Why not.
        reason: &'static str,
    },
    /// The machine's own devices or capabilities could not be listed, for a privileged container.
    #[error("cannot read {path}, needed for a privileged container")]
    Host {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Version of the runtime spec that is written: the newest that runc 1.1 and crun 1.8 both read.
const VERSION: &str = "1.0.2";

/// The spec of a container of `image` under `options`; user and group names are looked up in `files`.
///
/// Root path, cgroup and host name are still to be set: [`place`].
///
/// # Errors
/// [`SpecError`] names what is wrong with image or options.
pub fn build(image: &ImageConfig, options: &RunOptions, files: &dyn FileLookup) -> Result<Spec, SpecError> {
    let mut spec = Spec::default();
    let mounts = mounts(options)?;
    spec.set_version(VERSION.to_owned())
        .set_hostname(options.hostname.clone())
        .set_annotations(None)
        .set_mounts(Some(mounts))
        .set_process(Some(process(image, options, files)?))
        .set_root(Some(built(RootBuilder::default().path("rootfs").readonly(options.read_only).build())))
        .set_linux(Some(linux(options)));
    if !options.annotations.is_empty() {
        spec.set_annotations(Some(options.annotations.clone().into_iter().collect()));
    }
    if let (Some(parent), Some(linux)) = (&options.cgroup_parent, spec.linux_mut()) {
        // The runtime's own word for it; the name is added by [`place`].
        linux.set_cgroups_path(Some(PathBuf::from(parent)));
    }
    spec.set_domainname(options.domainname.clone());
    if options.privileged {
        privileged::grant(&mut spec)?;
    }
    grants::apply(&mut spec, &options.grants, files)?;
    limits::apply(&mut spec, &options.limits)?;
    join::apply(&mut spec, &options.joins)?;
    Ok(spec)
}

/// Writes into `spec` where the container lives: its root directory, its cgroup, its default host name.
pub fn place(spec: &mut Spec, namespace: &str, id: &str, rootfs: &Path) {
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_path_buf());
    }
    if let Some(linux) = spec.linux_mut() {
        let path = match linux.cgroups_path() {
            Some(parent) => parent.join(id),
            None => PathBuf::from(format!("/windlass/{namespace}/{id}")),
        };
        linux.set_cgroups_path(Some(path));
    }
    if spec.hostname().is_none() {
        spec.set_hostname(Some(id.chars().take(HOSTNAME_BYTES_MAX).collect()));
    }
}

/// Longest host name the kernel takes, in bytes (`__NEW_UTS_LEN`); ids are ASCII.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Gives the terminal in `spec` its first size, so that the process never sees a terminal without one.
pub fn set_console_size(spec: &mut Spec, rows: u16, columns: u16) {
    let size = built(BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build());
    if let Some(process) = spec.process_mut() {
        process.set_console_size(Some(size));
    }
}

fn process(image: &ImageConfig, options: &RunOptions, files: &dyn FileLookup) -> Result<Process, SpecError> {
    let wanted = options.user.as_deref().unwrap_or(&image.config.user);
    let account = user::resolve(wanted, files)?;
    let groups = account.all_groups();
    let user = UserBuilder::default().uid(account.uid).gid(account.gid).additional_gids(groups).build();
    let capabilities = defaults::capabilities();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities);
    let mut capabilities = built(capabilities.build());
    // CVE-2022-29162: an inheritable set would survive into programs with file capabilities.
    capabilities.set_inheritable(None).set_ambient(None);
    let files_open = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .hard(defaults::OPEN_FILES_MAX)
        .soft(defaults::OPEN_FILES_MAX);
    let process = ProcessBuilder::default()
        .terminal(options.terminal)
        .user(built(user))
        .args(command::words(image, options)?)
        .env(command::environment(image, options)?)
        .cwd(command::directory(image, options)?)
        .capabilities(capabilities)
        .rlimits([built(files_open.build())])
        .no_new_privileges(true);
    Ok(built(process.build()))
}

fn linux(options: &RunOptions) -> oci_spec::runtime::Linux {
    let mut namespaces = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if !options.net_host {
        namespaces.push(LinuxNamespaceType::Network);
    }
    if defaults::unified_cgroups() {
        namespaces.push(LinuxNamespaceType::Cgroup);
    }
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| built(LinuxNamespaceBuilder::default().typ(kind).build()))
        .collect();
    let resources = LinuxResourcesBuilder::default().devices(defaults::device_rules()).build();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(built(resources))
        .masked_paths(defaults::MASKED_PATHS.map(str::to_owned))
        .readonly_paths(defaults::READONLY_PATHS.map(str::to_owned))
        .seccomp(seccomp::default_profile(&defaults::capabilities()));
    built(linux.build())
}

fn mounts(options: &RunOptions) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = defaults::mounts();
    if options.net_host {
        mounts.extend(
            ["/etc/hosts", "/etc/resolv.conf"]
                .into_iter()
                .filter(|path| Path::new(path).exists())
                .map(|path| defaults::mount(path, "bind", path, &["rbind", "ro"])),
        );
    }
    for wanted in &options.mounts {
        if !wanted.destination.starts_with('/') {
            let path = wanted.destination.clone();
            return Err(SpecError::Relative { what: "mount destination", path });
        }
        let kind = if wanted.kind.is_empty() { "bind" } else { &wanted.kind };
        let mut list: Vec<&str> = wanted.options.iter().map(String::as_str).collect();
        if kind == "bind" && !list.iter().any(|option| matches!(*option, "bind" | "rbind")) {
            list.insert(0, "rbind");
        }
        mounts.push(defaults::mount(&wanted.destination, kind, &wanted.source, &list));
    }
    Ok(mounts)
}

/// Takes a value out of one of `oci-spec`'s builders.
fn built<T>(result: Result<T, oci_spec::OciSpecError>) -> T {
    result.expect("every field of the builders used here has a default, so building cannot fail")
}

#[cfg(test)]
mod tests;
