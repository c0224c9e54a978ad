//! One layer: which format its manifest promises, and what is fetched for it.

use lazy_index::zstd_chunked::{self, Dialect, Position};
use lazy_index::{Digest, IndexError, Toc, estargz};
use storage_model::{Compression, Descriptor, LayerKind, Reference, media};
use storage_registry::{Client, RegistryError};

use super::ask::{Ask, Part};
use super::table::{self, Fault, Of};
use super::{DescribeError, Described, Format, Want, outside};

/// Most hosts whose bytes are tried before a layer is given up.
const SOURCES_MAX: usize = 3;
/// Fewest bytes of a blob's end that are asked for.
const TAIL_BYTES_MIN: u64 = 32 << 10;
/// A table is about one part in so many of its blob, or less.
const TAIL_PART: u64 = 64;

/// What the manifest promises of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Estargz { json: Digest },
    Containers { coded: Digest, position: Position },
    Stargz { json: Digest, position: Option<Position> },
}

/// Describes a layer by what its descriptor in the manifest promises, fetching its table of contents and nothing else.
///
/// # Errors
/// [`DescribeError`]; a layer whose manifest promises nothing is no error but [`Format::Opaque`].
///
/// Cancel safety: nothing is left behind.
pub async fn layer(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    want: Want,
) -> Result<Described, DescribeError> {
    let Some(promise) = promise(descriptor)? else { return Ok(Described::opaque()) };
    let mut ask = Ask::new(client, reference, descriptor, want);
    let mut wrong = None;
    loop {
        match promise.keep(&mut ask).await {
            Ok((toc, format)) => {
                let Ask { bytes_fetched, requests, .. } = ask;
                return Ok(Described { toc, format, bytes_fetched, requests });
            }
            // Every place that could be asked has lied: that is the news.
            Err(Failed {
                error: DescribeError::Registry { source: RegistryError::NoHost { .. }, .. },
                ..
            }) if wrong.is_some() => {
                return Err(wrong.expect("checked to be there"));
            }
            Err(Failed { error, source: Some(source) })
                if error.is_hosts_fault() && ask.avoid.len() + 1 < SOURCES_MAX =>
            {
                tracing::warn!(layer = %descriptor.digest, %error, "asking another host");
                ask.avoid.push(source);
                wrong = Some(error);
            }
            Err(Failed { error, .. }) => return Err(error),
        }
    }
}

/// Reads the promise of a layer's media type and annotations; `None` if there is none.
fn promise(layer: &Descriptor) -> Result<Option<Promise>, DescribeError> {
    if layer.size == 0 {
        return Ok(None);
    }
    match media::layer_kind(&layer.media_type) {
        LayerKind::Tar(Compression::Gzip) => {
            Ok(digest(layer, estargz::TOC_DIGEST)?.map(|json| Promise::Estargz { json }))
        }
        LayerKind::Tar(Compression::Zstd) => {
            let json = digest(layer, estargz::TOC_DIGEST)?;
            if let Some((coded, position)) = podmans(layer, json.is_some())? {
                return Ok(Some(Promise::Containers { coded, position }));
            }
            let position = position(layer, zstd_chunked::STARGZ_POSITION)?;
            Ok(json.map(|json| Promise::Stargz { json, position }))
        }
        _ => Ok(None),
    }
}

/// What podman's annotations say: under their own names, or under those that stargz has kept, if stargz's digest is not there.
fn podmans(layer: &Descriptor, is_stargzs: bool) -> Result<Option<(Digest, Position)>, DescribeError> {
    let own = (zstd_chunked::CONTAINERS_CHECKSUM, zstd_chunked::CONTAINERS_POSITION);
    let old = (zstd_chunked::STARGZ_CHECKSUM, zstd_chunked::STARGZ_POSITION);
    for (checksum, place) in if is_stargzs { vec![own] } else { vec![own, old] } {
        if let (Some(coded), Some(position)) = (digest(layer, checksum)?, position(layer, place)?) {
            return Ok(Some((coded, position)));
        }
    }
    Ok(None)
}

fn digest(layer: &Descriptor, name: &'static str) -> Result<Option<Digest>, DescribeError> {
    let Some(text) = layer.annotations.get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| annotation(layer, name, text, "digest"))
}

fn position(layer: &Descriptor, name: &'static str) -> Result<Option<Position>, DescribeError> {
    let Some(text) = layer.annotations.get(name) else { return Ok(None) };
    let position = Position::from_annotation(text, layer.size);
    position.map(Some).map_err(|_| annotation(layer, name, text, "place of a table inside the layer"))
}

fn annotation(layer: &Descriptor, name: &'static str, value: &str, expected: &'static str) -> DescribeError {
    let value = value.chars().take(128).collect();
    DescribeError::Annotation { layer: layer.digest, name, value, expected }
}

/// A failure, and the source whose bytes led to it.
pub(super) struct Failed {
    pub(super) error: DescribeError,
    pub(super) source: Option<String>,
}

impl From<DescribeError> for Failed {
    fn from(error: DescribeError) -> Self {
        Self { error, source: None }
    }
}

impl Promise {
    async fn keep(self, ask: &mut Ask<'_>) -> Result<(Toc, Format), Failed> {
        match self {
            Self::Estargz { json } => end_of_estargz(ask, json).await,
            Self::Containers { coded, position } => {
                let part = exactly(ask, position).await?;
                zstd(ask, part, coded, Dialect::Containers, position).await
            }
            Self::Stargz { json, position: Some(position) } => {
                let part = exactly(ask, position).await?;
                zstd(ask, part, json, Dialect::Stargz, position).await
            }
            Self::Stargz { json, position: None } => end_of_zstd(ask, json).await,
        }
    }
}

