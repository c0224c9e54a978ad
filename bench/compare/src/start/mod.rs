//! How long a container takes to start and end, image already there: `true`, one after another, then many at once, and what
//! many that run take of memory.
//!
//! Engines take turns within a round. The bare OCI runtimes show how much of it is theirs: no engine that uses one can be
//! faster. Not here: pulling.

mod engines;
mod memory;
mod report;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::engines::Starter;
use self::report::{Crowd, Start};

/// `bench-compare start`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of OCI image layouts, one a directory, each with a tag `latest`.
    #[arg(long)]
    layouts: PathBuf,
    /// Directory for the engines' data, on a plain local file system.
    #[arg(long)]
    data: PathBuf,
    /// Image to start; it has /bin/true and /bin/sleep.
    #[arg(long, default_value = "debian-min")]
    image: String,
    /// Engines and runtimes: windlass, containerd, podman, runc, crun.
    #[arg(long, value_delimiter = ',', default_value = "windlass,containerd,podman,runc,crun")]
    peers: Vec<String>,
    /// Starts of each.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Numbers of containers started at once.
    #[arg(long, value_delimiter = ',', default_value = "10,50")]
    crowds: Vec<usize>,
    /// Markdown file for the tables.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Longest that one command may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// Starts of one engine in a row: a pause before each would measure what others do in it.
const BLOCK: usize = 5;

/// Measures, prints, and writes the tables.
///
/// # Errors
/// A peer does not start, or the tables cannot be written; one failed sample is only told.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.data)?;
    let mut peers = engines::start(&arguments)?;
    let (mut starts, mut crowds) = (Vec::new(), Vec::new());
    let mut ids = (0..).map(|number: u64| format!("bench-{}-{number}", std::process::id()));
    let mut next = || ids.next().context("numbers do not end");
    for _ in 0..arguments.runs.div_ceil(BLOCK) {
        for peer in &peers {
            for _ in 0..BLOCK {
                match timed(&mut peer.once(&next()?)?) {
                    Ok(seconds) => starts.push(Start { peer: peer.name(), seconds }),
                    Err(error) => eprintln!("{}: {error:#}", peer.name()),
                }
            }
        }
    }
    for &count in &arguments.crowds {
        for peer in &mut peers {
            let names = (0..count).map(|_| next()).collect::<Result<Vec<_>>>()?;
            match crowd(peer.as_mut(), &names) {
                Ok(crowd) => {
                    println!("{} containers, {}: {crowd:?}", count, peer.name());
                    crowds.push(crowd);
                }
                Err(error) => eprintln!("{count} containers, {}: {error:#}", peer.name()),
            }
        }
    }
    let mut text = crate::heading("Starting containers");
    for peer in &peers {
        text.push_str(&format!("- {}: {}\n", peer.name(), peer.version()));
    }
    text.push('\n');
    text.push_str(&report::tables(&starts, &crowds));
    println!("\n{text}");
    match arguments.out {
        Some(path) => std::fs::write(&path, text).with_context(|| format!("{}", path.display())),
        None => Ok(()),
    }
}

/// Seconds that a command takes, which must succeed.
fn timed(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    tests::finish(command, DEADLINE)?.success().with_context(|| format!("{command:?}"))?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Starts as many at once as there are names, waits for all; then, where the engine can, lets as many run and looks at
/// their memory.
fn crowd(peer: &mut dyn Starter, names: &[String]) -> Result<Crowd> {
    let begun = Instant::now();
    let mut children = Vec::new();
    for name in names {
        let mut command = peer.once(name)?;
        children.push(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    }
    let mut failed = 0;
    for mut child in children {
        failed += usize::from(!child.wait()?.success());
    }
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(failed == 0, "{failed} of {} failed", names.len());
    let programs = peer.programs();
    let memory_bytes = if programs.is_empty() {
        None
    } else {
        let before = memory::of(programs);
        for name in names {
            timed(&mut peer.begin(name)?)?;
        }
        let during = memory::of(programs);
        for name in names {
            peer.end(name)?;
        }
        Some(during.saturating_sub(before) / names.len() as u64)
    };
    Ok(Crowd { peer: peer.name(), count: names.len(), seconds, memory_bytes })
}
