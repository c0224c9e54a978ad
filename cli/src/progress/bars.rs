//! Work on a terminal: one line a thing, redrawn in place.
//!
//! When there are more things than the terminal has lines, those that move are shown, and those that are done are dropped; a
//! total line below is always there. Drawing is limited by `indicatif` to 20 times a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::line::{self, Pace};
use super::step::{Item, Phase, Step};
use crate::output::{amount, colours};

/// Lines the total, the shell's prompt and a message need besides the layers'.
const OTHER_LINES: usize = 4;

/// Size of a terminal that does not tell it.
const SIZE_DEFAULT: storage_sys::terminal::Size = storage_sys::terminal::Size { rows: 24, columns: 80 };

/// The bars.
pub(crate) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    shown: HashMap<String, Shown>,
    order: Vec<String>,
    crowded: bool,
    colours: bool,
}

struct Shown {
    line: Option<ProgressBar>,
    item: Item,
    /// When the first bytes of this command were seen, and how many an earlier one had left.
    first: Option<(Instant, u64)>,
}

impl Shown {
    fn pace(&mut self) -> Pace {
        if self.item.phase != Phase::Moving {
            return Pace::default();
        }
        let (since, before) = *self.first.get_or_insert((Instant::now(), self.item.done_bytes));
        Pace { bytes: self.item.done_bytes.saturating_sub(before), elapsed: since.elapsed() }
    }

    /// Bytes that are behind us.
    fn done_bytes(&self) -> u64 {
        if self.item.phase.is_over() { self.item.total_bytes } else { self.item.done_bytes }
    }
}

impl Bars {
    /// A line that says that something happens; the layers come with the events.
    pub(crate) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")));
        total.set_message("starting");
        total.enable_steady_tick(Duration::from_millis(100));
        Self { all, total, shown: HashMap::new(), order: Vec::new(), crowded: false, colours: colours() }
    }

    /// Shows an event.
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Begin { items, .. } => {
                self.crowded = items.len() + OTHER_LINES > usize::from(terminal().rows);
                for item in items {
                    // What is in it twice is one thing here.
                    if !self.shown.contains_key(&item.key) {
                        self.item(item);
                    }
                }
            }
            Step::Item(item) => self.item(item),
            // A terminal that cannot be written to shows no bars either.
            Step::Message(text) => drop(self.all.println(text)),
            Step::Done => {}
        }
    }

    /// Does `write` while the bars are not drawn.
    pub(super) fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }

    fn item(&mut self, item: Item) {
        let (key, phase) = (item.key.clone(), item.phase);
        if !self.shown.contains_key(&key) {
            self.order.push(key.clone());
            self.crowded |= self.order.len() + OTHER_LINES > usize::from(terminal().rows);
        }
        let shown =
            self.shown.entry(key).or_insert_with(|| Shown { line: None, item: item.clone(), first: None });
        shown.item = item;
        if self.crowded && (phase.is_over() || phase == Phase::Waiting) {
            if let Some(line) = shown.line.take() {
                line.finish_and_clear();
                self.all.remove(&line);
            }
        } else {
            let pace = shown.pace();
            let text = line::item(&shown.item, pace, usize::from(terminal().columns), self.colours);
            let line = shown.line.get_or_insert_with(|| {
                self.all.insert_before(&self.total, ProgressBar::no_length().with_style(style("{wide_msg}")))
            });
            line.set_message(text);
        }
        self.show_total();
    }

    fn show_total(&self) {
        let sum = |bytes: fn(&Shown) -> u64| self.shown.values().map(bytes).fold(0, u64::saturating_add);
        let (done, size) = (sum(Shown::done_bytes), sum(|shown| shown.item.total_bytes));
        let over = self.shown.values().filter(|shown| shown.item.phase.is_over()).count();
        let (done, size) = (amount::size(done), amount::size(size));
        self.total.set_message(format!("{done} of {size}, {over} of {} done", self.shown.len()));
    }

    /// Takes the total line away and leaves the others as they are.
    pub(super) fn finish(&mut self) {
        for line in self.order.iter().filter_map(|key| self.shown.get(key)?.line.as_ref()) {
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
