//! Pushes: only what is missing, the tag last, and what others then read.

use anyhow::{Context, Result};
use runtime_engine::{EngineError, PullRequest, PushRequest, TransferEvent, TransferState, Transferred};
use tests::{Containerd, Registry, difference, index_of};

use crate::bench::{Bench, run};
use crate::fixtures;

fn push(bench: &Bench, request: PushRequest) -> Result<(Transferred, Vec<TransferEvent>), EngineError> {
    let namespace = bench.namespace();
    bench.transfer(async |events| bench.engine.push(&namespace, request, events).await)
}

fn from_to(image: &str, reference: &str) -> PushRequest {
    PushRequest { image: image.to_owned(), reference: reference.to_owned(), ..Default::default() }
}

/// How many things ended in `state`.
fn count(events: &[TransferEvent], state: TransferState) -> usize {
    events
        .iter()
        .filter(|event| matches!(event, TransferEvent::Progress { state: found, .. } if *found == state))
        .count()
}

#[test]
fn a_pushed_image_is_what_skopeo_containerd_and_we_pull_again() -> Result<()> {
    let (from, to) = (Registry::start()?, Registry::start()?);
    let bench = Bench::new()?;
    let name = from.push(&fixtures::everything().all_gzip().build()?, "everything", "1")?;
    let pulled = bench.pull(&name)?;
    let target = to.reference("copied/everything:2");
    let (pushed, events) = push(&bench, from_to(&name, &target))?;
    assert_eq!(pushed.images[0].digest, pulled.digest);
    assert_eq!(count(&events, TransferState::Exists), 0);
    assert!(pushed.bytes > 3 << 20, "{} bytes", pushed.bytes);
    let inspected = run(
        bench.directory.path(),
        "skopeo",
        &["inspect", "--tls-verify=false", &format!("docker://{target}")],
    )?;
    assert!(inspected.contains(&pulled.digest.to_string()), "{inspected}");
    let containerd = Containerd::start(&bench.path("containerd"))?;
    containerd.ctr("ctr", &["images", "pull", "--plain-http", &target])?;
    let there = Bench::new()?;
    there.pull(&target)?;
    assert_eq!(difference(&bench.tree(&name)?, &there.tree(&target)?), "");
    // Nothing is sent twice: not to the same repository, and to another of the registry it is mounted.
    let (again, events) = push(&bench, from_to(&name, &to.reference("copied/everything:3")))?;
    assert!(again.bytes < 4096, "{} bytes", again.bytes);
    assert!(count(&events, TransferState::Exists) >= 4, "{events:?}");
    let (mounted, events) = push(&bench, from_to(&name, &to.reference("elsewhere:1")))?;
    assert!(mounted.bytes < 4096, "{} bytes", mounted.bytes);
    assert_eq!(count(&events, TransferState::Mounted), 4, "{events:?}");
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn of_an_index_what_is_here_is_pushed_and_what_the_registry_has_stays_listed() -> Result<()> {
    let (from, to) = (Registry::start()?, Registry::start()?);
    let host = storage_model::Platform::host();
    let foreign = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let ours = fixtures::crowd(2, 3, 100).0.build()?;
    let index = index_of(&[("linux", "s390x", &foreign), (&host.os, &host.architecture, &ours)]);
    let name = from.push(&index, "index", "1")?;
    let bench = Bench::new()?;
    bench.pull(&name)?;
    // The registry it came from has the rest: the same index goes under the new tag.
    let (pushed, _) = push(&bench, from_to(&name, &from.reference("index:2")))?;
    assert_eq!(pushed.images[0].digest, index.root.digest);
    // Another has not: an index of what is here takes its place, and that is told.
    let (pushed, events) = push(&bench, from_to(&name, &to.reference("index:1")))?;
    assert_ne!(pushed.images[0].digest, index.root.digest);
    let told = events
        .iter()
        .any(|event| matches!(event, TransferEvent::Message(text) if text.contains("1 of the 2")));
    assert!(told, "{events:?}");
    let there = Bench::new()?;
    there.pull(&to.reference("index:1"))?;
    let error = push(&bench, PushRequest { all_platforms: true, ..from_to(&name, &to.reference("index:2")) });
    assert!(error.map(drop).unwrap_err().to_string().contains("linux/s390x"));
    // One platform alone is a manifest; all of them are the index as it is.
    let platforms = vec![host.to_string()];
    let (pushed, _) = push(&bench, PushRequest { platforms, ..from_to(&name, &to.reference("one:1")) })?;
    assert_eq!(pushed.images[0].digest, ours.root.digest);
    bench.pull_as(PullRequest { reference: name.clone(), all_platforms: true, ..Default::default() })?;
    let (pushed, _) =
        push(&bench, PushRequest { all_platforms: true, ..from_to(&name, &to.reference("all:1")) })?;
    assert_eq!(pushed.images[0].digest, index.root.digest);
    let manifest_digest = Some(foreign.root.digest);
    let (pushed, _) =
        push(&bench, PushRequest { manifest_digest, ..from_to(&name, &to.reference("foreign:1")) })?;
    assert_eq!(pushed.images[0].digest, foreign.root.digest);
    Ok(())
}

#[test]
fn an_image_is_pushed_under_its_own_name_when_none_is_given() -> Result<()> {
    let registry = Registry::start()?;
    let bench = Bench::new()?;
    let name = registry.push(&fixtures::crowd(1, 3, 100).0.build()?, "a", "1")?;
    bench.pull(&name)?;
    let target = registry.reference("b:1");
    bench.engine.tag(&bench.namespace(), &name, std::slice::from_ref(&target), false)?;
    push(&bench, PushRequest { reference: target.clone(), ..Default::default() })?;
    let there = Bench::new()?;
    there.pull(&target).context("what was pushed")?;
    let error = push(&bench, PushRequest { reference: registry.reference("none:1"), ..Default::default() });
    assert!(matches!(error.map(drop).unwrap_err(), EngineError::NoImage { .. }));
    Ok(())
}
