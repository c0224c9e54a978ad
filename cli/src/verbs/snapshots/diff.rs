//! `snapshots diff`: what a snapshot changes, as a layer on standard output.
//!
//! `lease -> views of what is committed -> Diff -> read -> remove the views and the lease`. The lease has an end of its own: of
//! a command that is killed nothing is left once it has passed.

use std::time::Duration;

use runtime_api::containerd::services::diff::v1::DiffRequest;
use runtime_api::containerd::services::leases::v1::DeleteRequest;
use runtime_api::containerd::services::snapshots::v1::{Kind, RemoveSnapshotRequest, ViewSnapshotRequest};
use runtime_api::containerd::types::Mount;
use serde_json::json;

use super::{Of, list};
use crate::args::DiffArgs;
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt;
use crate::output;
use crate::verbs::{content, kept, label_map, leases};

/// How long what is made on the way may outlive a killed command.
const LEASE: Duration = Duration::from_secs(60 * 60);

/// `snapshots diff`.
///
/// # Errors
/// [`CliError`]; what was made on the way is removed.
pub(super) async fn run(of: &Of<'_>, args: &DiffArgs) -> Result<(), CliError> {
    if !args.keep {
        output::refuse_terminal("a layer")?;
    }
    let lease = leases::create(of.client, None, LEASE, &[]).await?;
    let client = of.client.with_lease(&lease)?;
    let mut work = Work { of, client: &client, lease: &lease, views: Vec::new() };
    let outcome = interrupt::or_interrupted(work.run(args)).await;
    // What cannot be removed now goes with the lease's end: the outcome is what matters.
    work.clean().await;
    outcome
}

struct Work<'a> {
    of: &'a Of<'a>,
    client: &'a Client,
    lease: &'a str,
    /// Keys of views that were made.
    views: Vec<String>,
}

impl Work<'_> {
    async fn run(&mut self, args: &DiffArgs) -> Result<(), CliError> {
        let (left, right) = match &args.other {
            Some(other) => (self.tree(&args.key).await?, self.tree(other).await?),
            None => {
                let parent = list::stat(self.of, &args.key).await?.parent;
                (self.view(&parent).await?, self.tree(&args.key).await?)
            }
        };
        let labels = label_map(&args.label);
        let request = DiffRequest {
            left,
            right,
            media_type: args.media_type.clone(),
            r#ref: args.reference.clone().unwrap_or_default(),
            labels: if args.keep { kept(labels) } else { labels },
            source_date_epoch: epoch(),
        };
        let what = format!("compare snapshot {}", args.key);
        let answer = self.client.diff().diff(request).await.map_err(failed(what))?.into_inner();
        let digest = answer.diff.unwrap_or_default().digest;
        if args.keep {
            let document = json!({ "digest": digest });
            return output::document(self.of.format, &document, || format!("{digest}\n"));
        }
        // The layer in the store goes with the lease, unless somebody else keeps the same bytes.
        content::copy(self.client, &digest).await
    }

    /// How a snapshot's tree is mounted: itself while it is active, by a view once it is committed.
    async fn tree(&mut self, key: &str) -> Result<Vec<Mount>, CliError> {
        match list::stat(self.of, key).await?.kind() {
            Kind::Active | Kind::View => self.of.mounts(key).await,
            Kind::Committed | Kind::Unknown => self.view(key).await,
        }
    }

    /// A view of a committed snapshot, or of nothing.
    async fn view(&mut self, parent: &str) -> Result<Vec<Mount>, CliError> {
        let key = format!("diff-{}-{}", self.lease, self.views.len());
        let request = ViewSnapshotRequest {
            snapshotter: self.of.snapshotter(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: Default::default(),
        };
        let what = format!("view snapshot {parent}");
        let answer = self.client.snapshots().view(request).await.map_err(failed(what))?;
        self.views.push(key);
        Ok(answer.into_inner().mounts)
    }

    async fn clean(self) {
        for key in self.views {
            let request = RemoveSnapshotRequest { snapshotter: self.of.snapshotter(), key };
            let _ = self.client.snapshots().remove(request).await;
        }
        let request = DeleteRequest { id: self.lease.to_owned(), sync: false };
        let _ = self.client.leases().delete(request).await;
    }
}

/// `SOURCE_DATE_EPOCH`, which makes archives the same at any time (reproducible-builds.org).
fn epoch() -> Option<prost_types::Timestamp> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()?;
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}
