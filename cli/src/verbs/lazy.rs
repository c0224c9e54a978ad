//! `lazy`: images that are shown before they have arrived.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use runtime_api::windlass::v1::{
    LazyFillRequest, LazyImage, LazyImportTraceRequest, LazyMetricsRequest, LazyPushTraceRequest,
    LazyStatusRequest, LazyTraceRequest,
};
use serde::Serialize;

use super::{Row, check_format, list};
use crate::args::{Format, Global, LazyVerb, ListArgs, TraceVerb, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, amount, printable};

/// Longest trace that is read, in bytes; the engine has the same limit.
const TRACE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// An image and how it is here.
#[derive(Debug, Clone, Serialize)]
struct LazyRow {
    name: String,
    digest: String,
    /// lazy, full, content.
    mode: String,
    asked: String,
    reasons: Vec<String>,
    estimated_full_seconds: f64,
    estimated_lazy_seconds: f64,
    total_bytes: u64,
    present_bytes: u64,
    missing_bytes: u64,
    percent: f64,
    verified: bool,
    filling: bool,
    fill_error: String,
    mountpoint: String,
    requests: u64,
    fetched_bytes: u64,
    faults: u64,
    fault_wait_ms: f64,
    failures: u64,
    trace_events: u64,
    layers: Vec<LayerRow>,
    recent_faults: Vec<FaultRow>,
}

/// One layer of it.
#[derive(Debug, Clone, Serialize)]
struct LayerRow {
    digest: String,
    bytes: u64,
    format: String,
    present: bool,
    verified: bool,
}

/// A read that waited.
#[derive(Debug, Clone, Serialize)]
struct FaultRow {
    path: String,
    offset: u64,
    length: u64,
    at_unix_ms: u64,
    wait_ms: f64,
    source: String,
    error: String,
}

impl From<LazyImage> for LazyRow {
    fn from(image: LazyImage) -> Self {
        Self {
            percent: percent(image.bytes_present, image.bytes_total),
            missing_bytes: image.bytes_total.saturating_sub(image.bytes_present),
            name: image.name,
            digest: image.digest,
            mode: image.mode,
            asked: image.asked,
            reasons: image.reasons,
            estimated_full_seconds: image.estimated_full_seconds,
            estimated_lazy_seconds: image.estimated_lazy_seconds,
            total_bytes: image.bytes_total,
            present_bytes: image.bytes_present,
            verified: image.verified,
            filling: image.filling,
            fill_error: image.fill_error,
            mountpoint: image.mountpoint,
            requests: image.requests,
            fetched_bytes: image.bytes_fetched,
            faults: image.faults,
            fault_wait_ms: image.fault_wait_us as f64 / 1e3,
            failures: image.failures,
            trace_events: image.trace_events,
            layers: image
                .layers
                .into_iter()
                .map(|layer| LayerRow {
                    digest: layer.digest,
                    bytes: layer.bytes,
                    format: layer.format,
                    present: layer.present,
                    verified: layer.verified,
                })
                .collect(),
            recent_faults: image
                .recent
                .into_iter()
                .map(|fault| FaultRow {
                    path: fault.path,
                    offset: fault.offset,
                    length: fault.length,
                    at_unix_ms: fault.at_unix_ms,
                    wait_ms: fault.wait_us as f64 / 1e3,
                    source: fault.source,
                    error: fault.error,
                })
                .collect(),
        }
    }
}

/// How much of `total` is here, in per cent; all of nothing.
pub(super) fn percent(present: u64, total: u64) -> f64 {
    if total == 0 { 100.0 } else { (present as f64 / total as f64 * 1000.0).floor() / 10.0 }
}

impl Row for LazyRow {
    const HEADINGS: &'static [&'static str] =
        &["REF", "MODE", "PRESENT", "SIZE", "VERIFIED", "FAULTS", "WAITED"];
    const FIELDS: &'static [&'static str] = fields::LAZY;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            self.mode.clone(),
            format!("{}%", self.percent),
            amount::size(self.total_bytes),
            if self.verified { "yes" } else { "no" }.to_owned(),
            self.faults.to_string(),
            amount::duration(Duration::from_secs_f64(self.fault_wait_ms / 1e3)),
        ]
    }
}

