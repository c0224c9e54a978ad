//! Cold pull and first run of images beside containerd and podman, interleaved in one session.
//!
//! Every peer fetches the same images from one `docker-registry` through one [`shaper`], starting from the same cold
//! state ([`cold`]), in an order that turns with each round so that a busy minute of the machine hits all alike. The
//! tables go to `--out`; each sample is printed as it is made.
//!
//! Not here: making the images (`bench/images.sh`), lazy pulling, start latency.

mod cold;
mod peers;
mod report;
mod shaper;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::peers::Peer;
use self::report::Sample;
use self::shaper::{NETWORKS, Network, Shaper};

/// `bench-compare pull`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of OCI image layouts, one a directory, each with a tag `latest` and a script /bench/run inside.
    #[arg(long)]
    layouts: PathBuf,
    /// Directory for the engines' data, on a plain local file system.
    #[arg(long)]
    data: PathBuf,
    /// Images to measure.
    #[arg(long, value_delimiter = ',', default_value = "python,node,redis")]
    images: Vec<String>,
    /// Networks: loopback, lan (5 ms, 10 Gbit/s), cloud (20 ms, 1 Gbit/s), wan (50 ms, 100 Mbit/s).
    #[arg(long, value_delimiter = ',', default_value = "cloud")]
    networks: Vec<String>,
    /// Engines: windlass, containerd, containerd-overlap, podman.
    #[arg(long, value_delimiter = ',', default_value = "windlass,containerd,containerd-overlap,podman")]
    peers: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Markdown file for the tables.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// An image in the registry.
struct Pushed {
    name: String,
    reference: String,
    blobs: Vec<PathBuf>,
    bytes: u64,
}

/// Measures, prints, and writes the tables.
///
/// # Errors
/// A peer does not start, or the tables cannot be written; one failed sample is only told.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let networks = arguments.networks.iter().map(|name| network(name)).collect::<Result<Vec<_>>>()?;
    fs::create_dir_all(&arguments.data)?;
    let registry = tests::Registry::start()?;
    let shaper = Shaper::start(registry.address())?;
    let images = arguments
        .images
        .iter()
        .map(|name| push(&arguments.layouts.join(name), name, &registry, &shaper))
        .collect::<Result<Vec<_>>>()?;
    let warm = cold::Warm::new(&tests::windlass()?);
    let mut peers = peers::start(&arguments.peers, &arguments.data)?;
    let mut samples = Vec::new();
    for network in networks {
        for image in &images {
            for round in 0..arguments.runs {
                for turn in 0..peers.len() {
                    let at = (round + turn) % peers.len();
                    match measure(peers[at].as_mut(), image, network, &warm, &shaper) {
                        Ok(sample) => {
                            println!("{}", line(&sample));
                            samples.push(sample);
                        }
                        // One failure must not cost the session; the number of runs in the table tells it.
                        Err(error) => {
                            eprintln!("{} {} {}: {error:#}", network.name, image.name, peers[at].name())
                        }
                    }
                }
            }
        }
    }
    let text = format!("{}\n{}", heading(&peers), report::tables(&samples));
    println!("\n{text}");
    for peer in &mut peers {
        peer.clean()?;
    }
    match arguments.out {
        Some(path) => fs::write(&path, text).with_context(|| format!("{}", path.display())),
        None => Ok(()),
    }
}

fn network(name: &str) -> Result<Network> {
    let known = NETWORKS.iter().find(|network| network.name == name);
    known.copied().with_context(|| format!("{name:?} is no network: loopback, lan, cloud, wan"))
}

/// Copies a layout into the registry and finds the files that it serves.
fn push(layout: &Path, name: &str, registry: &tests::Registry, shaper: &Shaper) -> Result<Pushed> {
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{}", registry.reference(&format!("{name}:latest"))));
    tests::finish(&mut copy, Duration::from_secs(300))?
        .success()
        .with_context(|| format!("{}", layout.display()))?;
    let mut blobs = Vec::new();
    let mut bytes = 0;
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let entry = entry?;
        let Ok(digest) = format!("sha256:{}", entry.file_name().to_string_lossy()).parse() else { continue };
        let file = registry.blob_file(&digest);
        // A layout may hold blobs of an earlier tag, which were not copied.
        if let Ok(metadata) = file.metadata() {
            bytes += metadata.len();
            blobs.push(file);
        }
    }
    ensure!(!blobs.is_empty(), "the registry took no blob of {}", layout.display());
    Ok(Pushed {
        name: name.to_owned(),
        reference: format!("{}/{name}:latest", shaper.address()),
        blobs,
        bytes,
    })
}

fn measure(
    peer: &mut dyn Peer,
    image: &Pushed,
    network: Network,
    warm: &cold::Warm,
    shaper: &Shaper,
) -> Result<Sample> {
    peer.clean()?;
    warm.drop_everything_else(&image.blobs)?;
    // The command line itself is warm, as it is for anybody who has used it this day.
    let _ = peer.version();
    shaper.imitate(network);
    let (busy, started) = (cold::busy_seconds(), Instant::now());
    let parts = peer.pull(&image.reference)?;
    let pull = started.elapsed().as_secs_f64();
    let busy = cold::busy_seconds() - busy;
    let (bytes, connections) = shaper.counted();
    ensure!(
        bytes as f64 > 0.95 * image.bytes as f64,
        "not cold: {bytes} of {} bytes were fetched",
        image.bytes
    );
    let first = peer.run(&image.reference)?.as_secs_f64();
    Ok(Sample {
        network: network.name,
        image: image.name.clone(),
        peer: peer.name(),
        pull,
        first,
        bytes,
        connections,
        busy,
        parts: parts.0,
    })
}

fn line(sample: &Sample) -> String {
    let parts: Vec<_> = sample.parts.iter().map(|(name, seconds)| format!("{name} {seconds:.2}")).collect();
    format!(
        "{} {} {}: pull {:.2} s, first {:.2} s, {:.0} MB, busy {:.1} core-s {}",
        sample.network,
        sample.image,
        sample.peer,
        sample.pull,
        sample.first,
        sample.bytes as f64 / 1e6,
        sample.busy,
        parts.join(", ")
    )
}

fn heading(peers: &[Box<dyn Peer>]) -> String {
    let mut text = crate::heading("Cold pull and first run");
    for peer in peers {
        let version = peer.version();
        text.push_str(&format!("- {}: {}\n", peer.name(), version.lines().next().unwrap_or_default().trim()));
    }
    text
}
