//! Events as JSON objects: one a line, each with a field `event` that says what it is.

use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{
    CheckEvent, Done, Finding, LayerState, PullEvent, TransferDone, TransferEvent, check_event,
    transfer_event,
};
use serde_json::{Value, json};

/// An event of a push, import, export or convert as JSON; `None` for one that this version does not know.
pub(super) fn of_transfer(event: &TransferEvent) -> Option<Value> {
    Some(match event.event.as_ref()? {
        transfer_event::Event::Progress(progress) => json!({
            "event": "progress",
            "name": progress.name,
            "kind": progress.kind,
            "state": progress.state,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
        }),
        transfer_event::Event::Message(message) => json!({ "event": "message", "text": message.text }),
        transfer_event::Event::Done(done) => transfer_done(done),
    })
}

/// What came of a push, import, export or convert.
pub(crate) fn transfer_done(done: &TransferDone) -> Value {
    let images: Vec<Value> = done
        .images
        .iter()
        .map(|image| json!({ "name": image.name, "digest": image.digest, "chain_id": image.chain_id }))
        .collect();
    json!({ "event": "done", "images": images, "bytes": done.bytes, "seconds": done.seconds })
}

/// An event of a check as JSON.
pub(super) fn of_check(event: &CheckEvent) -> Option<Value> {
    Some(match event.event.as_ref()? {
        check_event::Event::Progress(progress) => json!({
            "event": "progress",
            "phase": progress.phase,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "objects": progress.objects,
        }),
        check_event::Event::Finding(found) => finding(found),
        check_event::Event::Done(done) => json!({
            "event": "done",
            "objects": done.objects,
            "bytes_read": done.bytes_read,
            "damaged": done.damaged,
            "repaired": done.repaired,
            "seconds": done.seconds,
        }),
    })
}

/// Something that is not as it should be.
pub(crate) fn finding(found: &Finding) -> Value {
    json!({
        "event": "finding",
        "kind": found.kind,
        "name": found.name,
        "snapshotter": found.snapshotter,
        "namespaces": found.namespaces,
        "problem": found.problem,
        "outcome": found.outcome,
        "images": found.images,
    })
}

/// An event of a pull as JSON.
pub(super) fn of_pull(event: &PullEvent) -> Option<Value> {
    Some(match event.event.as_ref()? {
        Event::Resolved(resolved) => {
            let layers: Vec<Value> = resolved
                .layers
                .iter()
                .map(|layer| json!({ "digest": layer.digest, "size_bytes": layer.size_bytes }))
                .collect();
            json!({
                "event": "resolved",
                "reference": resolved.reference,
                "digest": resolved.digest,
                "platform": resolved.platform,
                "layers": layers,
            })
        }
        Event::Layer(layer) => json!({
            "event": "layer",
            "digest": layer.digest,
            "state": state(layer.state()),
            "received_bytes": layer.received_bytes,
            "total_bytes": layer.total_bytes,
            "unpacked_bytes": layer.unpacked_bytes,
        }),
        Event::Message(message) => json!({ "event": "message", "text": message.text }),
        Event::Done(done) => pull_done(done),
    })
}

/// What came of a pull.
pub(crate) fn pull_done(done: &Done) -> Value {
    json!({
        "event": "done",
        "name": done.name,
        "digest": done.digest,
        "chain_id": done.chain_id,
        "fetched_bytes": done.fetched_bytes,
        "seconds": done.seconds,
        "parts_seconds": done.parts_seconds,
    })
}

/// A layer's state in a word.
pub(super) fn state(state: LayerState) -> &'static str {
    match state {
        LayerState::Unspecified => "unknown",
        LayerState::Waiting => "waiting",
        LayerState::Downloading => "downloading",
        LayerState::Unpacking => "unpacking",
        LayerState::Done => "done",
        LayerState::Exists => "exists",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::windlass::v1::LayerProgress;

    #[test]
    fn an_event_is_one_line_that_says_what_it_is() {
        let layer = LayerProgress {
            digest: "sha256:ab".to_owned(),
            state: LayerState::Downloading.into(),
            received_bytes: 1,
            total_bytes: 2,
            unpacked_bytes: 3,
        };
        let text = of_pull(&PullEvent { event: Some(Event::Layer(layer)) }).unwrap().to_string();
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["event"], &value["state"]), (&json!("layer"), &json!("downloading")));
        assert_eq!(value["received_bytes"], 1);
        assert!(of_pull(&PullEvent { event: None }).is_none());
    }
}
