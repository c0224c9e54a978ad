//! `stats`: what containers use, once or as it changes.
//!
//! The engine sends counters; rates are differences of two rounds, so the first round of processors is blank. On a terminal
//! each round takes the place of the one before.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::SystemTime;

use runtime_api::windlass::v1::{ContainerStats, StatsRequest, StatsResponse};
use serde::Serialize;

use crate::args::{Format, Global, ListArgs, StatsArgs, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt::or_interrupted;
use crate::output::{self, amount};
use crate::verbs::containers::find;
use crate::verbs::{Row, check_format, list};

/// Moves the cursor home and clears what is below it (ECMA-48 CUP, ED).
const HOME: &str = "\x1b[H\x1b[J";

/// What a container uses.
#[derive(Debug, Clone, Serialize)]
struct StatsRow {
    id: String,
    /// Of one processor; none in the first round.
    cpu_percent: Option<f64>,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    memory_percent: Option<f64>,
    network_received_bytes: u64,
    network_sent_bytes: u64,
    block_read_bytes: u64,
    block_written_bytes: u64,
    pids: u64,
    error: String,
}

impl StatsRow {
    fn new(now: ContainerStats, before: Option<&ContainerStats>) -> Self {
        let limit = Some(now.memory_limit_bytes).filter(|limit| *limit > 0);
        Self {
            cpu_percent: before.and_then(|before| cpu(before, &now)),
            memory_bytes: now.memory_bytes,
            memory_limit_bytes: limit,
            memory_percent: limit.map(|limit| tenths(now.memory_bytes as f64 * 100.0 / limit as f64)),
            network_received_bytes: now.network_received_bytes,
            network_sent_bytes: now.network_sent_bytes,
            block_read_bytes: now.block_read_bytes,
            block_written_bytes: now.block_written_bytes,
            pids: now.pids,
            error: now.error,
            id: now.id,
        }
    }
}

/// Share of one processor between two samples, in per cent.
fn cpu(before: &ContainerStats, now: &ContainerStats) -> Option<f64> {
    let time = now.at_ns.checked_sub(before.at_ns).filter(|time| *time > 0)?;
    // A container that was started again counts from nothing.
    let used = now.cpu_ns.checked_sub(before.cpu_ns)?;
    Some(tenths(used as f64 * 100.0 / time as f64))
}

fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

impl Row for StatsRow {
    const FIELDS: &'static [&'static str] = fields::STATS;
    const HEADINGS: &'static [&'static str] = &["ID", "CPU", "MEMORY", "LIMIT", "NETWORK", "BLOCK", "PIDS"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let both = |one: u64, other: u64| format!("{} / {}", amount::size(one), amount::size(other));
        vec![
            self.id.clone(),
            self.cpu_percent.map(|percent| format!("{percent:.1}%")).unwrap_or_default(),
            amount::size(self.memory_bytes),
            self.memory_limit_bytes.map(amount::size).unwrap_or_default(),
            both(self.network_received_bytes, self.network_sent_bytes),
            both(self.block_read_bytes, self.block_written_bytes),
            self.pids.to_string(),
        ]
    }
}

/// Counters of the round before.
#[derive(Default)]
struct Rounds {
    before: HashMap<String, ContainerStats>,
}

impl Rounds {
    fn next(&mut self, round: StatsResponse) -> Vec<StatsRow> {
        let mut rows = Vec::new();
        let mut now = HashMap::new();
        for sample in round.containers {
            rows.push(StatsRow::new(sample.clone(), self.before.get(&sample.id)));
            now.insert(sample.id.clone(), sample);
        }
        self.before = now;
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        rows
    }
}

/// `tasks metrics`: one round of one container.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn once(global: &Global, id: &str) -> Result<(), CliError> {
    run(global, &StatsArgs { ids: vec![id.to_owned()], no_stream: true, interval: 1 }).await
}

/// `stats`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, args: &StatsArgs) -> Result<(), CliError> {
    check_format::<StatsRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let mut ids = Vec::new();
    for typed in &args.ids {
        ids.push(find(&client, typed).await?.id);
    }
    // Two rounds are needed for a rate, even if one is shown.
    let request = StatsRequest { ids, follow: true, interval_ms: args.interval * 1000 };
    let what = "ask what containers use";
    let mut stream = client.lives().stats(request).await.map_err(failed(what))?.into_inner();
    let live = std::io::stdout().is_terminal() && global.format == Format::Table;
    let rounds = async {
        let mut rounds = Rounds::default();
        let mut number = 0;
        while let Some(round) = stream.message().await.map_err(failed(what))? {
            let rows = rounds.next(round);
            number += 1;
            if args.no_stream && number < 2 && !rows.is_empty() {
                continue;
            }
            let text = list(&rows, &ListArgs::default(), &global.format, SystemTime::now())?;
            output::print(&if live && !args.no_stream { format!("{HOME}{text}") } else { text })?;
            if args.no_stream {
                break;
            }
        }
        Ok(())
    };
    or_interrupted(rounds).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_ns: u64, at_ns: u64) -> StatsResponse {
        let one = ContainerStats {
            id: "web".to_owned(),
            cpu_ns,
            at_ns,
            memory_bytes: 1 << 20,
            memory_limit_bytes: 4 << 20,
            ..ContainerStats::default()
        };
        StatsResponse { containers: vec![one] }
    }

    #[test]
    fn rates_are_differences_of_two_rounds() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next(sample(500, 1000))[0].cpu_percent, None);
        let row = rounds.next(sample(2000, 2000)).remove(0);
        assert_eq!((row.cpu_percent, row.memory_percent), (Some(150.0), Some(25.0)));
        // It was started again.
        assert_eq!(rounds.next(sample(10, 3000))[0].cpu_percent, None);
        crate::verbs::tests::fields_are_as_documented(&row);
    }
}
