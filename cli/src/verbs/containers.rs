//! `containers ls|info|rm` and `tasks ls|kill|rm`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::containerd::services::containers::v1::{Container as Record, UpdateContainerRequest};
use runtime_api::windlass::v1::{
    Container, KillRequest, ListContainersRequest, PortMapping, RemoveContainerRequest,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Row, all_labels, as_rfc3339, for_each, label_change, life, shortened, show};
use crate::args::{
    ContainerRemoveArgs, ContainersVerb, Global, KillArgs, KillManyArgs, Label, ListArgs, PsArgs, TasksVerb,
    fields,
};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount, command_line};

/// Longest command a table shows, in characters.
const COMMAND_CHARS_MAX: usize = 40;

/// A container in a list.
#[derive(Debug, Clone, Serialize)]
struct ContainerRow {
    id: String,
    image: String,
    command: Vec<String>,
    status: String,
    pid: Option<u32>,
    exit_code: Option<u32>,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    runtime: String,
    snapshotter: String,
    labels: BTreeMap<String, String>,
    addresses: Vec<String>,
    ports: String,
    network: String,
    restart: String,
    restarts: u32,
    error: String,
}

impl From<Container> for ContainerRow {
    fn from(container: Container) -> Self {
        Self {
            exit_code: (container.status == "exited").then_some(container.exit_code),
            pid: (container.pid != 0).then_some(container.pid),
            created: amount::time(container.created_at, 0),
            id: container.id,
            image: container.image,
            command: container.args,
            status: container.status,
            runtime: container.runtime,
            snapshotter: container.snapshotter,
            labels: container.labels.into_iter().collect(),
            addresses: container.addresses,
            ports: container.ports.iter().map(port).collect::<Vec<_>>().join(", "),
            network: container.network_mode,
            restart: container.restart,
            restarts: container.restarts,
            error: container.error,
        }
    }
}

/// `127.0.0.1:8080->80/tcp`.
fn port(port: &PortMapping) -> String {
    let address = match port.host_ip.as_str() {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    };
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    format!("{address}{}->{}/{protocol}", port.host_port, port.container_port)
}

impl ContainerRow {
    /// `running`, `exited (0)`.
    fn state(&self) -> String {
        match self.exit_code {
            Some(code) => format!("{} ({code})", self.status),
            None => self.status.clone(),
        }
    }
}

impl Row for ContainerRow {
    const FIELDS: &'static [&'static str] = fields::CONTAINERS;
    const HEADINGS: &'static [&'static str] = &["ID", "IMAGE", "COMMAND", "STATUS", "AGE", "PORTS"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let command = shortened(&command_line(&self.command), COMMAND_CHARS_MAX);
        let age = amount::age(now, self.created);
        vec![self.id.clone(), self.image.clone(), command, self.state(), age, self.ports.clone()]
    }
}

/// A container's process in a list.
#[derive(Debug, Clone, Serialize)]
struct TaskRow {
    id: String,
    pid: Option<u32>,
    status: String,
    exit_code: Option<u32>,
}

impl Row for TaskRow {
    const FIELDS: &'static [&'static str] = fields::TASKS;
    const HEADINGS: &'static [&'static str] = &["ID", "PID", "STATUS", "EXIT"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![self.id.clone(), number(self.pid), self.status.clone(), number(self.exit_code)]
    }
}

/// `containers ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &ContainersVerb) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    match verb {
        ContainersVerb::Ls(args) => {
            let rows: Vec<ContainerRow> = all(&client).await?.into_iter().map(ContainerRow::from).collect();
            show(&rows, args, &global.format)
        }
        ContainersVerb::Info { id } => {
            let container = find(&client, id).await?;
            output::print(&output::json(&info(container))?)
        }
        ContainersVerb::Rm(args) => remove(&client, args).await,
        ContainersVerb::Label { id, labels } => label(&client, id, labels).await,
    }
}

/// `ps`: the same list, of those that run.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn ps(global: &Global, args: &PsArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let ends = |container: &Container| matches!(container.status.as_str(), "exited" | "unknown");
    let containers = all(&client).await?.into_iter().filter(|container| args.all || !ends(container));
    let rows: Vec<ContainerRow> = containers.map(ContainerRow::from).collect();
    show(&rows, &args.list, &global.format)
}

/// `rm`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn rm(global: &Global, args: &ContainerRemoveArgs) -> Result<(), CliError> {
    remove(&Client::connect(global).await?, args).await
}

/// `kill`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn kill_many(global: &Global, args: &KillManyArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let kill = KillArgs { id: typed.to_owned(), signal: args.signal, all: args.all };
        kill_one(client, &kill).await
    })
    .await
}

/// `tasks ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn tasks(global: &Global, verb: &TasksVerb) -> Result<(), CliError> {
    match verb {
        TasksVerb::Pause(args) => return life::pause(global, args).await,
        TasksVerb::Resume(args) => return life::unpause(global, args).await,
        TasksVerb::Ps(args) => return life::top::run(global, args).await,
        TasksVerb::Metrics(args) => return life::stats::once(global, &args.id).await,
        _ => {}
    }
    let client = Client::connect(global).await?;
    match verb {
        TasksVerb::Ls(args) => list_tasks(&client, args, global).await,
        TasksVerb::Kill(args) => kill_one(&client, args).await,
        TasksVerb::Rm(args) => remove(&client, args).await,
        // Answered in `main`, for they have exit codes of their own, or above.
        _ => Ok(()),
    }
}

