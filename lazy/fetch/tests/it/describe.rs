//! Layers are described from registries that are honest, that lie, and that do not know ranges.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use lazy_fetch::describe::{self, DescribeError, Described, Format, Want};
use lazy_index::zstd_chunked::{self, Dialect};
use lazy_index::{IndexError, Kind, Limits, estargz, soci};
use storage_layer::tar;
use storage_model::{Descriptor, Digest, Reference, media};
use storage_registry::{Client, Config};
use storage_sys::tree::Timestamp;

use crate::common::http::{Answer, Http, Seen, answer, served};

/// What a host has, by digest or tag, and whether it is a manifest.
type Content = Arc<Mutex<HashMap<String, (Vec<u8>, bool)>>>;

/// A registry of what is put into it.
struct Registry {
    http: Http,
    content: Content,
}

/// How a registry answers.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Honest,
    WholeBlobs,
    OneBitWrong,
    HalfOfIt,
}

impl Registry {
    fn start(way: Way) -> Self {
        let content = Content::default();
        let shelf = Arc::clone(&content);
        let http = Http::start(move |seen| reply(seen, &shelf, way));
        Self { http, content }
    }

    fn reference(&self) -> Reference {
        format!("{}/image:tag", self.http.host).parse().unwrap()
    }

    fn put(&self, name: &str, bytes: &[u8], is_manifest: bool) {
        self.content.lock().unwrap().insert(name.to_owned(), (bytes.to_vec(), is_manifest));
    }

    fn layer(&self, media_type: &str, blob: &[u8], annotations: &[(&str, String)]) -> Descriptor {
        let mut layer = Descriptor::of(media_type, blob);
        layer.annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        self.put(&layer.digest.to_string(), blob, false);
        layer
    }

    fn blob_requests(&self) -> usize {
        self.http.requests("/v2/image/blobs/").len()
    }
}

fn reply(seen: &Seen, content: &Content, way: Way) -> Answer {
    let name = seen.path.rsplit('/').next().unwrap();
    let name = name.split('?').next().unwrap();
    let Some((bytes, is_manifest)) = content.lock().unwrap().get(name).cloned() else {
        return answer(if seen.path == "/v2/" { 200 } else { 404 }, &[], b"{}");
    };
    if is_manifest {
        let is_index = bytes.windows(11).any(|window| window == b"\"manifests\"");
        let kind = if is_index { media::OCI_INDEX } else { media::OCI_MANIFEST };
        return answer(200, &[("Content-Type", kind)], &bytes);
    }
    match way {
        Way::Honest => served(seen, &bytes),
        Way::WholeBlobs => answer(200, &[], &bytes),
        Way::OneBitWrong => {
            let mut wrong = bytes;
            let middle = wrong.len() - 200;
            wrong[middle] ^= 1;
            served(seen, &wrong)
        }
        Way::HalfOfIt => {
            let mut cut = served(seen, &bytes);
            cut.bytes.truncate(cut.bytes.len() - 20);
            cut.end = crate::common::http::End::Reset;
            cut
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = tar::Writer::new(Vec::new());
    let entry = tar::Entry {
        name: name.as_bytes().to_vec(),
        kind: tar::EntryKind::File,
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 0, nanoseconds: 0 },
        atime: None,
        xattrs: Vec::new(),
        size: content.len() as u64,
    };
    writer.entry(&entry).unwrap();
    writer.data(content).unwrap();
    writer.finish().unwrap()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// A table with one file, whose member is the blob's first.
fn table(content: &[u8], more: &str) -> String {
    let digest = Digest::of(content);
    format!(
        r#"{{"version":1,"entries":[{{"name":"a","type":"reg","size":{},"digest":"{digest}","chunkDigest":"{digest}","offset":0,"endOffset":{}}}{more}]}}"#,
        content.len(),
        gzip(content).len(),
    )
}

/// An eStargz blob with one file of so many bytes, and the digest of its table.
fn estargz(bytes: usize) -> (Vec<u8>, Digest) {
    let content = noise(bytes);
    let json = table(&content, "");
    let mut blob = gzip(&content);
    let offset = blob.len();
    blob.extend(gzip(&tar_of(estargz::TOC_NAME, json.as_bytes())));
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0]);
    blob.extend(format!("SG\x16\0{offset:016x}STARGZ").bytes());
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    (blob, Digest::of(json.as_bytes()))
}

fn client(config: Config) -> Client {
    Client::new(config).unwrap()
}

fn config() -> Config {
    Config { plain_http: true, ..Config::default() }
}

fn run(registry: &Registry, layer: &Descriptor, want: Want) -> Result<Described, DescribeError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(describe::layer(&client(config()), &registry.reference(), layer, want))
}