/// The end of a blob that may have its table.
struct Tail {
    part: Part,
    /// Where it begins in the blob.
    start: u64,
}

async fn tail(ask: &mut Ask<'_>) -> Result<Tail, DescribeError> {
    let size = ask.layer.size;
    let most = ask.want.tail_bytes_max.max(TAIL_BYTES_MIN);
    let start = size - size.min((size / TAIL_PART).clamp(TAIL_BYTES_MIN, most));
    Ok(Tail { part: ask.range(start..size).await?, start })
}

impl Tail {
    /// The bytes `from..to` of the blob, the first of them fetched if they are not there. `to` must be inside the tail.
    async fn cut(mut self, ask: &mut Ask<'_>, from: u64, to: u64) -> Result<Part, DescribeError> {
        let end = usize::try_from(to - self.start).unwrap_or(usize::MAX);
        self.part.bytes.truncate(end);
        if from < self.start {
            let mut head = ask.range(from..self.start).await?;
            head.bytes.append(&mut self.part.bytes);
            return Ok(head);
        }
        let skip = usize::try_from(from - self.start).unwrap_or(usize::MAX).min(self.part.bytes.len());
        self.part.bytes.drain(..skip);
        Ok(self.part)
    }

    fn no_table(&self, ask: &Ask<'_>, source: IndexError) -> Failed {
        let error = DescribeError::NoTable { layer: ask.layer.digest, host: self.part.host.clone(), source };
        Failed { error, source: Some(self.part.source.clone()) }
    }
}

async fn end_of_estargz(ask: &mut Ask<'_>, json: Digest) -> Result<(Toc, Format), Failed> {
    let tail = tail(ask).await?;
    let size = ask.layer.size;
    let footer =
        estargz::Footer::parse(&tail.part.bytes, size).map_err(|source| tail.no_table(ask, source))?;
    let (toc_offset, end) = match footer {
        estargz::Footer::Inside { toc_offset, footer_bytes } => (toc_offset, size - footer_bytes),
        estargz::Footer::Outside { footer_bytes } => {
            return outside::toc(ask, json, size - footer_bytes)
                .await
                .map(|toc| (toc, Format::EstargzOutside));
        }
    };
    affordable(ask, end - toc_offset)?;
    let part = tail.cut(ask, toc_offset, end).await?;
    let toc = read(ask, part, json, move |bytes, of| table::estargz(bytes, toc_offset, of)).await?;
    Ok((toc, Format::Estargz))
}

async fn end_of_zstd(ask: &mut Ask<'_>, json: Digest) -> Result<(Toc, Format), Failed> {
    let tail = tail(ask).await?;
    let found = Position::from_footer(&tail.part.bytes, ask.layer.size);
    let (dialect, position) = found.map_err(|source| tail.no_table(ask, source))?;
    if dialect != Dialect::Stargz {
        let reason = "its footer is podman's, its annotations are stargz's";
        return Err(tail.no_table(ask, IndexError::Format { what: "zstd:chunked layer", reason }));
    }
    affordable(ask, position.coded_bytes)?;
    let part = tail.cut(ask, position.offset, position.offset + position.coded_bytes).await?;
    zstd(ask, part, json, dialect, position).await
}

async fn exactly(ask: &mut Ask<'_>, position: Position) -> Result<Part, DescribeError> {
    affordable(ask, position.coded_bytes)?;
    ask.range(position.offset..position.offset + position.coded_bytes).await
}

async fn zstd(
    ask: &Ask<'_>,
    part: Part,
    expected: Digest,
    dialect: Dialect,
    position: Position,
) -> Result<(Toc, Format), Failed> {
    let end = position.payload_end();
    let toc =
        read(ask, part, expected, move |bytes, of| table::zstd_chunked(bytes, dialect, end, of)).await?;
    Ok((toc, Format::ZstdChunked(dialect)))
}

/// Refuses to fetch a table larger than the limit (row L3).
fn affordable(ask: &Ask<'_>, coded_bytes: u64) -> Result<(), DescribeError> {
    let (actual, limit) = (coded_bytes, ask.want.limits.toc_coded_bytes_max);
    if actual <= limit {
        return Ok(());
    }
    let source = IndexError::Limit { what: "compressed bytes of the table of contents", actual, limit };
    Err(DescribeError::Index { layer: ask.layer.digest, source })
}

/// Reads a table away from the threads that serve the network: it may take a second.
pub(super) async fn read(
    ask: &Ask<'_>,
    part: Part,
    expected: Digest,
    reader: impl FnOnce(&[u8], Of) -> Result<Toc, Fault> + Send + 'static,
) -> Result<Toc, Failed> {
    let (layer, limits) = (ask.layer.digest, ask.want.limits);
    let of = Of { blob_bytes: ask.layer.size, expected, limits };
    let Part { bytes, host, source } = part;
    let read = tokio::task::spawn_blocking(move || reader(&bytes, of)).await;
    let error = match read {
        Ok(Ok(toc)) => return Ok(toc),
        Ok(Err(Fault::Coding(source))) => DescribeError::Coding { layer, host, source },
        Ok(Err(Fault::Digest { expected, actual })) => {
            DescribeError::WrongDigest { layer, host, expected, actual }
        }
        Ok(Err(Fault::Around(source))) => DescribeError::NoTable { layer, host, source },
        Ok(Err(Fault::Index(source))) => DescribeError::Index { layer, source },
        Err(_) => DescribeError::Interrupted { layer },
    };
    Err(Failed { error, source: Some(source) })
}
