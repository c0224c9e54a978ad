//! Checks and repairs on the wire.

use runtime_api::windlass::v1 as wire;
use runtime_engine::{CheckNews, CheckReport, CheckRequest, Found, Outcome};
use tonic::Status;

use super::pull::registry_in;

pub(super) fn check_in(request: wire::CheckRequest) -> Result<CheckRequest, Status> {
    let subset = (request.subset_index, request.subset_count);
    Ok(CheckRequest {
        read_data: request.read_data,
        subset: Some(subset).filter(|subset| *subset != (0, 0)),
        repair: request.repair,
        registry: registry_in(request.registry)?,
    })
}

fn finding_out(found: Found) -> wire::Finding {
    let outcome = match found.outcome {
        Outcome::Damaged => "damaged",
        Outcome::Repaired => "repaired",
        Outcome::Quarantined => "quarantined",
    };
    wire::Finding {
        kind: found.kind,
        name: found.name,
        snapshotter: found.snapshotter,
        namespaces: found.namespaces.iter().map(ToString::to_string).collect(),
        problem: found.problem,
        outcome: outcome.to_owned(),
        images: found.images,
    }
}

pub(super) fn event_out(news: CheckNews) -> wire::CheckEvent {
    use wire::check_event::Event;
    let event = match news {
        CheckNews::Progress { phase, objects, done_bytes, total_bytes } => {
            Event::Progress(wire::CheckProgress { phase, done_bytes, total_bytes, objects })
        }
        CheckNews::Found(found) => Event::Finding(finding_out(found)),
    };
    wire::CheckEvent { event: Some(event) }
}

pub(super) fn done_out(report: CheckReport) -> wire::CheckEvent {
    let done = wire::CheckDone {
        objects: report.objects,
        bytes_read: report.bytes_read,
        damaged: report.damaged,
        repaired: report.repaired,
        seconds: report.took.as_secs_f64(),
    };
    wire::CheckEvent { event: Some(wire::check_event::Event::Done(done)) }
}