/// Sets labels; prints those the container then has, as `ctr` does.
async fn label(client: &Client, typed: &str, labels: &[Label]) -> Result<(), CliError> {
    let id = find(client, typed).await?.id;
    let (labels, mask) = label_change(labels);
    let container = Record { id: id.clone(), labels, ..Record::default() };
    let request = UpdateContainerRequest { container: Some(container), update_mask: Some(mask) };
    let updated = client.records().update(request).await.map_err(failed(format!("label container {id}")))?;
    let labels = updated.into_inner().container.unwrap_or_default().labels;
    output::print(&format!("{}\n", all_labels(&labels.into_iter().collect())))
}

async fn list_tasks(client: &Client, args: &ListArgs, global: &Global) -> Result<(), CliError> {
    let rows: Vec<TaskRow> = all(client)
        .await?
        .into_iter()
        .map(ContainerRow::from)
        .map(|row| TaskRow { id: row.id, pid: row.pid, status: row.status, exit_code: row.exit_code })
        .collect();
    show(&rows, args, &global.format)
}

async fn kill_one(client: &Client, args: &KillArgs) -> Result<(), CliError> {
    let id = find(client, &args.id).await?.id;
    let what = format!("send signal {} to container {id}", args.signal);
    let request = KillRequest { id, signal: args.signal, all: args.all };
    client.engine().kill(request).await.map_err(failed(what))?;
    Ok(())
}

async fn remove(client: &Client, args: &ContainerRemoveArgs) -> Result<(), CliError> {
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = RemoveContainerRequest { id: id.clone(), force: args.force };
        client.engine().remove_container(request).await.map_err(failed(format!("remove container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

async fn all(client: &Client) -> Result<Vec<Container>, CliError> {
    let listed = client.engine().list_containers(ListContainersRequest {}).await;
    let mut containers = listed.map_err(failed("list containers"))?.into_inner().containers;
    containers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(containers)
}

/// The container that `typed` names, whole or by a beginning that no other has.
pub(crate) async fn find(client: &Client, typed: &str) -> Result<Container, CliError> {
    let containers = all(client).await?;
    match choose(&containers, typed) {
        Ok(at) => Ok(containers.into_iter().nth(at).expect("the index is one of these")),
        Err(names) if names.is_empty() => Err(CliError::NotFound {
            kind: "container",
            name: typed.to_owned(),
            namespace: client.namespace().to_string(),
        }),
        Err(names) => {
            Err(CliError::Ambiguous { kind: "container", given: typed.to_owned(), names: names.join(", ") })
        }
    }
}

/// Index of the container that `typed` names, or the names it could mean.
fn choose(containers: &[Container], typed: &str) -> Result<usize, Vec<String>> {
    if let Some(exact) = containers.iter().position(|container| container.id == typed) {
        return Ok(exact);
    }
    let begins = |container: &Container| !typed.is_empty() && container.id.starts_with(typed);
    let matching: Vec<usize> = (0..containers.len()).filter(|at| begins(&containers[*at])).collect();
    match matching[..] {
        [only] => Ok(only),
        _ => Err(matching.into_iter().map(|at| containers[at].id.clone()).collect()),
    }
}

/// All that is known of a container.
pub(crate) fn info(container: Container) -> Value {
    // A spec that is not there yet, or not JSON, is shown as it is.
    let spec = match container.spec_json.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    };
    let row = ContainerRow::from(container);
    let mut value = json!(row);
    value["spec"] = spec;
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use crate::verbs::list;
    use std::time::Duration;

    fn container(id: &str, status: &str, pid: u32, exit_code: u32) -> Container {
        Container {
            id: id.to_owned(),
            image: "docker.io/library/a:1".to_owned(),
            status: status.to_owned(),
            pid,
            exit_code,
            args: ["sh", "-c", "while true; do echo something long; done"].map(str::to_owned).to_vec(),
            spec_json: r#"{"ociVersion":"1.0.2"}"#.to_owned(),
            ..Container::default()
        }
    }

    #[test]
    fn the_table_shows_exit_codes_only_of_those_that_ended() {
        let rows: Vec<ContainerRow> = [container("web", "running", 7, 0), container("job", "exited", 0, 42)]
            .into_iter()
            .map(ContainerRow::from)
            .collect();
        crate::verbs::tests::fields_are_as_documented(&rows[0]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(240);
        assert_eq!(
            list(&rows, &ListArgs { quiet: false }, &Format::Table, now).unwrap(),
            "\
ID   IMAGE                  COMMAND                                   STATUS       AGE  PORTS
web  docker.io/library/a:1  sh -c 'while true; do echo something ...  running      4m   -
job  docker.io/library/a:1  sh -c 'while true; do echo something ...  exited (42)  4m   -
"
        );
    }

    #[test]
    fn a_beginning_is_enough_when_no_other_container_has_it() {
        let containers = ["web", "web2", "job"].map(|id| container(id, "running", 1, 0));
        assert_eq!(choose(&containers, "web"), Ok(0));
        assert_eq!(choose(&containers, "j"), Ok(2));
        assert_eq!(choose(&containers, "we"), Err(vec!["web".to_owned(), "web2".to_owned()]));
        assert_eq!(choose(&containers, "x"), Err(Vec::new()));
        assert_eq!(choose(&containers, ""), Err(Vec::new()));
    }

    #[test]
    fn a_process_has_the_fields_the_help_lists() {
        let row = TaskRow { id: "a".to_owned(), pid: None, status: "created".to_owned(), exit_code: None };
        crate::verbs::tests::fields_are_as_documented(&row);
    }

    #[test]
    fn info_has_the_spec_as_json() {
        let value = info(container("web", "running", 7, 0));
        assert_eq!(value["spec"]["ociVersion"], "1.0.2");
        assert_eq!(value["pid"], 7);
        assert!(value["exit_code"].is_null());
    }
}
