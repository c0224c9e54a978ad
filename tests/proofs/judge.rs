//! The one question, asked after every fault.
//!
//! [`Case`] knows, from a run that nothing disturbed, what is to be seen before the last step and after it. After a fault
//! in between, what is found must be one of the two, and if the step was acknowledged, the second.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runtime_engine::Engine;

use crate::seen::{Seen, abort_ingests, ask_for_mounts, leaks};
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

    /// One case for each of `steps`, taken one after the other in a root below `folder`.
    pub(crate) fn chain(steps: &[Step], folder: &Path) -> Result<Vec<Self>> {
        let (root, copy) = (folder.join("chain"), folder.join("chain-copy"));
        let settled = || -> Result<(Seen, Seen)> {
            let start = Seen::of(&open(&root)?)?;
            crate::world::copy(&root, &copy)?;
            let before = collected(&open(&copy)?)?;
            std::fs::remove_dir_all(&copy)?;
            Ok((start, before))
        };
        let (mut start, mut before) = {
            drop(open(&root)?);
            settled()?
        };
        let mut cases = Vec::new();
        for step in steps {
            step.take(&open(&root)?).with_context(|| format!("{step:?}"))?;
            let (next, after) = settled()?;
            let name = format!("{step:?}");
            cases.push(Self { name, step: step.clone(), start, before, after: after.clone() });
            (start, before) = (next, after);
        }
        std::fs::remove_dir_all(&root)?;
        Ok(cases)
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
            let seen = collected(&engine)?.without_notes();
            let (before, after) = (self.before.without_notes(), self.after.without_notes());
            let is = |this: &Seen| seen.differs_from(this).is_empty();
            ensure!(
                is(&after) || (!acknowledged && is(&before)),
                "after a collection it is neither as before ({}) nor as after ({})",
                seen.differs_from(&before),
                seen.differs_from(&after)
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
        let lost = seen.without_notes().lacks(&due.without_notes(), acknowledged);
        ensure!(lost.is_empty(), "lost: {lost}");
        ask_for_mounts(engine, &seen)
    }

    /// What is there on both sides: no fault may take it.
    fn common(&self) -> Seen {
        let mut common = self.before.clone();
        common.images.retain(|name, image| self.after.images.get(name) == Some(image));
        common.blobs.retain(|digest, _| self.after.blobs.contains_key(digest));
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
