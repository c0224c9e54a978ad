//! A pull on a terminal: one line a layer, redrawn in place.
//!
//! An image with more layers than the terminal has lines shows those that move, and drops those that are done; a total
//! line below is always there. Drawing is limited by `indicatif` to 20 times a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{LayerProgress, LayerState, PullEvent, Resolved};

use super::line::{self, Pace};
use crate::output::{amount, colours, printable};

/// Lines the total, the shell's prompt and a message need besides the layers'.
const OTHER_LINES: usize = 4;

/// Size of a terminal that does not tell it.
const SIZE_DEFAULT: storage_sys::terminal::Size = storage_sys::terminal::Size { rows: 24, columns: 80 };

/// The bars.
pub(crate) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    layers: HashMap<String, Layer>,
    order: Vec<String>,
    crowded: bool,
    colours: bool,
}

struct Layer {
    line: Option<ProgressBar>,
    received_bytes: u64,
    size_bytes: u64,
    over: bool,
    /// When the first bytes of this pull were seen, and how many an earlier one had left.
    first: Option<(Instant, u64)>,
}

impl Layer {
    fn new(size_bytes: u64) -> Self {
        Self { line: None, received_bytes: 0, size_bytes, over: false, first: None }
    }

    fn pace(&mut self, progress: &LayerProgress) -> Pace {
        if progress.state() != LayerState::Downloading {
            return Pace::default();
        }
        let (since, before) = *self.first.get_or_insert((Instant::now(), progress.received_bytes));
        Pace { bytes: progress.received_bytes.saturating_sub(before), elapsed: since.elapsed() }
    }
}

impl Bars {
    /// A line that says that something happens; the layers come with the events.
    pub(crate) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")));
        total.set_message("resolving");
        total.enable_steady_tick(Duration::from_millis(100));
        Self { all, total, layers: HashMap::new(), order: Vec::new(), crowded: false, colours: colours() }
    }

    /// Shows an event.
    pub(super) fn event(&mut self, event: &PullEvent) {
        match &event.event {
            Some(Event::Resolved(resolved)) => self.resolved(resolved),
            Some(Event::Layer(layer)) => self.layer(layer),
            Some(Event::Message(message)) => {
                // A terminal that cannot be written to shows no bars either.
                let _ = self.all.println(printable(&message.text));
            }
            Some(Event::Done(_)) | None => {}
        }
    }

    fn resolved(&mut self, resolved: &Resolved) {
        self.crowded = resolved.layers.len() + OTHER_LINES > usize::from(terminal().rows);
        for layer in &resolved.layers {
            // A layer that is in the image twice is one layer here.
            if self.layers.contains_key(&layer.digest) {
                continue;
            }
            self.order.push(layer.digest.clone());
            self.layers.insert(layer.digest.clone(), Layer::new(layer.size_bytes));
            let waiting = LayerProgress {
                digest: layer.digest.clone(),
                state: LayerState::Waiting.into(),
                total_bytes: layer.size_bytes,
                ..LayerProgress::default()
            };
            self.layer(&waiting);
        }
    }

    fn layer(&mut self, progress: &LayerProgress) {
        let over = matches!(progress.state(), LayerState::Done | LayerState::Exists);
        let layer =
            self.layers.entry(progress.digest.clone()).or_insert_with(|| Layer::new(progress.total_bytes));
        layer.over = over;
        layer.received_bytes = if over { layer.size_bytes } else { progress.received_bytes };
        if self.crowded && (over || progress.state() == LayerState::Waiting) {
            if let Some(line) = layer.line.take() {
                line.finish_and_clear();
                self.all.remove(&line);
            }
        } else {
            let pace = layer.pace(progress);
            let text = line::layer(progress, pace, usize::from(terminal().columns), self.colours);
            let line = layer.line.get_or_insert_with(|| {
                self.all.insert_before(&self.total, ProgressBar::no_length().with_style(style("{wide_msg}")))
            });
            line.set_message(text);
        }
        self.show_total();
    }

    fn show_total(&self) {
        let received: u64 = self.layers.values().map(|layer| layer.received_bytes).sum();
        let size: u64 = self.layers.values().map(|layer| layer.size_bytes).sum();
        let over = self.layers.values().filter(|layer| layer.over).count();
        let (received, size) = (amount::size(received), amount::size(size));
        self.total.set_message(format!("{received} of {size}, {over} of {} layers", self.layers.len()));
    }

    /// Takes the total line away and leaves the layers as they are.
    pub(super) fn finish(&mut self) {
        for line in self.order.iter().filter_map(|digest| self.layers.get(digest)?.line.as_ref()) {
            line.abandon();
        }
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates in this file are well formed")
}

fn terminal() -> storage_sys::terminal::Size {
    let size = storage_sys::terminal::size(std::io::stderr());
    size.ok().filter(|size| size.rows > 0 && size.columns > 0).unwrap_or(SIZE_DEFAULT)
}
