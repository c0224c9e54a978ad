//! OCI images made in memory: as a layout on disk for other tools, as blobs and a manifest for a registry.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use storage_model::{Compression, Descriptor, Digest, media};

use crate::tar::{Entry, Kind, Tar};

/// An image that is complete: its documents and its blobs.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest or index itself.
    pub root: Descriptor,
    /// Manifests below an index, in order, with their bytes.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
    /// Bytes of the root document.
    pub document: Vec<u8>,
    /// Config and layers.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Digests of the layers, lowest first.
    pub layers: Vec<Digest>,
}

impl Image {
    /// Writes the image as an OCI image layout whose only tag is `latest`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write_layout(&self, directory: &Path) -> Result<()> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let documents = self.manifests.iter().map(|(descriptor, bytes)| (&descriptor.digest, bytes));
        for (digest, bytes) in self.blobs.iter().chain(documents).chain([(&self.root.digest, &self.document)])
        {
            fs::write(blobs.join(digest.hex()), bytes)?;
        }
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": self.root.media_type, "digest": self.root.digest.to_string(), "size": self.root.size,
            "annotations": {"org.opencontainers.image.ref.name": "latest"}}]});
        fs::write(directory.join("index.json"), index.to_string())?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .context("the layout's marker")
    }
}

/// An image being put together, layer by layer.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Compression)>,
    process: Value,
    platform: (String, String),
    docker: bool,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        let host = storage_model::Platform::host();
        Self {
            layers: Vec::new(),
            process: json!({"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}),
            platform: (host.os, host.architecture),
            docker: false,
        }
    }
}

impl ImageBuilder {
    /// With one more layer on top.
    #[must_use]
    pub fn layer(mut self, entries: impl IntoIterator<Item = Entry>, compression: Compression) -> Self {
        self.layers.push((Tar::of(entries).finish(), compression));
        self
    }

    /// With one more layer on top, gzip compressed, from the bytes of an archive.
    #[must_use]
    pub fn raw_layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push((tar, Compression::Gzip));
        self
    }

    /// With a layer that holds a static busybox under its usual names: enough to run commands.
    ///
    /// # Errors
    /// Debian's `busybox-static` is not installed.
    pub fn busybox(self) -> Result<Self> {
        let binary = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
        let binary = binary.context("there is no busybox here: apt-get install busybox-static")?;
        let mut entries = vec![
            Entry::directory("bin/"),
            Entry::directory("etc/"),
            Entry::directory("root/").mode(0o700),
            Entry::directory("home/"),
            Entry::directory("home/web/").owner(1000, 1000),
            Entry::directory("tmp/").mode(0o1777),
            Entry::file("bin/busybox", binary).mode(0o755),
            Entry::file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"),
            Entry::file("etc/group", "root:x:0:\nweb:x:1000:\naudio:x:29:web\n"),
        ];
        for name in [
            "sh", "awk", "cat", "echo", "env", "false", "grep", "id", "kill", "ls", "pwd", "seq", "sleep",
            "stty", "test", "touch", "true", "tty", "wc",
        ] {
            entries.push(Entry::new(format!("bin/{name}"), Kind::Symlink("busybox".to_owned())).mode(0o777));
        }
        Ok(self.layer(entries, Compression::Gzip))
    }

    /// With a config whose `config` object is this (`Env`, `Cmd`, `User`, ...).
    #[must_use]
    pub fn process(mut self, process: Value) -> Self {
        self.process = process;
        self
    }

    /// For another platform than this machine's.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.platform = (os.to_owned(), architecture.to_owned());
        self
    }

    /// With Docker's media types instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The same image with every layer compressed by gzip, for tools that know no other.
    #[must_use]
    pub fn all_gzip(mut self) -> Self {
        self.layers.iter_mut().for_each(|(_, compression)| *compression = Compression::Gzip);
        self
    }

    /// The archives of its layers, lowest first, uncompressed.
    pub fn tars(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().map(|(tar, _)| tar.as_slice())
    }

    /// The `config` object of its config.
    pub fn config(&self) -> &Value {
        &self.process
    }

    /// The finished image.
    ///
    /// # Errors
    /// A layer cannot be compressed.
    pub fn build(&self) -> Result<Image> {
        let mut blobs = BTreeMap::new();
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (tar, compression) in &self.layers {
            let blob = compress(tar, *compression)?;
            let descriptor = Descriptor::of(self.layer_type(*compression), &blob);
            diff_ids.push(Digest::of(tar).to_string());
            blobs.insert(descriptor.digest, blob);
            layers.push(descriptor);
        }
        let (manifest_type, config_type) = if self.docker {
            (media::DOCKER_MANIFEST, media::DOCKER_CONFIG)
        } else {
            (media::OCI_MANIFEST, media::OCI_CONFIG)
        };
        let config = json!({"architecture": self.platform.1, "os": self.platform.0, "config": self.process,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes();
        let config_descriptor = Descriptor::of(config_type, &config);
        blobs.insert(config_descriptor.digest, config);
        let document = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config_descriptor, "layers": layers})
            .to_string()
            .into_bytes();
        let root = Descriptor::of(manifest_type, &document);
        let layers = layers.iter().map(|layer| layer.digest).collect();
        Ok(Image { root, manifests: Vec::new(), document, blobs, layers })
    }

    fn layer_type(&self, compression: Compression) -> &'static str {
        match (self.docker, compression) {
            (false, Compression::Gzip) => media::OCI_LAYER_GZIP,
            (false, Compression::Zstd) => media::OCI_LAYER_ZSTD,
            (false, Compression::None) => media::OCI_LAYER,
            (true, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
            (true, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
            (true, Compression::None) => media::DOCKER_LAYER,
        }
    }
}

/// An index over images of several platforms, given as (os, architecture, image).
pub fn index_of(images: &[(&str, &str, &Image)]) -> Image {
    let mut blobs = BTreeMap::new();
    let (mut manifests, mut entries) = (Vec::new(), Vec::new());
    for (os, architecture, image) in images {
        blobs.extend(image.blobs.clone());
        manifests.push((image.root.clone(), image.document.clone()));
        entries.push(json!({"mediaType": image.root.media_type, "digest": image.root.digest.to_string(),
            "size": image.root.size, "platform": {"os": os, "architecture": architecture}}));
    }
    let document = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes();
    let root = Descriptor::of(media::OCI_INDEX, &document);
    Image { root, manifests, document, blobs, layers: Vec::new() }
}

fn compress(tar: &[u8], compression: Compression) -> Result<Vec<u8>> {
    Ok(match compression {
        Compression::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(tar)?;
            gzip.finish()?
        }
        Compression::Zstd => zstd::encode_all(tar, 3)?,
        Compression::None => tar.to_vec(),
    })
}
