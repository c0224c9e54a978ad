//! T-1: kill -9 before and after every system call that changes the root, one trial each.

use std::path::Path;

use anyhow::Result;

use crate::figures::{self, Tally, side_by_side};
use crate::judge::{Case, Then};
use crate::seen::PUSHED;
use crate::step::Step;
use crate::trace::{self, Fault};
use crate::worker::{Job, Traced};
use crate::world::{self, Memory, World};

/// Trials in the short form: evenly spread over all points.
const SHORT: u64 = 240;

/// Each step that users wait for, and what comes before it.
pub(crate) fn cases(world: &World) -> Vec<(&'static str, Vec<Step>, Step)> {
    let (one, two) = (world.reference(0), world.reference(1));
    let pull = |reference: &String| Step::Pull { reference: reference.clone() };
    let forget = |reference: &String| Step::Forget { reference: reference.clone() };
    let prepare = Step::Prepare { key: "draft".into(), reference: one.clone() };
    let commit = Step::Commit { key: "draft".into(), name: "done".into() };
    let remove = Step::Remove { key: "done".into() };
    let made = vec![pull(&one), prepare.clone()];
    vec![
        ("pull", vec![], pull(&one)),
        ("pull beside another", vec![pull(&two)], pull(&one)),
        (
            "import",
            vec![],
            Step::Import { archive: world.archive.clone(), name: "local.test/imported".into() },
        ),
        ("unpack", vec![Step::Fetch { reference: one.clone() }], Step::Unpack { reference: one.clone() }),
        (
            "convert",
            vec![pull(&one)],
            Step::Convert { reference: one.clone(), target: "local.test/converted:1".into() },
        ),
        (
            "push",
            vec![pull(&one)],
            Step::Push { reference: one.clone(), repository: world.registry.reference(PUSHED) },
        ),
        ("prepare", vec![pull(&one)], prepare),
        ("commit", made.clone(), commit.clone()),
        ("remove", [made, vec![commit]].concat(), remove),
        ("forget", vec![pull(&one), pull(&two)], forget(&one)),
        ("gc", vec![pull(&one), pull(&two), forget(&one)], Step::Collect),
    ]
}

/// A case, the number of calls that one run of it makes, and whether opening belongs to it.
struct Points {
    case: Case,
    traced: Traced,
    calls: u64,
}

fn job(points: &Points, root: &Path) -> Job {
    Job {
        root: root.to_owned(),
        steps: vec![points.case.step.clone()],
        traced: points.traced,
        left_out: Vec::new(),
        confirmed: false,
    }
}

/// Runs every case once without a fault, to know how many points it has.
fn survey(world: &World, folder: &Path) -> Result<Vec<Points>> {
    let mut found = Vec::new();
    for (name, before, step) in cases(world) {
        let start = folder.join(name.replace(' ', "-"));
        let case = Case::prepare(name, &before, step, &start)?;
        // The first case starts from nothing: there opening makes the store.
        let traced = if found.is_empty() { Traced::FromTheStart } else { Traced::SinceOpen };
        let mut points = Points { case, traced, calls: 0 };
        let root = folder.join("survey");
        world::copy(&start, &root)?;
        let outcome = trace::run(job(&points, &root).command(), &root, Fault::None)?;
        anyhow::ensure!(outcome.succeeded && outcome.acknowledged(0), "{name}: {outcome:?}");
        std::fs::remove_dir_all(&root)?;
        points.calls = outcome.calls;
        found.push(points);
    }
    Ok(found)
}

/// Kills the step of a case at one point and asks the question.
fn trial(points: &Points, folder: &Path, place: &str, fault: Fault, then: Then) -> (bool, Result<()>) {
    let root = folder.join(place);
    let attempt = || -> Result<bool> {
        world::copy(&folder.join(points.case.name.replace(' ', "-")), &root)?;
        let outcome = trace::run(job(points, &root).command(), &root, fault)?;
        points.case.judge(&root, outcome.acknowledged(0), then)?;
        Ok(outcome.hit.is_some())
    };
    let outcome = attempt();
    let _ = std::fs::remove_dir_all(&root);
    let _ = std::fs::remove_dir_all(world::state_beside(&root));
    (*outcome.as_ref().unwrap_or(&true), outcome.map(|_| ()))
}

#[test]
fn t1_after_kill_nine_at_any_system_call_nothing_is_lost_half_made_or_leaked() -> Result<()> {
    let world = World::new()?;
    let memory = Memory::mount()?;
    let all = survey(&world, memory.path())?;
    let total: u64 = all.iter().map(|points| 2 * points.calls).sum();
    let count = figures::trials(SHORT);
    let tally = Tally::new("T-1 kill -9");
    for points in &all {
        tally.note(&format!("{} {}", points.case.name, 2 * points.calls));
    }
    tally.note(&format!("{total} points in all"));
    side_by_side(figures::threads(), count, |thread, number| {
        // Fewer trials than points are spread evenly over them; more go round again, where threads meet otherwise.
        let mut at = if count < total { number * total / count } else { number % total };
        let points = all
            .iter()
            .find(|points| {
                let inside = at < 2 * points.calls;
                if !inside {
                    at -= 2 * points.calls;
                }
                inside
            })
            .expect("the number is below the sum");
        let nth = at / 2 + 1;
        let fault = if at % 2 == 0 { Fault::KillBefore(nth) } else { Fault::KillAfter(nth) };
        // Each point meets both in turn, round by round.
        let then = if (nth + number / total).is_multiple_of(2) { Then::Collect } else { Then::Retry };
        let (hit, outcome) = trial(points, memory.path(), &format!("trial-{thread}"), fault, then);
        tally.count(hit, || format!("{} {fault:?} then {then:?}", points.case.name), outcome);
    });
    tally.close("tmpfs");
    Ok(())
}
