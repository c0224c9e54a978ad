//! Cold pull and first run of images beside containerd, stargz-snapshotter and podman, interleaved in one session.
//!
//! Every peer fetches the same images from one `docker-registry` through one [`shaper`], starting from the same cold
//! state ([`cold`]), in an order that turns with each round so that a busy minute of the machine hits all alike. The
//! tables go to `--out`; each sample is printed as it is made.
//!
//! Engines that pull lazily get the image in the [`Form`] they need, made beforehand by the tools of that form's authors.
//!
//! Not here: making the images (`bench/images.sh`), start latency.

mod cold;
mod forms;
mod lazy;
mod peers;
mod report;
mod shaper;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::forms::Form;
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
    /// Engines, of `windlass`, `windlass-auto`, `windlass-gzip`, `windlass-soci`, `windlass-estargz`, `windlass-zstd-chunked`,
    /// `windlass-traced`, `containerd`, `containerd-overlap`, `stargz`, `stargz-plain`, `podman`.
    #[arg(long, value_delimiter = ',', default_value = "windlass,containerd,containerd-overlap,podman")]
    peers: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Markdown file for the tables.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// An image in the registry, in one form.
struct Pushed {
    name: String,
    form: Form,
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
    let warm = cold::Warm::new(&tests::windlass()?);
    let mut peers = peers::start(&arguments.peers, &arguments.data)?;
    let mut made = forms::Maker::new(&arguments.data, &registry);
    let mut images = Vec::new();
    for name in &arguments.images {
        let forms: std::collections::BTreeSet<Form> = peers.iter().map(|peer| peer.form()).collect();
        let forms = made.make(name, &arguments.layouts.join(name), &forms)?;
        images.push(
            forms
                .into_iter()
                .map(|form| pushed(name, form, &registry, &shaper))
                .collect::<Result<Vec<_>>>()?,
        );
    }
    drop(made);
    let mut samples = Vec::new();
    for network in networks {
        for image in &images {
            for round in 0..arguments.runs {
                for turn in 0..peers.len() {
                    let at = (round + turn) % peers.len();
                    let form = peers[at].form();
                    let image =
                        image.iter().find(|image| image.form == form).context("each form was made")?;
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

/// Finds the files that the registry serves for an image.
fn pushed(name: &str, form: Form, registry: &tests::Registry, shaper: &Shaper) -> Result<Pushed> {
    let tag = format!("{name}:{}", form.tag());
    let digests = forms::blobs(&registry.reference(&tag))?;
    let blobs: Vec<_> = digests.iter().map(|digest| registry.blob_file(digest)).collect();
    let bytes = blobs.iter().map(|file| Ok(file.metadata()?.len())).sum::<Result<u64>>()?;
    ensure!(!blobs.is_empty(), "the registry has no blob of {tag}");
    Ok(Pushed { name: name.to_owned(), form, reference: format!("{}/{tag}", shaper.address()), blobs, bytes })
}

fn measure(
    peer: &mut dyn Peer,
    image: &Pushed,
    network: Network,
    warm: &cold::Warm,
    shaper: &Shaper,
) -> Result<Sample> {
    peer.clean()?;
    peer.prepare(&image.reference)?;
    warm.drop_everything_else(&image.blobs)?;
    // The command line itself is warm, as it is for anybody who has used it this day.
    let _ = peer.version();
    shaper.imitate(network);
    let (busy, started) = (cold::busy_seconds(), Instant::now());
    let parts = peer.pull(&image.reference)?;
    let pull = started.elapsed().as_secs_f64();
    let busy = cold::busy_seconds() - busy;
    let counted = shaper.counted();
    ensure!(
        peer.is_lazy() || counted.bytes as f64 > 0.95 * image.bytes as f64,
        "not cold: {} of {} bytes were fetched",
        counted.bytes,
        image.bytes
    );
    let first = peer.run(&image.reference)?.as_secs_f64();
    let after = shaper.counted();
    peer.settle()?;
    Ok(Sample {
        network: network.name,
        image: image.name.clone(),
        peer: peer.name(),
        pull,
        first,
        bytes: counted.bytes,
        bytes_first: after.bytes,
        requests: after.requests,
        connections: after.connections,
        busy,
        parts: parts.0,
    })
}

fn line(sample: &Sample) -> String {
    let parts: Vec<_> = sample.parts.iter().map(|(name, seconds)| format!("{name} {seconds:.2}")).collect();
    format!(
        "{} {} {}: pull {:.2} s, first {:.2} s, {:.1} MB, {} requests, busy {:.1} core-s {}",
        sample.network,
        sample.image,
        sample.peer,
        sample.pull,
        sample.first,
        sample.bytes_first as f64 / 1e6,
        sample.requests,
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
