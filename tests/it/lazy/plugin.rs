//! Debian's containerd with us as its lazy proxy plug-in: it pulls as it does over stargz-snapshotter.

use anyhow::Result;
use storage_model::Compression::Gzip;
use tests::{Containerd, Engine, Entry, ImageBuilder, Registry};

use super::{Way, lazily};
use crate::fixtures;

struct Pair {
    // In this order they end: containerd asks its plug-in to the last.
    containerd: Containerd,
    engine: Engine,
}

impl Pair {
    fn start() -> Result<Self> {
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        let directory = engine.scratch().join("containerd");
        std::fs::create_dir(&directory)?;
        let socket = engine.socket();
        let lines = format!(
            "[proxy_plugins.windlass-lazy]\ntype = \"snapshot\"\naddress = \"{}\"\n",
            socket.display()
        );
        let containerd = Containerd::start_with(&directory, &lines)?;
        Ok(Self { containerd, engine })
    }

    fn rpull(&self, image: &str) -> Result<String> {
        let arguments = ["images", "rpull", "--plain-http", "--snapshotter", "windlass-lazy", image];
        self.containerd.ctr("ctr-remote", &arguments)
    }

    fn run(&self, image: &str, script: &str) -> Result<String> {
        let id = self.engine.scratch().file_name().map(|name| name.to_string_lossy().replace('.', "-"));
        let id = id.unwrap_or_default();
        let run = ["run", "--rm", "--snapshotter", "windlass-lazy", image, &id, "/bin/sh", "-c", script];
        self.containerd.ctr("ctr", &run)
    }
}

/// A shell, and far more that nobody reads.
fn shell_and_ballast() -> Result<ImageBuilder> {
    let lower = [
        Entry::directory("data/"),
        Entry::file("data/kept", "kept\n"),
        Entry::file("data/ballast", fixtures::noise(9, 48 << 20)),
        Entry::file("data/gone", "gone\n"),
    ];
    let upper = [Entry::file("data/.wh.gone", ""), Entry::file("data/new", "new\n")];
    Ok(ImageBuilder::default().busybox()?.layer(lower, Gzip).layer(upper, Gzip))
}

#[test]
fn containerd_pulls_lazily_over_us_and_runs_before_the_bytes_are_here() -> Result<()> {
    let pair = Pair::start()?;
    let registry = Registry::start_counting()?;
    let image = registry.push(&lazily(&shell_and_ballast()?, Way::Estargz)?, "shell", "1")?;
    pair.rpull(&image)?;
    let pulled = registry.sent_bytes()?;
    assert!(pulled < 1 << 20, "{pulled} bytes of blobs were sent for a pull");
    let said = pair.run(&image, "cat /data/kept; ls /data; echo more > /data/kept; cat /data/kept")?;
    assert_eq!(said, "kept\nballast\nkept\nnew\nmore\n");
    Ok(())
}

#[test]
fn what_cannot_be_lazy_is_fetched_and_unpacked_over_us_as_ever() -> Result<()> {
    let pair = Pair::start()?;
    let registry = Registry::start()?;
    let image = registry.push(&shell_and_ballast()?.build()?, "plain", "1")?;
    pair.rpull(&image)?;
    assert_eq!(pair.run(&image, "cat /data/kept; ls /data")?, "kept\nballast\nkept\nnew\n");
    Ok(())
}
