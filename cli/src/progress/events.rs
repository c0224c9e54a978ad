//! Pull events as JSON objects: one a line, each with a field `event` that says what it is.

use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{LayerState, PullEvent};
use serde_json::{Value, json};

/// The event as JSON; `None` for one that this version does not know.
pub(super) fn json(event: &PullEvent) -> Option<Value> {
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
        Event::Done(done) => json!({
            "event": "done",
            "name": done.name,
            "digest": done.digest,
            "chain_id": done.chain_id,
            "fetched_bytes": done.fetched_bytes,
            "seconds": done.seconds,
            "parts_seconds": done.parts_seconds,
        }),
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
        let text = json(&PullEvent { event: Some(Event::Layer(layer)) }).unwrap().to_string();
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["event"], &value["state"]), (&json!("layer"), &json!("downloading")));
        assert_eq!(value["received_bytes"], 1);
        assert!(json(&PullEvent { event: None }).is_none());
    }
}
