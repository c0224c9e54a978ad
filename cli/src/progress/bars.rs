//! A pull on a terminal: one line a layer, with a bar, bytes, rate and state.
//!
//! An image with more layers than the terminal has lines shows those that move, and drops those that are done; a total
//! line below is always there. Drawing is limited by `indicatif` to 20 times a second.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{LayerProgress, LayerState, PullEvent, Resolved};

use super::{events, short};
use crate::output::{amount, colours, printable};

/// Lines the total, the shell's prompt and a message need besides the layers'.
const OTHER_LINES: usize = 4;

/// Lines of a terminal that does not tell how many it has.
const LINES_DEFAULT: usize = 24;

/// The bars.
pub(crate) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    layers: HashMap<String, Layer>,
    order: Vec<String>,
    crowded: bool,
    styles: Styles,
}

struct Layer {
    bar: Option<ProgressBar>,
    received_bytes: u64,
    size_bytes: u64,
}

struct Styles {
    moving: ProgressStyle,
    resting: ProgressStyle,
    total: ProgressStyle,
}

impl Styles {
    fn new(colours: bool) -> Self {
        let bar = if colours { "{bar:28.cyan/blue}" } else { "{bar:28}" };
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .expect("the templates below are well formed")
                .progress_chars("=> ")
        };
        Self {
            moving: style(&format!(
                "{{prefix}}  [{bar}] {{binary_bytes:>10}} / {{binary_total_bytes:<10}} {{binary_bytes_per_sec:>12}}  {{msg}}"
            )),
            resting: style("{prefix}  {msg}"),
            total: style("{spinner} {msg}"),
        }
    }
}

impl Bars {
    /// A line that says that something happens; the layers come with the events.
    pub(crate) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let styles = Styles::new(colours());
        let total = all.add(ProgressBar::new_spinner().with_style(styles.total.clone()));
        total.set_message("resolving");
        total.enable_steady_tick(Duration::from_millis(100));
        Self { all, total, layers: HashMap::new(), order: Vec::new(), crowded: false, styles }
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
        let lines = console_lines().saturating_sub(OTHER_LINES);
        self.crowded = resolved.layers.len() > lines;
        for layer in &resolved.layers {
            // A layer that is in the image twice is one layer here.
            if self.layers.contains_key(&layer.digest) {
                continue;
            }
            let bar = (!self.crowded).then(|| self.new_bar(&layer.digest, layer.size_bytes, "waiting"));
            self.order.push(layer.digest.clone());
            self.layers
                .insert(layer.digest.clone(), Layer { bar, received_bytes: 0, size_bytes: layer.size_bytes });
        }
        self.show_total();
    }

    fn new_bar(&self, digest: &str, size_bytes: u64, message: &'static str) -> ProgressBar {
        let bar = self.all.insert_before(&self.total, ProgressBar::new(size_bytes));
        bar.set_style(self.styles.resting.clone());
        bar.set_prefix(short(digest));
        bar.set_message(message);
        bar
    }

    fn layer(&mut self, progress: &LayerProgress) {
        let state = progress.state();
        let is_over = matches!(state, LayerState::Done | LayerState::Exists);
        let missing = self.layers.get(&progress.digest).is_none_or(|layer| layer.bar.is_none());
        if missing && !(self.crowded && (is_over || state == LayerState::Waiting)) {
            let bar = self.new_bar(&progress.digest, progress.total_bytes, "waiting");
            let entry = self.layers.entry(progress.digest.clone());
            entry.or_insert(Layer { bar: None, received_bytes: 0, size_bytes: progress.total_bytes }).bar =
                Some(bar);
        }
        if let Some(layer) = self.layers.get_mut(&progress.digest) {
            layer.received_bytes = if is_over { layer.size_bytes } else { progress.received_bytes };
            if let Some(bar) = &layer.bar {
                show(bar, &self.styles, progress);
            }
            if is_over
                && self.crowded
                && let Some(bar) = layer.bar.take()
            {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
        }
        self.show_total();
    }

    fn show_total(&self) {
        let received: u64 = self.layers.values().map(|layer| layer.received_bytes).sum();
        let size: u64 = self.layers.values().map(|layer| layer.size_bytes).sum();
        let over = self.layers.values().filter(|layer| layer.received_bytes >= layer.size_bytes).count();
        self.total.set_message(format!(
            "{} of {}, {over} of {} layers",
            amount::size(received),
            amount::size(size),
            self.layers.len()
        ));
    }

    /// Takes the total line away and leaves the layers as they are.
    pub(super) fn finish(&mut self) {
        self.total.finish_and_clear();
        for bar in self.order.iter().filter_map(|digest| self.layers.get(digest)?.bar.as_ref()) {
            bar.abandon();
        }
    }
}

fn show(bar: &ProgressBar, styles: &Styles, progress: &LayerProgress) {
    let state = progress.state();
    bar.set_length(progress.total_bytes);
    match state {
        LayerState::Downloading => {
            bar.set_style(styles.moving.clone());
            bar.set_position(progress.received_bytes);
            bar.set_message(events::state(state));
        }
        LayerState::Unpacking => {
            bar.set_style(styles.moving.clone());
            bar.set_position(progress.received_bytes);
            bar.set_message(format!("unpacking, {}", amount::size(progress.unpacked_bytes)));
        }
        LayerState::Done => rest(bar, styles, format!("done, {}", amount::size(progress.total_bytes))),
        LayerState::Exists => rest(bar, styles, "here already".to_owned()),
        LayerState::Waiting | LayerState::Unspecified => rest(bar, styles, "waiting".to_owned()),
    }
}

fn rest(bar: &ProgressBar, styles: &Styles, message: String) {
    bar.set_style(styles.resting.clone());
    bar.set_message(message);
}

fn console_lines() -> usize {
    storage_sys::terminal::size(std::io::stderr()).map_or(LINES_DEFAULT, |size| usize::from(size.rows))
}
