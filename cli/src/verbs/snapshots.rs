//! `snapshots ...`: which verb is where, and those that make, change or remove one.

mod diff;
mod list;
mod tree;

use std::path::Path;

use runtime_api::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, Info, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    UpdateSnapshotRequest, ViewSnapshotRequest,
};
use runtime_api::containerd::types::Mount;
use serde_json::{Value, json};

use super::{all_labels, for_each, kept, label_change, label_map};
use crate::args::{Format, Global, Label, PrepareArgs, SnapshotsArgs, SnapshotsVerb};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, command_line, printable};
use crate::pull;

pub(crate) use list::UsageRow;

/// `snapshots ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, args: &SnapshotsArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let of = Of { client: &client, snapshotter: &args.snapshotter, format: &global.format };
    match &args.verb {
        SnapshotsVerb::Ls(args) => list::run(&of, args).await,
        SnapshotsVerb::Info { key } => list::info(&of, key).await,
        SnapshotsVerb::Usage(args) => list::usage(&of, args).await,
        SnapshotsVerb::Tree => tree::run(&of).await,
        SnapshotsVerb::Diff(args) => diff::run(&of, args).await,
        SnapshotsVerb::Commit { name, key, label } => of.commit(name, key, label).await,
        SnapshotsVerb::Prepare(args) => of.make(args, true).await,
        SnapshotsVerb::View(args) => of.make(args, false).await,
        SnapshotsVerb::Mounts { target, key } => {
            let mounts = of.mounts(key).await?;
            of.show(&mounts, Some(target))
        }
        SnapshotsVerb::Rm { keys } => for_each(keys, |key| of.remove(key)).await,
        SnapshotsVerb::Label { key, labels } => of.label(key, labels).await,
        SnapshotsVerb::Unpack(args) => pull::unpack(&client, args, of.snapshotter, of.format).await,
    }
}

/// The snapshots of one snapshotter, and how results are written.
struct Of<'a> {
    client: &'a Client,
    snapshotter: &'a str,
    format: &'a Format,
}

impl Of<'_> {
    fn snapshotter(&self) -> String {
        self.snapshotter.to_owned()
    }

    async fn commit(&self, name: &str, key: &str, labels: &[Label]) -> Result<(), CliError> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter(),
            name: name.to_owned(),
            key: key.to_owned(),
            // What a person makes is not garbage at once.
            labels: kept(label_map(labels)),
            parent: String::new(),
        };
        let what = format!("commit snapshot {key} as {name}");
        self.client.snapshots().commit(request).await.map_err(failed(what))?;
        output::document(self.format, &json!({ "name": name }), String::new)
    }

    /// `prepare` and `view`. Both are kept until they are removed; `ctr` leaves views to the next collection.
    async fn make(&self, args: &PrepareArgs, is_writable: bool) -> Result<(), CliError> {
        let parent = args.parent.clone().unwrap_or_default();
        let (snapshotter, key) = (self.snapshotter(), args.key.clone());
        let labels = kept(label_map(&args.label));
        let mut client = self.client.snapshots();
        let mounts = if is_writable {
            let request = PrepareSnapshotRequest { snapshotter, key, parent, labels };
            let what = format!("prepare snapshot {}", args.key);
            client.prepare(request).await.map_err(failed(what))?.into_inner().mounts
        } else {
            let request = ViewSnapshotRequest { snapshotter, key, parent, labels };
            let what = format!("prepare a view {}", args.key);
            client.view(request).await.map_err(failed(what))?.into_inner().mounts
        };
        if args.mounts {
            return output::print(&output::json(&documents(&mounts))?);
        }
        match (&args.target, self.format) {
            // As `ctr`: without a directory there is no command to print.
            (None, Format::Table) => Ok(()),
            (target, _) => self.show(&mounts, target.as_deref()),
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>, CliError> {
        let request = MountsRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let what = format!("ask how snapshot {key} is mounted");
        Ok(self.client.snapshots().mounts(request).await.map_err(failed(what))?.into_inner().mounts)
    }

    fn show(&self, mounts: &[Mount], target: Option<&Path>) -> Result<(), CliError> {
        let target = target.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        output::document(self.format, &documents(mounts), || commands(mounts, &target))
    }

    async fn remove(&self, key: &str) -> Result<(), CliError> {
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        self.client.snapshots().remove(request).await.map_err(failed(format!("remove snapshot {key}")))?;
        output::print(&format!("{}\n", printable(key)))
    }

    async fn label(&self, key: &str, labels: &[Label]) -> Result<(), CliError> {
        let (labels, mask) = label_change(labels);
        let info = Some(Info { name: key.to_owned(), labels, ..Info::default() });
        let request =
            UpdateSnapshotRequest { snapshotter: self.snapshotter(), info, update_mask: Some(mask) };
        let what = format!("label snapshot {key}");
        let updated = self.client.snapshots().update(request).await.map_err(failed(what))?.into_inner();
        let labels: std::collections::BTreeMap<_, _> =
            updated.info.unwrap_or_default().labels.into_iter().collect();
        output::document(self.format, &labels, || format!("{}\n", printable(&all_labels(&labels))))
    }
}

/// Mounts as `ctr --mounts` prints them.
fn documents(mounts: &[Mount]) -> Value {
    let document = |mount: &Mount| json!({ "Type": mount.r#type, "Source": mount.source, "Target": mount.target, "Options": mount.options });
    mounts.iter().map(document).collect()
}

/// A command for each mount: `mount -t overlay overlay /mnt -o a,b`.
fn commands(mounts: &[Mount], target: &str) -> String {
    let command = |mount: &Mount| {
        let mut target = target.to_owned();
        if !mount.target.is_empty() {
            target = format!("{}/{}", target.trim_end_matches('/'), mount.target.trim_start_matches('/'));
        }
        let mut words = ["mount", "-t", &mount.r#type, &mount.source, &target].map(str::to_owned).to_vec();
        if !mount.options.is_empty() {
            words.extend(["-o".to_owned(), mount.options.join(",")]);
        }
        format!("{}\n", printable(&command_line(&words)))
    };
    mounts.iter().map(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_a_command_that_mounts() {
        let mount = Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec!["lowerdir=/a b:/c".to_owned(), "ro".to_owned()],
        };
        assert_eq!(
            commands(std::slice::from_ref(&mount), "/mnt"),
            "mount -t overlay overlay /mnt -o 'lowerdir=/a b:/c,ro'\n"
        );
        assert_eq!(documents(&[mount])[0]["Options"][1], "ro");
    }
}
