//! What the engine tells of its work, in the one form that bars and lines are drawn from.

use runtime_api::windlass::v1::{
    CheckEvent, CheckProgress, LayerProgress, LayerState, PullEvent, Resolved, TransferEvent,
    TransferProgress, check_event, pull_event, transfer_event,
};

use super::{events, short};
use crate::output::{amount, printable};

/// How one thing is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its turn has not come.
    Waiting,
    /// Bytes travel: there is a rate.
    Moving,
    /// Bytes become something: others, or more of them.
    Working,
    /// Over.
    Done,
    /// Nothing had to be done.
    Spared,
}

impl Phase {
    /// Whether nothing more will be told of it.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Spared)
    }
}

/// One thing on its way: a layer, a document, an image, a part of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// What tells it from others.
    pub(crate) key: String,
    /// The same for people.
    pub(crate) name: String,
    /// What happens to it, in a word or two.
    pub(crate) word: String,
    /// How it is doing.
    pub(crate) phase: Phase,
    /// Bytes that have travelled or been worked on.
    pub(crate) done_bytes: u64,
    /// Of so many; 0 when nobody knows.
    pub(crate) total_bytes: u64,
    /// Bytes that came of it, when they are others.
    pub(crate) made_bytes: Option<u64>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// What there is to do is known.
    Begin {
        /// A line that says so.
        title: String,
        /// All of it, waiting.
        items: Vec<Item>,
    },
    /// One thing has changed.
    Item(Item),
    /// A line for people.
    Message(String),
    /// It is over.
    Done,
}

impl Step {
    /// A pull's event; `None` for one that this version does not know.
    pub(crate) fn of_pull(event: &PullEvent) -> Option<Self> {
        Some(match event.event.as_ref()? {
            pull_event::Event::Resolved(resolved) => begin(resolved),
            pull_event::Event::Layer(layer) => Self::Item(of_layer(layer)),
            pull_event::Event::Message(message) => Self::Message(printable(&message.text)),
            pull_event::Event::Done(_) => Self::Done,
        })
    }

    /// An event of a push, import, export or convert.
    pub(crate) fn of_transfer(event: &TransferEvent) -> Option<Self> {
        Some(match event.event.as_ref()? {
            transfer_event::Event::Progress(progress) => Self::Item(of_progress(progress)),
            transfer_event::Event::Message(message) => Self::Message(printable(&message.text)),
            transfer_event::Event::Done(_) => Self::Done,
        })
    }

    /// A check's event; findings are shown by others.
    pub(crate) fn of_check(event: &CheckEvent) -> Option<Self> {
        Some(match event.event.as_ref()? {
            check_event::Event::Progress(progress) => Self::Item(of_phase(progress)),
            check_event::Event::Done(_) => Self::Done,
            check_event::Event::Finding(_) => return None,
        })
    }
}

fn begin(resolved: &Resolved) -> Step {
    let total: u64 = resolved.layers.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add);
    let title = format!(
        "{} is {} for {}: {} layer{}, {}",
        printable(&resolved.reference),
        short(&resolved.digest),
        printable(&resolved.platform),
        resolved.layers.len(),
        if resolved.layers.len() == 1 { "" } else { "s" },
        amount::size(total)
    );
    let waiting = |layer: &runtime_api::windlass::v1::Layer| LayerProgress {
        digest: layer.digest.clone(),
        state: LayerState::Waiting.into(),
        total_bytes: layer.size_bytes,
        ..LayerProgress::default()
    };
    Step::Begin { title, items: resolved.layers.iter().map(|layer| of_layer(&waiting(layer))).collect() }
}

fn of_layer(layer: &LayerProgress) -> Item {
    let (phase, made_bytes) = match layer.state() {
        LayerState::Unspecified | LayerState::Waiting => (Phase::Waiting, None),
        LayerState::Downloading => (Phase::Moving, None),
        LayerState::Unpacking => (Phase::Working, Some(layer.unpacked_bytes)),
        LayerState::Done => (Phase::Done, None),
        LayerState::Exists => (Phase::Spared, None),
    };
    let word = match layer.state() {
        LayerState::Exists => "here already",
        other => events::state(other),
    };
    Item {
        key: layer.digest.clone(),
        name: short(&layer.digest),
        word: word.to_owned(),
        phase,
        done_bytes: layer.received_bytes,
        total_bytes: layer.total_bytes,
        made_bytes,
    }
}

fn of_progress(progress: &TransferProgress) -> Item {
    let phase = match progress.state.as_str() {
        "waiting" => Phase::Waiting,
        "uploading" | "reading" | "writing" | "downloading" => Phase::Moving,
        "done" => Phase::Done,
        "mounted" | "exists" => Phase::Spared,
        _ => Phase::Working,
    };
    let word = match progress.state.as_str() {
        "exists" => "there already",
        other => other,
    };
    let name = if progress.name.contains(':') && !progress.name.contains('/') {
        short(&progress.name)
    } else {
        printable(&progress.name)
    };
    Item {
        key: format!("{} {}", progress.kind, progress.name),
        name,
        word: printable(word),
        phase,
        done_bytes: progress.done_bytes,
        total_bytes: progress.total_bytes,
        made_bytes: None,
    }
}

fn of_phase(progress: &CheckProgress) -> Item {
    Item {
        key: progress.phase.clone(),
        name: printable(&progress.phase),
        word: format!("{} checked", progress.objects),
        phase: Phase::Moving,
        done_bytes: progress.done_bytes,
        total_bytes: progress.total_bytes,
        made_bytes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_transfer_has_its_phase() {
        for (state, phase) in [
            ("waiting", Phase::Waiting),
            ("uploading", Phase::Moving),
            ("mounted", Phase::Spared),
            ("exists", Phase::Spared),
            ("converting", Phase::Working),
            ("done", Phase::Done),
        ] {
            let progress = TransferProgress { state: state.to_owned(), ..TransferProgress::default() };
            assert_eq!(of_progress(&progress).phase, phase, "{state}");
        }
    }

    #[test]
    fn a_digest_is_shortened_and_an_images_name_is_not() {
        let named =
            |name: &str| of_progress(&TransferProgress { name: name.to_owned(), ..Default::default() }).name;
        assert_eq!(named(&format!("sha256:{}", "ab".repeat(32))), "abababababab");
        assert_eq!(named("docker.io/library/a:1"), "docker.io/library/a:1");
    }
}
