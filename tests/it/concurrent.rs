//! Many at once: pulls that share layers, snapshots of many clients, and a store that holds a great many.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use runtime_api::NAMESPACE_HEADER;
use runtime_api::containerd::services::snapshots::v1 as wire;
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use storage_model::Compression::Gzip;
use tests::{Engine, Entry, ImageBuilder, Registry};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::fixtures;

/// Pulls at once.
const PULLS: usize = 50;

/// Snapshots that are prepared, committed and removed at once: three operations each.
const LIVES: usize = 334;

/// Snapshots of the store that must open quickly.
const SNAPSHOTS: usize = 100_000;

/// Longest that a daemon may take to be ready with so many.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// Three layers that all images have, and one of its own.
fn image(number: usize) -> ImageBuilder {
    let (shared, _) = fixtures::crowd(3, 40, 4_000);
    let own = Entry::file(format!("own/{number}"), fixtures::noise(9_000 + number as u64, 3_000));
    shared.layer([own], Gzip)
}

#[test]
fn fifty_pulls_at_once_of_images_that_share_layers_ask_for_each_blob_once() -> Result<()> {
    let registry = Registry::start_counting()?;
    let mut references = Vec::new();
    for number in 0..PULLS {
        references.push(registry.push(&image(number).build()?, "crowd", &number.to_string())?);
    }
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let begun = Instant::now();
    let mut pulls = Vec::new();
    for reference in &references {
        let mut command = engine.command(["pull", "--quiet", reference])?;
        pulls.push((reference, command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?));
    }
    for (reference, pull) in pulls {
        let output = pull.wait_with_output()?;
        ensure!(output.status.success(), "{reference}: {}", String::from_utf8_lossy(&output.stderr));
    }
    println!("{PULLS} pulls at once in {:?}", begun.elapsed());
    let fetches = registry.fetches()?;
    // Config and own layer of each, and the three that all have.
    ensure!(fetches.len() == 2 * PULLS + 3, "{} blobs were asked for: {fetches:?}", fetches.len());
    let more: BTreeMap<_, _> = fetches.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(more.is_empty(), "asked for more than once: {more:?}");
    ensure!(engine.inside_root("snapshots").len() == PULLS + 3, "{:?}", engine.inside_root("snapshots"));
    engine.kill_daemon()
}

/// A connection to the daemon.
async fn connect(engine: &Engine) -> Result<SnapshotsClient<Channel>> {
    let socket = engine.socket();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Ok(SnapshotsClient::new(
        Endpoint::from_static("http://windlass").connect_with_connector(connector).await?,
    ))
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = "default".parse().expect("a word is a header");
    request.metadata_mut().insert(NAMESPACE_HEADER, namespace);
    request
}

/// Prepares, commits and removes one snapshot.
async fn live(mut client: SnapshotsClient<Channel>, number: usize) -> Result<()> {
    let (key, name) = (format!("key {number}"), format!("name {number}"));
    let snapshotter = || "overlayfs".to_owned();
    let prepare = wire::PrepareSnapshotRequest {
        snapshotter: snapshotter(),
        key: key.clone(),
        labels: [("containerd.io/gc.root".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    client.prepare(request(prepare)).await.with_context(|| key.clone())?;
    let commit = wire::CommitSnapshotRequest {
        snapshotter: snapshotter(),
        name: name.clone(),
        key: key.clone(),
        labels: [("containerd.io/gc.root".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    client.commit(request(commit)).await.with_context(|| format!("commit {key}"))?;
    let remove = wire::RemoveSnapshotRequest { snapshotter: snapshotter(), key: name };
    client.remove(request(remove)).await.with_context(|| format!("remove after {key}"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_snapshot_operations_at_once_over_the_socket_meet_no_error() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let begun = Instant::now();
    let mut lives = JoinSet::new();
    let clients =
        [connect(&engine).await?, connect(&engine).await?, connect(&engine).await?, connect(&engine).await?];
    for number in 0..LIVES {
        lives.spawn(live(clients[number % clients.len()].clone(), number));
    }
    while let Some(ended) = lives.join_next().await {
        ended??;
    }
    println!("{} snapshot operations at once in {:?}", 3 * LIVES, begun.elapsed());
    engine.ok(["gc"])?;
    let (left, trash) = (engine.inside_root("snapshots"), engine.inside_root("trash"));
    ensure!(left.is_empty() && trash.is_empty(), "left behind: {left:?} {trash:?}");
    engine.kill_daemon()
}

/// Fills a store with committed and active snapshots, many threads at a time.
fn fill(engine: &Engine) -> Result<()> {
    let config = runtime_engine::EngineConfig {
        root: engine.root().to_owned(),
        state: engine.state(),
        address: engine.socket(),
        exe: tests::windlass()?,
        hosts_dirs: Vec::new(),
        budget: None,
    };
    let opened = runtime_engine::Engine::open(config)?;
    let space = opened.store().space(&"default".parse()?);
    let snapshotter = opened.snapshotter("overlayfs", space)?;
    let labels = [("containerd.io/gc.root".to_owned(), "1".to_owned())].into();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..32)
            .map(|thread| {
                let (snapshotter, labels) = (&snapshotter, &labels);
                scope.spawn(move || -> Result<()> {
                    for number in (thread..SNAPSHOTS).step_by(32) {
                        snapshotter.prepare(&format!("key {number}").parse()?, None, labels)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("filling does not panic"))
    })
}

#[test]
#[ignore = "fills a store for minutes: scripts/proofs.sh runs it"]
fn a_store_of_a_hundred_thousand_snapshots_is_ready_within_a_second_and_is_listed() -> Result<()> {
    let mut engine = Engine::new()?;
    let begun = Instant::now();
    fill(&engine)?;
    let filled = begun.elapsed();
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(engine.start_daemon()?);
        engine.kill_daemon()?;
    }
    engine.start_daemon()?;
    let begun = Instant::now();
    let listed = engine.ok(["snapshots", "ls", "--quiet"])?.lines().count();
    println!(
        "{SNAPSHOTS} snapshots, made in {filled:?}: the daemon was ready after {times:?}, listed {listed} in {:?}",
        begun.elapsed()
    );
    ensure!(listed == SNAPSHOTS, "{listed} of {SNAPSHOTS} are listed");
    ensure!(times.iter().all(|time| *time < OPEN_MAX), "ready after {times:?}");
    engine.kill_daemon()
}