fn estargz_layer(registry: &Registry, bytes: usize) -> Descriptor {
    let (blob, toc) = estargz(bytes);
    registry.layer(media::OCI_LAYER_GZIP, &blob, &[(estargz::TOC_DIGEST, toc.to_string())])
}

#[test]
fn an_estargz_layer_is_described_by_one_request() {
    let registry = Registry::start(Way::Honest);
    let layer = estargz_layer(&registry, 500_000);
    let described = run(&registry, &layer, Want::default()).unwrap();
    assert_eq!((described.format, described.requests, registry.blob_requests()), (Format::Estargz, 1, 1));
    assert!(described.bytes_fetched < 40_000, "{}", described.bytes_fetched);
    let names: Vec<_> = described.toc.entries.iter().map(|entry| entry.path.to_vec()).collect();
    // Unpacking gives the table as a file as well.
    assert_eq!(names, [b"a".to_vec(), estargz::TOC_NAME.as_bytes().to_vec()]);
    let Kind::File { size, digest, .. } = described.toc.entries[1].kind else { panic!("no file") };
    assert_eq!(digest.unwrap().to_string(), layer.annotations[estargz::TOC_DIGEST]);
    let chunk = described.toc.chunks[1];
    assert_eq!((chunk.length, chunk.inner_offset, described.toc.entries[1].mode), (size, 512, 0o444));
}

#[test]
fn a_table_longer_than_the_guess_takes_one_request_more() {
    let registry = Registry::start(Way::Honest);
    let content = noise(100_000);
    let more: String = (0..2000)
        .map(|n| format!(r#",{{"name":"{n}{}","type":"dir"}}"#, Digest::of(&u32::to_le_bytes(n))))
        .collect();
    let json = table(&content, &more);
    let mut blob = gzip(&content);
    let offset = blob.len();
    blob.extend(gzip(&tar_of(estargz::TOC_NAME, json.as_bytes())));
    assert!(blob.len() - offset > 33_000);
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0]);
    blob.extend(format!("SG\x16\0{offset:016x}STARGZ").bytes());
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    let toc = Digest::of(json.as_bytes()).to_string();
    let layer = registry.layer(media::OCI_LAYER_GZIP, &blob, &[(estargz::TOC_DIGEST, toc)]);
    let described = run(&registry, &layer, Want::default()).unwrap();
    assert_eq!((described.requests, described.toc.entries.len()), (2, 2002));
    assert_eq!(described.bytes_fetched, (blob.len() - offset) as u64);
}

#[test]
fn l6_without_a_digest_in_the_manifest_no_table_is_believed() {
    let registry = Registry::start(Way::Honest);
    let (blob, _) = estargz(1000);
    let layer = registry.layer(
        media::OCI_LAYER_GZIP,
        &blob,
        &[("containerd.io/snapshot/remote/stargz.skipverify", "true".to_owned())],
    );
    let described = run(&registry, &layer, Want::default()).unwrap();
    assert_eq!((described.format, registry.blob_requests()), (Format::Opaque, 0));
}

#[test]
fn a_table_that_is_not_the_manifests_is_refused() {
    let registry = Registry::start(Way::Honest);
    let (blob, _) = estargz(1000);
    let other = Digest::of(b"another").to_string();
    let layer = registry.layer(media::OCI_LAYER_GZIP, &blob, &[(estargz::TOC_DIGEST, other)]);
    assert!(matches!(run(&registry, &layer, Want::default()), Err(DescribeError::WrongDigest { .. })));
    let layer =
        registry.layer(media::OCI_LAYER_GZIP, &blob, &[(estargz::TOC_DIGEST, "sha256:12".to_owned())]);
    assert!(matches!(run(&registry, &layer, Want::default()), Err(DescribeError::Annotation { .. })));
    let plain = gzip(&noise(100_000));
    let layer =
        registry.layer(media::OCI_LAYER_GZIP, &plain, &[(estargz::TOC_DIGEST, Digest::of(b"").to_string())]);
    assert!(matches!(run(&registry, &layer, Want::default()), Err(DescribeError::NoTable { .. })));
}

