//! Collections, their reasons, and the disk, on the wire.

use runtime_api::windlass::v1 as wire;
use runtime_engine::{Budget, CollectRequest, Engine, EngineError, Kept, WhyRequest};
use storage_content::{Doomed, KindUsage, Plan, Thing};

/// Most things that one answer lists: with long keys these are some ten megabytes, below the limit of a message. The
/// numbers of an answer count all.
const LISTED_MAX: usize = 20_000;

pub(super) fn collect_in(request: &wire::CollectRequest) -> CollectRequest {
    let budget =
        Budget { keep_bytes: request.keep_bytes, above_bytes: request.above_bytes.max(request.keep_bytes) };
    CollectRequest { dry_run: request.dry_run, budget: request.with_budget.then_some(budget) }
}

fn doomed_out(doomed: Doomed) -> wire::Doomed {
    wire::Doomed {
        namespace: doomed.namespace.to_string(),
        kind: doomed.thing.subject().to_string(),
        name: doomed.thing.name(),
        snapshotter: doomed.thing.snapshotter().unwrap_or_default().to_owned(),
        bytes: doomed.bytes,
        reason: doomed.reason.to_string(),
    }
}

pub(super) fn plan_out(plan: Plan) -> wire::CollectResponse {
    let totals = plan.totals;
    wire::CollectResponse {
        blobs: totals.blobs,
        snapshots: totals.snapshots,
        ingests: totals.ingests,
        images: totals.images,
        leases: totals.leases,
        freed_bytes: totals.freed_bytes + totals.snapshot_bytes,
        doomed: plan.doomed.into_iter().take(LISTED_MAX).map(doomed_out).collect(),
    }
}

pub(super) fn why_in(request: wire::WhyRequest) -> WhyRequest {
    WhyRequest { name: request.name, kind: request.kind, snapshotter: request.snapshotter }
}

pub(super) fn kept_out(kept: Kept) -> wire::Kept {
    wire::Kept {
        kind: kept.thing.subject().to_string(),
        name: kept.thing.name(),
        snapshotter: kept.thing.snapshotter().unwrap_or_default().to_owned(),
        chains: kept.chains.iter().map(|chain| wire::KeeperChain { links: chain.words() }).collect(),
    }
}

/// What each kind takes, and what of it the next collection would free.
pub(super) fn usage(engine: &Engine) -> Result<wire::DiskUsageResponse, EngineError> {
    let usage = engine.store().disk_usage()?;
    let plan = engine.store().plan()?;
    let freed = |wanted: fn(&Thing) -> bool| -> u64 {
        plan.doomed.iter().filter(|doomed| wanted(&doomed.thing)).map(|doomed| doomed.bytes).sum()
    };
    let kind = |kind: &str, usage: KindUsage, reclaimable_bytes: u64| wire::KindUsage {
        kind: kind.to_owned(),
        count: usage.count,
        bytes: usage.bytes,
        reclaimable_bytes,
    };
    Ok(wire::DiskUsageResponse {
        kinds: vec![
            kind("blobs", usage.blobs, freed(|thing| matches!(thing, Thing::Blob(_)))),
            kind("snapshots", usage.snapshots, freed(|thing| matches!(thing, Thing::Snapshot { .. }))),
            kind("ingests", usage.ingests, freed(|thing| matches!(thing, Thing::Ingest(_)))),
            kind("metadata", usage.metadata, 0),
            kind("trash", usage.trash, usage.trash.bytes),
            kind("quarantine", usage.quarantine, 0),
        ],
    })
}
