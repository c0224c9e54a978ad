//! `--format`: how results are written, and which fields each list has.

use std::str::FromStr;

use crate::output::template::{Template, TemplateError};

/// How results are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document, or one line an event.
    Json,
    /// As the user says.
    Template(Template),
}

impl FromStr for Format {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            template => Template::parse(template).map(Self::Template),
        }
    }
}

/// The lines of `--help` on a list's fields.
pub(super) fn help(fields: &[&str]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!(".{field}")).collect();
    format!("Fields for --format '{{{{.Field}}}}':\n  {}", fields.join(" "))
}

/// Fields of each list: the keys of its JSON, and the columns of its table that read otherwise. `verbs::tests` holds each
/// list to it.
pub(crate) mod fields {
    pub(crate) const IMAGES: &[&str] = &[
        "Name",
        "Ref",
        "Digest",
        "MediaType",
        "Platforms",
        "AbsentPlatforms",
        "Mode",
        "Percent",
        "SizeBytes",
        "Size",
        "Created",
        "Updated",
        "Age",
        "Labels",
    ];
    pub(crate) const LAZY: &[&str] = &[
        "Name",
        "Ref",
        "Digest",
        "Mode",
        "Asked",
        "Reasons",
        "EstimatedFullSeconds",
        "EstimatedLazySeconds",
        "TotalBytes",
        "Size",
        "PresentBytes",
        "Present",
        "MissingBytes",
        "Percent",
        "Verified",
        "Filling",
        "FillError",
        "Mountpoint",
        "Requests",
        "FetchedBytes",
        "Faults",
        "FaultWaitMs",
        "Waited",
        "Failures",
        "TraceEvents",
        "Layers",
        "RecentFaults",
    ];
    pub(crate) const IMAGE_CHECKS: &[&str] = &[
        "Name",
        "Ref",
        "MediaType",
        "Type",
        "Digest",
        "Status",
        "Present",
        "Required",
        "PresentBytes",
        "RequiredBytes",
        "Size",
        "Unpacked",
        "Missing",
    ];
    pub(crate) const USAGE: &[&str] = &["Key", "SizeBytes", "Size", "Inodes"];
    pub(crate) const CONTENT: &[&str] =
        &["Digest", "SizeBytes", "Size", "Created", "Updated", "Age", "Labels"];
    pub(crate) const INGESTS: &[&str] =
        &["Ref", "OffsetBytes", "Size", "TotalBytes", "Total", "Expected", "Started", "Updated", "Age"];
    pub(crate) const SNAPSHOTS: &[&str] = &["Key", "Parent", "Kind", "Created", "Updated", "Age", "Labels"];
    pub(crate) const LEASES: &[&str] = &["Id", "Created", "Age", "Expires", "Labels"];
    pub(crate) const RESOURCES: &[&str] = &["Type", "Id"];
    pub(crate) const NAMESPACES: &[&str] = &["Name", "Labels"];
    pub(crate) const CONTAINERS: &[&str] = &[
        "Id",
        "Image",
        "Command",
        "Status",
        "Pid",
        "ExitCode",
        "Created",
        "Age",
        "Runtime",
        "Snapshotter",
        "Labels",
        "Addresses",
        "Ports",
        "Network",
        "Restart",
        "Restarts",
        "Error",
    ];
    pub(crate) const STATS: &[&str] = &[
        "Id",
        "CpuPercent",
        "Cpu",
        "MemoryBytes",
        "MemoryLimitBytes",
        "Memory",
        "Limit",
        "MemoryPercent",
        "NetworkReceivedBytes",
        "NetworkSentBytes",
        "Network",
        "BlockReadBytes",
        "BlockWrittenBytes",
        "Block",
        "Pids",
        "Error",
    ];
    pub(crate) const PROCESSES: &[&str] = &[
        "Pid",
        "Ppid",
        "Uid",
        "State",
        "CpuMs",
        "Time",
        "MemoryBytes",
        "Memory",
        "Started",
        "Tty",
        "Command",
    ];
    pub(crate) const TASKS: &[&str] = &["Id", "Pid", "Status", "ExitCode", "Exit"];
    pub(crate) const PLUGINS: &[&str] =
        &["Type", "Id", "Platforms", "Status", "Error", "Capabilities", "Exports", "Requires"];
    pub(crate) const DOOMED: &[&str] =
        &["Namespace", "Kind", "Name", "Snapshotter", "Bytes", "Size", "Reason"];
    pub(crate) const KINDS: &[&str] = &["Kind", "Count", "Bytes", "Size", "ReclaimableBytes", "Reclaimable"];
    pub(crate) const EVENTS: &[&str] = &["Timestamp", "Namespace", "Topic", "Type", "Event"];
    pub(crate) const FINDINGS: &[&str] =
        &["Kind", "Name", "Snapshotter", "Namespaces", "Problem", "Outcome", "Images"];
    pub(crate) const KEPT: &[&str] = &["Kind", "Name", "Snapshotter", "Kept", "Chains"];
}
