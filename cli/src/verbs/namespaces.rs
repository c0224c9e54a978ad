//! `namespaces ...`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, ListNamespacesRequest, Namespace as WireNamespace,
    UpdateNamespaceRequest,
};
use serde::Serialize;

use super::{Row, check_format, for_each, label_change, label_map, labels, show};
use crate::args::{Global, Label, ListArgs, NamespacesVerb, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output;

#[derive(Debug, Clone, Serialize)]
struct NamespaceRow {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Row for NamespaceRow {
    const HEADINGS: &'static [&'static str] = &["NAME", "LABELS"];
    const FIELDS: &'static [&'static str] = fields::NAMESPACES;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![self.name.clone(), labels(&self.labels)]
    }
}

/// `namespaces ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &NamespacesVerb) -> Result<(), CliError> {
    check_format::<NamespaceRow>(&global.format)?;
    let client = Client::connect(global).await?;
    match verb {
        NamespacesVerb::Ls(args) => ls(&client, args, global).await,
        NamespacesVerb::Create { name, labels } => create(&client, name.as_str(), labels).await,
        NamespacesVerb::Label { name, labels } => label(&client, name.as_str(), labels).await,
        NamespacesVerb::Rm { names } => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            for_each(&names, |name| remove(&client, name)).await
        }
    }
}

async fn ls(client: &Client, args: &ListArgs, global: &Global) -> Result<(), CliError> {
    let request = ListNamespacesRequest { filter: String::new() };
    let listed = client.namespaces().list(request).await.map_err(failed("list namespaces"))?.into_inner();
    let row =
        |found: WireNamespace| NamespaceRow { name: found.name, labels: found.labels.into_iter().collect() };
    let mut rows: Vec<NamespaceRow> = listed.namespaces.into_iter().map(row).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    show(&rows, args, &global.format)
}

async fn create(client: &Client, name: &str, labels: &[Label]) -> Result<(), CliError> {
    let namespace = Some(WireNamespace { name: name.to_owned(), labels: label_map(labels) });
    let what = format!("create namespace {name}");
    client.namespaces().create(CreateNamespaceRequest { namespace }).await.map_err(failed(what))?;
    output::print(&format!("{name}\n"))
}

async fn label(client: &Client, name: &str, labels: &[Label]) -> Result<(), CliError> {
    let (labels, mask) = label_change(labels);
    let namespace = Some(WireNamespace { name: name.to_owned(), labels });
    let request = UpdateNamespaceRequest { namespace, update_mask: Some(mask) };
    client.namespaces().update(request).await.map_err(failed(format!("label namespace {name}")))?;
    Ok(())
}

async fn remove(client: &Client, name: &str) -> Result<(), CliError> {
    let request = DeleteNamespaceRequest { name: name.to_owned() };
    client.namespaces().delete(request).await.map_err(failed(format!("remove namespace {name}")))?;
    output::print(&format!("{name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_fields_are_those_the_help_lists() {
        let row = NamespaceRow { name: "a".to_owned(), labels: BTreeMap::new() };
        crate::verbs::tests::fields_are_as_documented(&row);
    }
}