#[test]
fn l7_a_mirror_that_sends_wrong_bytes_is_left_for_the_registry() {
    let (registry, liar) = (Registry::start(Way::Honest), Registry::start(Way::OneBitWrong));
    let layer = estargz_layer(&registry, 200_000);
    *liar.content.lock().unwrap() = registry.content.lock().unwrap().clone();
    let directory = tempfile::tempdir().unwrap();
    let host = &registry.http.host;
    let folder = directory.path().join(host);
    std::fs::create_dir(&folder).unwrap();
    let hosts = format!(
        "server = \"http://{host}\"\n[host.\"http://{}\"]\n  capabilities = [\"pull\"]\n",
        liar.http.host
    );
    std::fs::write(folder.join("hosts.toml"), hosts).unwrap();
    let config = Config { hosts_dir: vec![directory.path().to_owned()], ..config() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let described =
        runtime.block_on(describe::layer(&client(config), &registry.reference(), &layer, Want::default()));
    assert_eq!(described.unwrap().toc.entries.len(), 2);
    assert!(liar.blob_requests() > 0 && registry.blob_requests() > 0);
}

#[test]
fn c12_a_host_that_sends_whole_blobs_is_read_through_if_the_blob_is_small() {
    let registry = Registry::start(Way::WholeBlobs);
    let layer = estargz_layer(&registry, 300_000);
    assert_eq!(run(&registry, &layer, Want::default()).unwrap().toc.entries.len(), 2);
    let large = estargz_layer(&registry, 9 << 20);
    assert!(matches!(run(&registry, &large, Want::default()), Err(DescribeError::NoRanges { .. })));
}

#[test]
fn c12_a_host_that_never_sends_all_of_it_is_given_up() {
    let registry = Registry::start(Way::HalfOfIt);
    let layer = estargz_layer(&registry, 1000);
    assert!(run(&registry, &layer, Want::default()).is_err());
    assert!(registry.blob_requests() <= 9);
}

#[test]
fn l3_a_table_that_grows_past_the_limit_is_not_read() {
    let registry = Registry::start(Way::Honest);
    let content = noise(1000);
    // 8 MiB of JSON from 8 kB.
    let json =
        table(&content, &format!(r#",{{"name":"b","type":"dir","userName":"{}"}}"#, " ".repeat(8 << 20)));
    let coded = zstd::bulk::compress(json.as_bytes(), 3).unwrap();
    let small = Limits { toc_bytes_max: 1 << 20, toc_coded_bytes_max: 1 << 20, ..Limits::default() };
    let layer = podman_layer(&registry, &content, &coded, json.len(), OWN);
    let refused = run(&registry, &layer, Want { limits: small, ..Want::default() });
    assert!(matches!(refused, Err(DescribeError::Index { source: IndexError::Limit { .. }, .. })));
    let none = Limits { toc_coded_bytes_max: 100, ..Limits::default() };
    let before = registry.blob_requests();
    let refused = run(&registry, &layer, Want { limits: none, ..Want::default() });
    assert!(matches!(refused, Err(DescribeError::Index { source: IndexError::Limit { .. }, .. })));
    assert_eq!(registry.blob_requests(), before);
}

/// Annotations of the checksum and the position.
type Names = (&'static str, &'static str);

const OWN: Names = (zstd_chunked::CONTAINERS_CHECKSUM, zstd_chunked::CONTAINERS_POSITION);
const OLD: Names = (zstd_chunked::STARGZ_CHECKSUM, zstd_chunked::STARGZ_POSITION);

/// A layer in podman's dialect: one frame, then the table.
fn podman_layer(registry: &Registry, content: &[u8], coded: &[u8], bytes: usize, names: Names) -> Descriptor {
    let mut blob = zstd::bulk::compress(content, 3).unwrap();
    blob.resize(blob.len().max(gzip(content).len()), 0);
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend((coded.len() as u32).to_le_bytes());
    let offset = blob.len();
    blob.extend(coded);
    let position = format!("{offset}:{}:{bytes}:1", coded.len());
    let annotations = [(names.0, Digest::of(coded).to_string()), (names.1, position)];
    registry.layer(media::OCI_LAYER_ZSTD, &blob, &annotations)
}

#[test]
fn podmans_tables_are_fetched_exactly_under_both_names() {
    let registry = Registry::start(Way::Honest);
    let content = noise(90_000);
    let json = table(&content, "");
    let coded = zstd::bulk::compress(json.as_bytes(), 3).unwrap();
    for names in [OWN, OLD] {
        let layer = podman_layer(&registry, &content, &coded, json.len(), names);
        let described = run(&registry, &layer, Want::default()).unwrap();
        assert_eq!(described.format, Format::ZstdChunked(Dialect::Containers));
        assert_eq!((described.bytes_fetched, described.requests), (coded.len() as u64, 1));
    }
}

#[test]
fn stargzs_zstd_is_found_with_and_without_its_position() {
    let registry = Registry::start(Way::Honest);
    let content = noise(90_000);
    let json = table(&content, "");
    let coded = zstd::bulk::compress(json.as_bytes(), 3).unwrap();
    let mut blob = zstd::bulk::compress(&content, 3).unwrap();
    let frame = |blob: &mut Vec<u8>, payload: &[u8]| {
        blob.extend([0x50, 0x2a, 0x4d, 0x18]);
        blob.extend((payload.len() as u32).to_le_bytes());
        blob.extend(payload);
    };
    let offset = blob.len() as u64 + 8;
    frame(&mut blob, &coded);
    let numbers = [offset, coded.len() as u64, json.len() as u64, 1];
    let footer: Vec<u8> =
        numbers.iter().flat_map(|number| number.to_le_bytes()).chain(*b"GnUlInUx").collect();
    frame(&mut blob, &footer);
    let toc = (estargz::TOC_DIGEST, Digest::of(json.as_bytes()).to_string());
    let position = (zstd_chunked::STARGZ_POSITION, format!("{offset}:{}:{}:1", coded.len(), json.len()));
    for annotations in [vec![toc.clone()], vec![toc, position]] {
        let layer = registry.layer(media::OCI_LAYER_ZSTD, &blob, &annotations);
        let described = run(&registry, &layer, Want::default()).unwrap();
        assert_eq!((described.format, described.requests), (Format::ZstdChunked(Dialect::Stargz), 1));
    }
}

#[test]
fn a_table_kept_beside_the_image_is_found_by_its_tag() {
    let registry = Registry::start(Way::Honest);
    let content = noise(5000);
    let json = table(&content, "");
    let mut blob = gzip(&content);
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 21, 0]);
    blob.extend(b"SG\x11\0STARGZEXTERNALTOC");
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    let toc = Digest::of(json.as_bytes()).to_string();
    let layer = registry.layer(media::OCI_LAYER_GZIP, &blob, &[(estargz::TOC_DIGEST, toc)]);
    assert!(run(&registry, &layer, Want::default()).is_err());
    let archive = gzip(&tar_of(estargz::TOC_NAME, json.as_bytes()));
    let beside = registry.layer(
        media::OCI_LAYER_GZIP,
        &archive,
        &[(estargz::EXTERNAL_LAYER_DIGEST, layer.digest.to_string())],
    );
    let config = registry.layer(media::OCI_CONFIG, b"{}", &[]);
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": [beside],
    }));
    let manifest = manifest.unwrap();
    registry.put("tag-esgztoc", &manifest, true);
    registry.put(&Digest::of(&manifest).to_string(), &manifest, true);
    let described = run(&registry, &layer, Want::default()).unwrap();
    assert_eq!((described.format, described.toc.entries.len()), (Format::EstargzOutside, 1));
}

