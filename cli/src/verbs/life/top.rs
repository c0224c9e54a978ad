//! `top`: the processes of a container.

use std::time::{Duration, SystemTime};

use runtime_api::windlass::v1::{TopProcess, TopRequest};
use serde::Serialize;

use crate::args::{Global, ListArgs, OneArgs, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{amount, command_line};
use crate::verbs::containers::find;
use crate::verbs::{Row, as_rfc3339, show};

/// A process.
#[derive(Debug, Serialize)]
struct ProcessRow {
    #[serde(skip)]
    name: String,
    pid: u32,
    ppid: u32,
    uid: u32,
    state: String,
    cpu_ms: u64,
    memory_bytes: u64,
    #[serde(serialize_with = "as_rfc3339")]
    started: SystemTime,
    tty: String,
    command: Vec<String>,
}

impl From<TopProcess> for ProcessRow {
    fn from(process: TopProcess) -> Self {
        Self {
            name: process.pid.to_string(),
            pid: process.pid,
            ppid: process.parent,
            uid: process.uid,
            state: process.state,
            cpu_ms: process.cpu_ms,
            memory_bytes: process.memory_bytes,
            started: amount::time(process.started_at, 0),
            tty: process.terminal,
            command: process.command,
        }
    }
}

impl Row for ProcessRow {
    const FIELDS: &'static [&'static str] = fields::PROCESSES;
    const HEADINGS: &'static [&'static str] =
        &["PID", "PPID", "UID", "STATE", "TIME", "MEMORY", "TTY", "COMMAND"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.pid.to_string(),
            self.ppid.to_string(),
            self.uid.to_string(),
            self.state.clone(),
            amount::duration(Duration::from_millis(self.cpu_ms)),
            amount::size(self.memory_bytes),
            self.tty.clone(),
            command_line(&self.command),
        ]
    }
}

/// `top`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, args: &OneArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let id = find(&client, &args.id).await?.id;
    let answer = client.lives().top(TopRequest { id: id.clone() }).await;
    let answer = answer.map_err(failed(format!("list the processes of container {id}")))?;
    let rows: Vec<ProcessRow> = answer.into_inner().processes.into_iter().map(ProcessRow::from).collect();
    show(&rows, &ListArgs::default(), &global.format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_the_fields_the_help_lists() {
        let row = ProcessRow::from(TopProcess { command: vec!["a b".to_owned()], ..TopProcess::default() });
        crate::verbs::tests::fields_are_as_documented(&row);
        assert_eq!(row.cells(SystemTime::UNIX_EPOCH).last().unwrap(), "'a b'");
    }
}
