//! The one question, asked after every fault.
//!
//! [`Case`] knows, from a run that nothing disturbed, what is to be seen before the last step and after it. After a fault
//! in between, what is found must be one of the two, and if the step was acknowledged, the second.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runtime_engine::Engine;

use crate::seen::{Seen, abort_ingests, leaks};
use crate::step::{Step, open};

/// Longest that opening a root after a fault may take.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// A step, what comes before it, and what is to be seen on either side.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) step: Step,
    /// As the steps before left it, garbage and all.
    start: Seen,
    /// The same after a collection.
    before: Seen,
    after: Seen,
}

/// What was done after the fault before the question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// A collection: what the step left goes.
    Collect,
    /// The step again: what it left is taken up.
    Retry,
}

impl Case {
    /// Takes `before` in `root`, which is left as it is then for the trials to start from, and the step in a copy.
    pub(crate) fn prepare(name: &str, before: &[Step], step: Step, root: &Path) -> Result<Self> {
        let engine = open(root)?;
        for step in before {
            step.take(&engine).with_context(|| format!("{step:?}"))?;
        }
        // A collection belongs to what is tried: it must find something.
        if step != Step::Collect {
            engine.collect()?;
        }
        drop(engine);
        let copy = root.with_extension("reference");
        crate::world::copy(root, &copy)?;
        let engine = open(&copy)?;
        let start = Seen::of(&engine)?;
        let before = if step == Step::Collect { collected(&engine)? } else { start.clone() };
        step.take(&engine).with_context(|| format!("{step:?}"))?;
        engine.collect()?;
        let after = Seen::of(&engine)?;
        drop(engine);
        std::fs::remove_dir_all(&copy)?;
        Ok(Self { name: name.to_owned(), step, start, before, after })
    }

    /// Asks the question of `root`, where the step was cut short; `acknowledged` if it had been reported done.
    pub(crate) fn judge(&self, root: &Path, acknowledged: bool, then: Then) -> Result<()> {
        let begun = Instant::now();
        let engine = open(root).context("the engine does not open")?;
        ensure!(begun.elapsed() < OPEN_MAX, "opening took {:?}", begun.elapsed());
        let recovery = engine.store().recovery();
        ensure!(recovery.quarantined.is_empty(), "blobs were lost: {:?}", recovery.quarantined);
        self.look(&engine, acknowledged)?;
        if then == Then::Collect {
            abort_ingests(&engine).context("an interrupted ingest cannot be taken up")?;
            let seen = collected(&engine)?;
            let is = |this: &Seen| seen.differs_from(this).is_empty();
            ensure!(
                is(&self.after) || (!acknowledged && is(&self.before)),
                "after a collection it is neither as before ({}) nor as after ({})",
                seen.differs_from(&self.before),
                seen.differs_from(&self.after)
            );
        }
        self.step.take(&engine).context("the step cannot be taken again")?;
        abort_ingests(&engine)?;
        let again = collected(&engine)?.differs_from(&self.after);
        ensure!(again.is_empty(), "after the step was taken again: {again}");
        Ok(())
    }

    /// What is there before anything was tidied: nothing half-made, and what was acknowledged.
    fn look(&self, engine: &Engine, acknowledged: bool) -> Result<()> {
        let seen = Seen::of(engine).context("something visible is damaged")?;
        let half = seen.beyond(&[&self.start, &self.before, &self.after]);
        ensure!(half.is_empty(), "half-made and visible: {half}");
        let due = if acknowledged { &self.after } else { &self.common() };
        let lost = seen.lacks(due);
        ensure!(lost.is_empty(), "lost: {lost}");
        Ok(())
    }

    /// What is there on both sides: no fault may take it.
    fn common(&self) -> Seen {
        let mut common = self.before.clone();
        common.images.retain(|name, image| self.after.images.get(name) == Some(image));
        common.blobs.retain(|digest, _| self.after.blobs.contains_key(digest));
        common.blobs.iter_mut().for_each(|(digest, labels)| labels.clone_from(&self.after.blobs[digest]));
        common.snapshots.retain(|name, snapshot| self.after.snapshots.get(name) == Some(snapshot));
        common
    }
}

/// Collects once, and says what is to be seen then; nothing may be leaked.
fn collected(engine: &Engine) -> Result<Seen> {
    engine.collect()?;
    let leaked = leaks(engine)?;
    ensure!(leaked.is_empty(), "leaked after one collection: {leaked}");
    Seen::of(engine)
}
