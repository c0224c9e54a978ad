//! `leases ...`: what keeps things from being collected for a while.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use runtime_api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, Lease, ListRequest,
    ListResourcesRequest, Resource,
};
use serde::Serialize;

use super::{Row, as_rfc3339, check_format, for_each, label_map, labels, show, time};
use crate::args::{FilteredArgs, Format, Global, Label, LeasesVerb, ListArgs, ResourceName, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount, printable};

/// When a lease ends, RFC 3339: containerd's label.
pub(crate) const EXPIRE_LABEL: &str = "containerd.io/gc.expire";

#[derive(Debug, Clone, Serialize)]
struct LeaseRow {
    id: String,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    /// As its label says it; absent when it does not end.
    expires: Option<String>,
    labels: BTreeMap<String, String>,
}

impl From<Lease> for LeaseRow {
    fn from(lease: Lease) -> Self {
        let labels: BTreeMap<String, String> = lease.labels.into_iter().collect();
        Self {
            id: lease.id,
            created: time(lease.created_at),
            expires: labels.get(EXPIRE_LABEL).cloned(),
            labels,
        }
    }
}

impl Row for LeaseRow {
    const HEADINGS: &'static [&'static str] = &["ID", "AGE", "EXPIRES", "LABELS"];
    const FIELDS: &'static [&'static str] = fields::LEASES;

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let mut others = self.labels.clone();
        others.remove(EXPIRE_LABEL);
        let expires = self.expires.clone().unwrap_or_default();
        vec![self.id.clone(), amount::age(now, self.created), expires, labels(&others)]
    }
}

#[derive(Debug, Clone, Serialize)]
struct ResourceRow {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

impl Row for ResourceRow {
    const HEADINGS: &'static [&'static str] = &["TYPE", "ID"];
    const FIELDS: &'static [&'static str] = fields::RESOURCES;

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.kind.clone(), self.id.clone()]
    }
}

/// `leases ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &LeasesVerb) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    match verb {
        LeasesVerb::Ls(args) => ls(&client, args, &global.format).await,
        LeasesVerb::Create { id, expires, labels } => {
            let lease = create(&client, id.as_deref(), *expires, labels).await?;
            output::print(&format!("{}\n", printable(&lease)))
        }
        LeasesVerb::Resources { id, add, remove, list } => {
            resources(&client, id, (add, remove), list, &global.format).await
        }
        LeasesVerb::Rm { ids, sync } => {
            let last = ids.last();
            for_each(ids, |id| delete(&client, id, *sync && last.is_some_and(|last| last == id))).await
        }
    }
}

async fn ls(client: &Client, args: &FilteredArgs, format: &Format) -> Result<(), CliError> {
    check_format::<LeaseRow>(format)?;
    let request = ListRequest { filters: args.filters.clone() };
    let listed = client.leases().list(request).await.map_err(failed("list leases"))?.into_inner();
    let mut rows: Vec<LeaseRow> = listed.leases.into_iter().map(LeaseRow::from).collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    show(&rows, &args.list, format)
}

/// Makes a lease that ends after `expires` (zero: never), and returns its id.
///
/// # Errors
/// The engine's.
pub(crate) async fn create(
    client: &Client,
    id: Option<&str>,
    expires: Duration,
    labels: &[Label],
) -> Result<String, CliError> {
    let mut labels = label_map(labels);
    if !expires.is_zero() {
        let end = SystemTime::now().checked_add(expires).unwrap_or(SystemTime::UNIX_EPOCH);
        labels.entry(EXPIRE_LABEL.to_owned()).or_insert_with(|| amount::rfc3339(end));
    }
    let request = CreateRequest { id: id.unwrap_or_default().to_owned(), labels };
    let what = id.map_or_else(|| "create a lease".to_owned(), |id| format!("create lease {id}"));
    let made = client.leases().create(request).await.map_err(failed(what))?.into_inner();
    Ok(made.lease.unwrap_or_default().id)
}

async fn resources(
    client: &Client,
    id: &str,
    (add, remove): (&[ResourceName], &[ResourceName]),
    args: &ListArgs,
    format: &Format,
) -> Result<(), CliError> {
    check_format::<ResourceRow>(format)?;
    let wire = |name: &ResourceName| Some(Resource { id: name.id.clone(), r#type: name.kind.clone() });
    let id = || id.to_owned();
    for name in add {
        let request = AddResourceRequest { id: id(), resource: wire(name) };
        let what = format!("let lease {} keep {}", id(), name.id);
        client.leases().add_resource(request).await.map_err(failed(what))?;
    }
    for name in remove {
        let request = DeleteResourceRequest { id: id(), resource: wire(name) };
        let what = format!("let lease {} keep {} no longer", id(), name.id);
        client.leases().delete_resource(request).await.map_err(failed(what))?;
    }
    if !add.is_empty() || !remove.is_empty() {
        return Ok(());
    }
    let request = ListResourcesRequest { id: id() };
    let what = format!("list what lease {} keeps", id());
    let listed = client.leases().list_resources(request).await.map_err(failed(what))?.into_inner();
    let row = |found: Resource| ResourceRow { kind: found.r#type, id: found.id };
    let rows: Vec<ResourceRow> = listed.resources.into_iter().map(row).collect();
    show(&rows, args, format)
}

/// Removes a lease and prints its id.
async fn delete(client: &Client, id: &str, sync: bool) -> Result<(), CliError> {
    let request = DeleteRequest { id: id.to_owned(), sync };
    client.leases().delete(request).await.map_err(failed(format!("remove lease {id}")))?;
    output::print(&format!("{}\n", printable(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::tests::fields_are_as_documented;

    #[test]
    fn a_lease_says_when_it_ends() {
        let lease = Lease {
            id: "l".to_owned(),
            labels: [(EXPIRE_LABEL, "2030-01-01T00:00:00Z"), ("a", "b")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Lease::default()
        };
        let row = LeaseRow::from(lease);
        assert_eq!(row.cells(SystemTime::UNIX_EPOCH), ["l", "now", "2030-01-01T00:00:00Z", "a=b"]);
        fields_are_as_documented(&row);
        fields_are_as_documented(&ResourceRow { kind: "content".to_owned(), id: "x".to_owned() });
    }
}
