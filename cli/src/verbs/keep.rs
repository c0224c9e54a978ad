//! What keeps content, and what removes the rest: `namespaces`, `leases`, `gc`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::leases::v1::ListRequest;
use runtime_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, ListNamespacesRequest, Namespace as WireNamespace,
};
use runtime_api::windlass::v1::{CollectRequest, CollectResponse};
use serde::Serialize;

use super::{Row, as_rfc3339, for_each, labels, show, time};
use crate::args::{Format, Global, LeasesVerb, NamespacesVerb, Pair};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount};

#[derive(Debug, Clone, Serialize)]
struct NamespaceRow {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Row for NamespaceRow {
    const HEADINGS: &'static [&'static str] = &["NAME", "LABELS"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.name.clone(), labels(&self.labels)]
    }
}

#[derive(Debug, Clone, Serialize)]
struct LeaseRow {
    id: String,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    labels: BTreeMap<String, String>,
}

impl Row for LeaseRow {
    const HEADINGS: &'static [&'static str] = &["ID", "AGE", "LABELS"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![self.id.clone(), amount::age(now, self.created), labels(&self.labels)]
    }
}

/// `namespaces ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn namespaces(global: &Global, verb: &NamespacesVerb) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    match verb {
        NamespacesVerb::Ls(args) => {
            let request = ListNamespacesRequest { filter: String::new() };
            let listed =
                client.namespaces().list(request).await.map_err(failed("list namespaces"))?.into_inner();
            let row = |found: WireNamespace| NamespaceRow {
                name: found.name,
                labels: found.labels.into_iter().collect(),
            };
            let mut rows: Vec<NamespaceRow> = listed.namespaces.into_iter().map(row).collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            show(&rows, args, global.format)
        }
        NamespacesVerb::Create { name, labels } => create(&client, name.as_str(), labels).await,
        NamespacesVerb::Rm { names } => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            for_each(&names, |name| remove(&client, name)).await
        }
    }
}

async fn create(client: &Client, name: &str, labels: &[Pair]) -> Result<(), CliError> {
    let labels = labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
    let namespace = Some(WireNamespace { name: name.to_owned(), labels });
    let what = format!("create namespace {name}");
    client.namespaces().create(CreateNamespaceRequest { namespace }).await.map_err(failed(what))?;
    output::print(&format!("{name}\n"))
}

async fn remove(client: &Client, name: &str) -> Result<(), CliError> {
    let request = DeleteNamespaceRequest { name: name.to_owned() };
    client.namespaces().delete(request).await.map_err(failed(format!("remove namespace {name}")))?;
    output::print(&format!("{name}\n"))
}

/// `leases ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn leases(global: &Global, verb: &LeasesVerb) -> Result<(), CliError> {
    let LeasesVerb::Ls(args) = verb;
    let client = Client::connect(global).await?;
    let listed =
        client.leases().list(ListRequest { filters: Vec::new() }).await.map_err(failed("list leases"))?;
    let rows: Vec<LeaseRow> = listed
        .into_inner()
        .leases
        .into_iter()
        .map(|lease| LeaseRow {
            id: lease.id,
            created: time(lease.created_at),
            labels: lease.labels.into_iter().collect(),
        })
        .collect();
    show(&rows, args, global.format)
}

/// `gc`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn collect(global: &Global) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let removed =
        client.engine().collect(CollectRequest::default()).await.map_err(failed("collect"))?.into_inner();
    match global.format {
        Format::Table => output::print(&format!("{}\n", collected(&removed))),
        Format::Json => output::print(&output::json(&serde_json::json!({
            "blobs": removed.blobs,
            "snapshots": removed.snapshots,
            "ingests": removed.ingests,
            "freed_bytes": removed.freed_bytes,
        }))?),
    }
}

fn collected(removed: &CollectResponse) -> String {
    let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    if removed.blobs + removed.snapshots + removed.ingests == 0 {
        return "Nothing to remove".to_owned();
    }
    format!(
        "Removed {}, {}, {}: {} freed",
        count(removed.blobs, "blob"),
        count(removed.snapshots, "snapshot"),
        count(removed.ingests, "unfinished download"),
        amount::size(removed.freed_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_says_what_went() {
        let removed =
            CollectResponse { blobs: 1, snapshots: 3, freed_bytes: 2048, ..CollectResponse::default() };
        assert_eq!(collected(&removed), "Removed 1 blob, 3 snapshots, 0 unfinished downloads: 2.0 KiB freed");
        assert_eq!(collected(&CollectResponse::default()), "Nothing to remove");
    }
}
