//! What a container may do, as `run` takes it.

use std::path::PathBuf;

use clap::Args;

use super::value::Pair;

/// Permissions and prohibitions.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArgs {
    /// All capabilities, all devices, no seccomp filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Give it a capability; ALL is all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) cap_add: Vec<String>,
    /// Take one of the default ones away; ALL is all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) cap_drop: Vec<String>,
    /// Give it a device of this machine
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub(crate) device: Vec<String>,
    /// no-new-privileges[=false], seccomp=FILE|unconfined, apparmor=NAME|unconfined, label=disable,
    /// systempaths=unconfined, mask=PATH, unmask=PATH
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Let its programs gain privileges (set-user-ID); the same as --security-opt no-new-privileges=false
    #[arg(long)]
    pub(crate) allow_new_privs: bool,
    /// Profile of system calls, as the runtime spec has it; the same as --security-opt seccomp=FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) seccomp_profile: Option<PathBuf>,
    /// Use the default filter of system calls, as is done anyway
    #[arg(long, hide = true)]
    pub(crate) seccomp: bool,
    /// AppArmor profile
    #[arg(long, value_name = "NAME")]
    pub(crate) apparmor_profile: Option<String>,
    /// Further group, by name or number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Kernel setting of its namespaces, such as net.core.somaxconn=1024
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<Pair>,
    /// Process namespace: private, host, container:ID
    #[arg(long, value_name = "WHOSE")]
    pub(crate) pid: Option<String>,
    /// IPC namespace: private, host, container:ID
    #[arg(long, value_name = "WHOSE")]
    pub(crate) ipc: Option<String>,
    /// Host name namespace: private, host
    #[arg(long, value_name = "WHOSE")]
    pub(crate) uts: Option<String>,
    /// Cgroup namespace: private, host
    #[arg(long, value_name = "WHOSE")]
    pub(crate) cgroupns: Option<String>,
}
