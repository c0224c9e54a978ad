//! A pull as plain lines: what it is, each layer's begin and end, and a sign of life now and then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{LayerProgress, LayerState, PullEvent, Resolved};

use super::{events, short};
use crate::output::{amount, printable};

/// Between two signs of life: often enough for a watched log, rare enough for a kept one.
const LIFE: Duration = Duration::from_secs(5);

/// What has been shown, to show only what changes.
pub(crate) struct Lines {
    layers: BTreeMap<String, (LayerState, u64)>,
    total_bytes: u64,
    last: Option<Instant>,
}

impl Lines {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        Self { layers: BTreeMap::new(), total_bytes: 0, last: None }
    }

    /// The lines that `event`, arriving at `now`, is worth.
    pub(super) fn event(&mut self, event: &PullEvent, now: Instant) -> Vec<String> {
        match &event.event {
            Some(Event::Resolved(resolved)) => {
                self.last = Some(now);
                self.total_bytes = resolved.layers.iter().map(|layer| layer.size_bytes).sum();
                vec![resolved_line(resolved, self.total_bytes)]
            }
            Some(Event::Layer(layer)) => self.layer(layer, now),
            Some(Event::Message(message)) => vec![printable(&message.text)],
            Some(Event::Done(_)) => self.done(),
            None => Vec::new(),
        }
    }

    fn layer(&mut self, layer: &LayerProgress, now: Instant) -> Vec<String> {
        let state = layer.state();
        let before = self.layers.insert(layer.digest.clone(), (state, layer.received_bytes));
        let mut lines = Vec::new();
        if matches!(state, LayerState::Waiting | LayerState::Exists) {
            // Nothing moves: those that are here already are counted at the end.
        } else if before.map(|(state, _)| state) != Some(state) {
            let size = amount::size(layer.total_bytes);
            lines.push(format!("{}: {} ({size})", short(&layer.digest), events::state(state)));
            self.last = Some(now);
        } else if self.last.is_none_or(|last| now.duration_since(last) >= LIFE) {
            let received: u64 = self.layers.values().map(|(_, received)| received).sum();
            lines.push(format!("{} of {} received", amount::size(received), amount::size(self.total_bytes)));
            self.last = Some(now);
        }
        lines
    }

    fn done(&self) -> Vec<String> {
        match self.layers.values().filter(|(state, _)| *state == LayerState::Exists).count() {
            0 => Vec::new(),
            here => vec![format!("{} here already", counted(here))],
        }
    }
}

fn counted(count: usize) -> String {
    format!("{count} layer{}", if count == 1 { "" } else { "s" })
}

fn resolved_line(resolved: &Resolved, total_bytes: u64) -> String {
    format!(
        "{} is {} for {}: {}, {}",
        printable(&resolved.reference),
        short(&resolved.digest),
        printable(&resolved.platform),
        counted(resolved.layers.len()),
        amount::size(total_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::windlass::v1::{Done, Layer};

    fn layer(state: LayerState, received_bytes: u64) -> PullEvent {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let progress = LayerProgress {
            digest,
            state: state.into(),
            received_bytes,
            total_bytes: 2048,
            unpacked_bytes: 0,
        };
        PullEvent { event: Some(Event::Layer(progress)) }
    }

    #[test]
    fn a_layer_is_a_line_for_each_change_and_a_sign_of_life() {
        let mut lines = Lines::new();
        let start = Instant::now();
        let resolved = Resolved {
            reference: "r/a:1".to_owned(),
            digest: format!("sha256:{}", "cd".repeat(32)),
            platform: "linux/amd64".to_owned(),
            layers: vec![Layer { digest: String::new(), size_bytes: 2048 }],
        };
        let mut shown = lines.event(&PullEvent { event: Some(Event::Resolved(resolved)) }, start);
        for (seconds, state, received) in [
            (0, LayerState::Waiting, 0),
            (1, LayerState::Downloading, 0),
            (2, LayerState::Downloading, 100),
            (6, LayerState::Downloading, 1024),
            (7, LayerState::Unpacking, 2048),
            (8, LayerState::Done, 2048),
            (9, LayerState::Exists, 0),
        ] {
            shown.extend(lines.event(&layer(state, received), start + Duration::from_secs(seconds)));
        }
        let done = PullEvent { event: Some(Event::Done(Done::default())) };
        shown.extend(lines.event(&done, start + Duration::from_secs(10)));
        assert_eq!(
            shown,
            [
                "r/a:1 is cdcdcdcdcdcd for linux/amd64: 1 layer, 2.0 KiB",
                "abababababab: downloading (2.0 KiB)",
                "1.0 KiB of 2.0 KiB received",
                "abababababab: unpacking (2.0 KiB)",
                "abababababab: done (2.0 KiB)",
                "1 layer here already",
            ]
        );
    }
}
