//! Work as plain lines: what it is, each thing's begin and end, and a sign of life now and then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::step::{Item, Phase, Step};
use crate::output::amount;

/// Between two signs of life: often enough for a watched log, rare enough for a kept one.
const LIFE: Duration = Duration::from_secs(5);

/// What has been shown, to show only what changes.
pub(crate) struct Lines {
    items: BTreeMap<String, Item>,
    last: Option<Instant>,
}

impl Lines {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        Self { items: BTreeMap::new(), last: None }
    }

    /// The lines that `step`, arriving at `now`, is worth.
    pub(super) fn step(&mut self, step: Step, now: Instant) -> Vec<String> {
        match step {
            Step::Begin { title, items } => {
                self.last = Some(now);
                self.items.extend(items.into_iter().map(|item| (item.key.clone(), item)));
                vec![title]
            }
            Step::Item(item) => self.item(item, now),
            Step::Message(text) => vec![text],
            Step::Done => self.done(),
        }
    }

    fn item(&mut self, item: Item, now: Instant) -> Vec<String> {
        let (phase, word) = (item.phase, item.word.clone());
        let line = match item.total_bytes {
            0 => format!("{}: {word}", item.name),
            total => format!("{}: {word} ({})", item.name, amount::size(total)),
        };
        let before = self.items.insert(item.key.clone(), item).map(|item| item.phase);
        let mut lines = Vec::new();
        if matches!(phase, Phase::Waiting | Phase::Spared) {
            // Nothing moves: what is there already is counted at the end.
        } else if before != Some(phase) {
            lines.push(line);
            self.last = Some(now);
        } else if self.last.is_none_or(|last| now.duration_since(last) >= LIFE) {
            let sum = |bytes: fn(&Item) -> u64| self.items.values().map(bytes).fold(0, u64::saturating_add);
            let (done, total) = (sum(|item| item.done_bytes), sum(|item| item.total_bytes));
            lines.push(format!("{} of {}", amount::size(done), amount::size(total)));
            self.last = Some(now);
        }
        lines
    }

    /// How much was not to be done, by word: `2 here already`, `1 mounted`.
    fn done(&self) -> Vec<String> {
        let mut spared: BTreeMap<&str, usize> = BTreeMap::new();
        for item in self.items.values().filter(|item| item.phase == Phase::Spared) {
            *spared.entry(&item.word).or_default() += 1;
        }
        spared.into_iter().map(|(word, count)| format!("{count} {word}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::windlass::v1::pull_event::Event;
    use runtime_api::windlass::v1::{Done, Layer, LayerProgress, LayerState, PullEvent, Resolved};

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
        let mut shown = Vec::new();
        let mut tell = |event: &PullEvent, seconds: u64| {
            let step = Step::of_pull(event).unwrap();
            shown.extend(lines.step(step, start + Duration::from_secs(seconds)));
        };
        let resolved = Resolved {
            reference: "r/a:1".to_owned(),
            digest: format!("sha256:{}", "cd".repeat(32)),
            platform: "linux/amd64".to_owned(),
            layers: vec![Layer { digest: format!("sha256:{}", "ab".repeat(32)), size_bytes: 2048 }],
        };
        tell(&PullEvent { event: Some(Event::Resolved(resolved)) }, 0);
        for (seconds, state, received) in [
            (0, LayerState::Waiting, 0),
            (1, LayerState::Downloading, 0),
            (2, LayerState::Downloading, 100),
            (6, LayerState::Downloading, 1024),
            (7, LayerState::Unpacking, 2048),
            (8, LayerState::Done, 2048),
            (9, LayerState::Exists, 0),
        ] {
            tell(&layer(state, received), seconds);
        }
        tell(&PullEvent { event: Some(Event::Done(Done::default())) }, 10);
        assert_eq!(
            shown,
            [
                "r/a:1 is cdcdcdcdcdcd for linux/amd64: 1 layer, 2.0 KiB",
                "abababababab: downloading (2.0 KiB)",
                "1.0 KiB of 2.0 KiB",
                "abababababab: unpacking (2.0 KiB)",
                "abababababab: done (2.0 KiB)",
                "1 here already",
            ]
        );
    }
}