impl LazyRow {
    /// All of it, for one image.
    fn text(&self) -> String {
        let mut lines = vec![format!("{} ({})", printable(&self.name), crate::progress::short(&self.digest))];
        let asked =
            if self.asked.is_empty() { String::new() } else { format!(", asked for: {}", self.asked) };
        lines.push(format!("mode:      {}{asked}", self.mode));
        lines.extend(self.reasons.iter().map(|reason| format!("why:       {}", printable(reason))));
        if self.estimated_full_seconds > 0.0 {
            lines.push(format!(
                "estimated: {:.1} s whole, {:.1} s lazily",
                self.estimated_full_seconds, self.estimated_lazy_seconds
            ));
        }
        let state = match (self.verified, self.filling, self.fill_error.as_str()) {
            (true, ..) => "verified".to_owned(),
            (_, true, _) => "being completed".to_owned(),
            (_, _, "") => "not verified as a whole yet".to_owned(),
            (.., error) => format!("stopped: {}", printable(error)),
        };
        lines.push(format!(
            "present:   {}% of {}, {} missing; {state}",
            self.percent,
            amount::size(self.total_bytes),
            amount::size(self.missing_bytes)
        ));
        for layer in &self.layers {
            let format = if layer.format.is_empty() { "unpacked" } else { &layer.format };
            let state = match (layer.present, layer.verified) {
                (true, true) => "here, verified",
                (true, false) => "here",
                (false, _) => "not here as a whole",
            };
            let (digest, size) = (crate::progress::short(&layer.digest), amount::size(layer.bytes));
            lines.push(format!("layer:     {digest}  {size}  {format}  {state}"));
        }
        if !self.mountpoint.is_empty() {
            lines.push(format!("mounted:   {}", printable(&self.mountpoint)));
            lines.push(format!(
                "fetched:   {} in {} requests; {} reads waited {:.0} ms in all, {} failed",
                amount::size(self.fetched_bytes),
                self.requests,
                self.faults,
                self.fault_wait_ms,
                self.failures
            ));
        }
        if self.trace_events > 0 {
            lines.push(format!("trace:     {} reads", self.trace_events));
        }
        for fault in self.recent_faults.iter().rev().take(10) {
            let end = match fault.error.as_str() {
                "" => format!("from {}", printable(&fault.source)),
                error => format!("failed: {}", printable(error)),
            };
            lines.push(format!(
                "fault:     {} +{}  {:.1} ms  {end}",
                printable(&fault.path),
                fault.offset,
                fault.wait_ms
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// `lazy ...`.
///
/// # Errors
/// [`CliError`]; the engine's answers.
pub(crate) async fn run(global: &Global, verb: &LazyVerb) -> Result<(), CliError> {
    match verb {
        LazyVerb::Status(args) => status(global, args.image.as_deref()).await,
        LazyVerb::Fill(args) => fill(global, &args.image, args.quiet).await,
        LazyVerb::Metrics => {
            let client = Client::connect(global).await?;
            let answer = client.lazy().metrics(LazyMetricsRequest {}).await;
            output::print(&answer.map_err(failed("read the counters"))?.into_inner().text)
        }
        LazyVerb::Trace { verb } => trace(global, verb).await,
    }
}

async fn status(global: &Global, image: Option<&str>) -> Result<(), CliError> {
    check_format::<LazyRow>(&global.format)?;
    let client = Client::connect(global).await?;
    let request = LazyStatusRequest { image: image.unwrap_or_default().to_owned(), faults: true };
    let answer = client.lazy().status(request).await.map_err(failed("ask how images are here"))?;
    let rows: Vec<LazyRow> = answer.into_inner().images.into_iter().map(LazyRow::from).collect();
    match (&global.format, image, rows.as_slice()) {
        (Format::Table, Some(_), [row]) => output::print(&row.text()),
        (format, ..) => output::print(&list(&rows, &ListArgs { quiet: false }, format, SystemTime::now())?),
    }
}

async fn fill(global: &Global, image: &str, quiet: bool) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let what = format!("complete {image}");
    let request = LazyFillRequest { image: image.to_owned() };
    let mut events = client.lazy().fill(request).await.map_err(failed(&*what))?.into_inner();
    let mut told = -1.0;
    while let Some(event) = events.message().await.map_err(failed(&*what))? {
        let now = percent(event.bytes_present, event.bytes_total);
        if event.verified {
            if !quiet {
                output::note(&format!(
                    "{image}: all of {} is here and verified",
                    amount::size(event.bytes_total)
                ));
            }
            return Ok(());
        }
        // A line for every tenth: this may run in a log.
        if !quiet && now >= told + 10.0 {
            told = now;
            output::note(&format!("{image}: {now}% of {}", amount::size(event.bytes_total)));
        }
    }
    Err(failed(what)(tonic::Status::internal("the stream of events ended without a result")))
}

async fn trace(global: &Global, verb: &TraceVerb) -> Result<(), CliError> {
    match verb {
        TraceVerb::Export { image } => {
            let client = Client::connect(global).await?;
            let answer = client.lazy().export_trace(LazyTraceRequest { image: image.clone() }).await;
            output::print(&answer.map_err(failed(format!("export the trace of {image}")))?.into_inner().json)
        }
        TraceVerb::Import { image, file } => {
            let json = read(file)?;
            let client = Client::connect(global).await?;
            let request = LazyImportTraceRequest { image: image.clone(), json };
            let answer = client.lazy().import_trace(request).await;
            let answer = answer.map_err(failed(format!("import a trace for {image}")))?.into_inner();
            output::print(&format!("{} reads\n", answer.events))
        }
        TraceVerb::Push { image, login } => {
            let registry = crate::pull::options(login)?;
            let client = Client::connect(global).await?;
            let request = LazyPushTraceRequest { image: image.clone(), registry: Some(registry) };
            let answer = client.lazy().push_trace(request).await;
            let answer = answer.map_err(failed(format!("push the trace of {image}")))?.into_inner();
            output::print(&format!("{}\n", printable(&answer.digest)))
        }
    }
}

/// The text of a file, or of standard input.
fn read(file: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::File { what: "read the trace", path: file.to_owned(), source };
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    source.take(TRACE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::tests::fields_are_as_documented;

    fn row() -> LazyRow {
        LazyRow::from(LazyImage {
            name: "r.example/a:1".to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            mode: "lazy".to_owned(),
            asked: "auto".to_owned(),
            reasons: vec!["400.0 MB are missing".to_owned()],
            bytes_total: 1000,
            bytes_present: 999,
            ..Default::default()
        })
    }

    #[test]
    fn its_fields_are_those_the_help_lists() {
        fields_are_as_documented(&row());
    }

    #[test]
    fn what_is_not_all_here_is_never_rounded_to_all() {
        assert_eq!(percent(999_999, 1_000_000), 99.9);
        assert_eq!(percent(0, 0), 100.0);
        let text = row().text();
        assert!(text.contains("99.9%") && text.contains("why:       400.0 MB are missing"), "{text}");
    }
}