#[test]
fn socis_index_is_found_by_the_manifest_and_by_its_tag() {
    let registry = Registry::start(Way::Honest);
    let (layer, image) = (Digest::of(b"layer"), Descriptor::of(media::OCI_MANIFEST, b"image"));
    let mut ztoc = Descriptor::of("application/octet-stream", b"ztoc");
    ztoc.annotations.insert(soci::LAYER_DIGEST.to_owned(), layer.to_string());
    let index = |kind: &str, subject: Option<&Descriptor>| {
        let config = Descriptor::of(kind, b"{}");
        let mut index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": kind, "config": config, "layers": [ztoc],
        });
        if let Some(subject) = subject {
            index["subject"] = serde_json::to_value(subject).unwrap();
        }
        serde_json::to_vec(&index).unwrap()
    };
    let ask = |annotations: &[(&str, String)]| {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(describe::soci(&client(config()), &registry.reference(), &image, &annotations))
    };
    assert!(ask(&[]).unwrap().is_empty());
    let two = index(soci::INDEX_V2, None);
    registry.put(&Digest::of(&two).to_string(), &two, true);
    let found = ask(&[(soci::INDEX_DIGEST, Digest::of(&two).to_string())]).unwrap();
    assert!(found[&layer].bound && found[&layer].ztoc.digest == ztoc.digest);
    let one = index(soci::INDEX_V1, Some(&image));
    registry.put(&Digest::of(&one).to_string(), &one, true);
    let tag = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_INDEX,
        "manifests": [{"mediaType": media::OCI_MANIFEST, "digest": Digest::of(&one), "size": one.len(), "artifactType": soci::INDEX_V1}],
    });
    registry.put(&format!("sha256-{}", image.digest.hex()), &serde_json::to_vec(&tag).unwrap(), true);
    let found = ask(&[]).unwrap();
    assert!(!found[&layer].bound);
    assert!(ask(&[(soci::INDEX_DIGEST, Digest::of(b"missing").to_string())]).is_err());
}
