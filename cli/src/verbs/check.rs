//! `check`: what is damaged, and what became of it.
//!
//! Exit codes: 0 nothing is damaged, 1 all damage has been repaired, 2 damage is left, 3 the check could not be done.

use runtime_api::windlass::v1::check_event::Event;
use runtime_api::windlass::v1::{CheckDone, CheckRequest, Finding};
use serde_json::{Value, json};
use tonic::Status;

use crate::args::{CheckArgs, Format, Global};
use crate::client::{Client, failed};
use crate::error::{CliError, exit};
use crate::interrupt;
use crate::output::{self, amount, printable};
use crate::progress::{Progress, events};
use crate::pull;

/// `check`; returns the exit code.
///
/// # Errors
/// [`CliError::NotChecked`], so that its exit code is not taken for a result.
pub(crate) async fn run(global: &Global, args: &CheckArgs) -> Result<u8, CliError> {
    check(global, args).await.map_err(|error| CliError::NotChecked(Box::new(error)))
}

async fn check(global: &Global, args: &CheckArgs) -> Result<u8, CliError> {
    if let Format::Template(template) = &global.format {
        template.check(crate::args::fields::FINDINGS)?;
    }
    let request = CheckRequest {
        read_data: args.read_data,
        subset_index: args.subset.map_or(0, |subset| subset.index),
        subset_count: args.subset.map_or(0, |subset| subset.count),
        repair: args.repair,
        registry: Some(pull::options(&args.login)?),
    };
    let client = Client::connect(global).await?;
    let mut progress = Progress::choose(args.quiet, &global.format);
    let outcome = interrupt::or_interrupted(follow(&client, request, &mut progress, &global.format)).await;
    progress.finish();
    let done = outcome?;
    match &global.format {
        Format::Table if !args.quiet => output::print(&format!("{}\n", summary(&done)))?,
        Format::Json if args.quiet => output::print(&output::json(&document(&done))?)?,
        _ => {}
    }
    Ok(exit_code(&done))
}

async fn follow(
    client: &Client,
    request: CheckRequest,
    progress: &mut Progress,
    format: &Format,
) -> Result<CheckDone, CliError> {
    let what = "check the store";
    let mut events = client.engine().check(request).await.map_err(failed(what))?.into_inner();
    while let Some(event) = events.message().await.map_err(failed(what))? {
        progress.event(&event)?;
        match event.event {
            Some(Event::Finding(found)) => tell(&found, progress, format)?,
            Some(Event::Done(done)) => return Ok(done),
            Some(Event::Progress(_)) | None => {}
        }
    }
    Err(failed(what)(Status::internal("the stream of events ended without a result")))
}

/// A finding, on standard output, where it is the result.
fn tell(found: &Finding, progress: &Progress, format: &Format) -> Result<(), CliError> {
    match format {
        // The progress is JSON lines already, unless there is none.
        Format::Json if matches!(progress, Progress::Quiet) => {
            output::print(&format!("{}\n", events::finding(found)))
        }
        Format::Json => Ok(()),
        Format::Table => progress.pause(|| output::print(&format!("{}\n", line(found)))),
        Format::Template(template) => {
            let text = template.render(&events::finding(found))?;
            progress.pause(|| output::print(&format!("{text}\n")))
        }
    }
}

/// `damaged  blob sha256:...: ...; needed by a:1, b:2`.
fn line(found: &Finding) -> String {
    let mut text = format!("{:<11} {} {}", found.outcome, found.kind, found.name);
    if !found.snapshotter.is_empty() {
        text.push_str(&format!(" ({})", found.snapshotter));
    }
    text.push_str(&format!(": {}", found.problem));
    if !found.images.is_empty() {
        text.push_str(&format!("; needed by {}", found.images.join(", ")));
    }
    printable(&text)
}

fn summary(done: &CheckDone) -> String {
    let took = amount::duration(std::time::Duration::from_secs_f64(done.seconds.clamp(0.0, 1e9)));
    let read = match done.bytes_read {
        0 => String::new(),
        bytes => format!(", {} read", amount::size(bytes)),
    };
    let looked = format!("{} objects checked{read} in {took}", done.objects);
    match (done.damaged, done.repaired) {
        (0, _) => format!("{looked}: nothing is damaged"),
        (damaged, 0) => {
            format!("{looked}: {damaged} damaged; `windlass check --repair` fetches what it can again")
        }
        (damaged, repaired) if repaired >= damaged => format!("{looked}: {repaired} damaged and repaired"),
        (damaged, repaired) => format!("{looked}: {damaged} damaged, {repaired} of them repaired"),
    }
}

/// `damaged` counts everything that was found, repaired or not.
fn exit_code(done: &CheckDone) -> u8 {
    match (done.damaged, done.repaired) {
        (0, _) => exit::OK,
        (damaged, repaired) if repaired >= damaged => exit::REPAIRED,
        _ => exit::DAMAGED,
    }
}

fn document(done: &CheckDone) -> Value {
    json!({
        "objects": done.objects,
        "bytes_read": done.bytes_read,
        "damaged": done.damaged,
        "repaired": done.repaired,
        "seconds": done.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(damaged: u64, repaired: u64) -> CheckDone {
        CheckDone { objects: 12, bytes_read: 2048, damaged, repaired, seconds: 0.5 }
    }

    #[test]
    fn exit_codes_tell_clean_repaired_and_damaged_apart() {
        for (damaged, repaired, code) in [(0, 0, 0), (3, 3, 1), (3, 2, 2), (3, 0, 2)] {
            assert_eq!(exit_code(&done(damaged, repaired)), code, "{damaged} {repaired}");
        }
    }

    #[test]
    fn a_finding_says_what_is_wrong_and_who_needs_it() {
        let found = Finding {
            kind: "blob".to_owned(),
            name: "sha256:ab".to_owned(),
            problem: "has 3 bytes, not 4".to_owned(),
            outcome: "damaged".to_owned(),
            images: vec!["a:1".to_owned(), "b:2".to_owned()],
            ..Finding::default()
        };
        assert_eq!(line(&found), "damaged     blob sha256:ab: has 3 bytes, not 4; needed by a:1, b:2");
        assert!(summary(&done(1, 0)).contains("--repair"));
        assert!(summary(&done(0, 0)).ends_with("in 500 ms: nothing is damaged"));
    }
}
