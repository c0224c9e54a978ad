//! Pushing: to a real registry, to one that troubles each step, and what may not leak on the way.

use std::io::Cursor;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use storage_model::{Descriptor, Digest, Reference, media};
use storage_registry::{Client, Config, Credentials, Progress, Pushed, RegistryError};

use crate::common::fault::{Fault, Reply};
use crate::common::files::Certificates;
use crate::common::registry::Registry;
use crate::common::sink::{Sink, Trouble};
use crate::common::{config, content, drain, layer, reference, words};

/// Parts of 64 KiB: a blob of 200 kB takes four.
const PART: u64 = 64 * 1024;

fn parted() -> Config {
    Config { upload_part_bytes: PART, ..config() }
}

fn quiet() -> Progress {
    Arc::new(|_| ())
}

async fn push(client: &Client, name: &Reference, bytes: &bytes::Bytes) -> Result<Pushed, RegistryError> {
    let source = || Ok(Cursor::new(bytes.clone()));
    client.push_blob(name, &layer(bytes), source, &[], quiet()).await
}

async fn push_to(sink: &Sink, bytes: &bytes::Bytes) -> Result<Pushed, RegistryError> {
    let client = Client::new(parted()).unwrap();
    push(&client, &reference(&format!("{}/a", sink.address)), bytes).await
}

fn stored(sink: &Sink, bytes: &[u8]) -> bool {
    let state = sink.state.lock().unwrap();
    state.blobs.get(&Digest::of(bytes).to_string()).is_some_and(|kept| kept == bytes)
}

#[tokio::test]
async fn an_image_pushed_to_a_real_registry_comes_back_and_is_not_sent_twice() {
    let registry = Registry::start(Some(("alice", "hunter2")), None);
    let login = Some(Credentials::password("alice", "hunter2"));
    let client = Client::new(Config { credentials: login, ..parted() }).unwrap();
    let name = reference(&format!("{}/some/image:v1", registry.host()));
    let (large, small) = (content(1_000_000), content(1000));
    assert!(!client.has_blob(&name, &layer(&large)).await.unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let progress: Progress = Arc::new(move |at| kept.lock().unwrap().push(at));
    let source = || Ok(Cursor::new(large.clone()));
    let pushed = client.push_blob(&name, &layer(&large), source, &[], progress).await;
    assert_eq!(pushed.unwrap(), Pushed::Sent);
    assert_eq!(seen.lock().unwrap().last(), Some(&1_000_000));
    assert!(seen.lock().unwrap().is_sorted());
    for bytes in [&small, &bytes::Bytes::new()] {
        assert_eq!(push(&client, &name, bytes).await.unwrap(), Pushed::Sent);
        assert_eq!(push(&client, &name, bytes).await.unwrap(), Pushed::Existed);
    }
    assert!(client.has_blob(&name, &layer(&large)).await.unwrap());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": Descriptor::of(media::OCI_CONFIG, &small), "layers": [layer(&large)],
    });
    let manifest = bytes::Bytes::from(manifest.to_string());
    let digest = Digest::of(&manifest);
    assert!(!client.has_manifest(&name, &digest).await.unwrap());
    assert_eq!(client.push_manifest(&name, media::OCI_MANIFEST, manifest.clone()).await.unwrap(), digest);
    assert!(client.has_manifest(&name, &digest).await.unwrap());
    assert!(!client.has_manifest(&name, &Digest::of(b"other")).await.unwrap());
    assert_eq!(client.resolve(&name).await.unwrap().bytes.as_ref(), Some(&manifest));
    assert_eq!(drain(client.blob(&name, &layer(&large), 0).await.unwrap()).await.unwrap(), large);
    // The same blob in another repository of the registry: nothing is sent.
    let other = reference(&format!("{}/another", registry.host()));
    let source = || -> std::io::Result<Cursor<Vec<u8>>> { panic!("a mounted blob is not read") };
    let from = ["no/such".to_owned(), "some/image".to_owned()];
    let mounted = client.push_blob(&other, &layer(&large), source, &from, quiet()).await.unwrap();
    assert_eq!(mounted, Pushed::Mounted("some/image".to_owned()));
}

#[tokio::test]
async fn a_manifest_before_its_blobs_is_the_registrys_error_in_its_words() {
    let registry = Registry::start(None, None);
    let client = Client::new(config()).unwrap();
    let name = reference(&format!("{}/a:v1", registry.host()));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": Descriptor::of(media::OCI_CONFIG, b"{}"), "layers": [],
    });
    let pushed = client.push_manifest(&name, media::OCI_MANIFEST, manifest.to_string().into()).await;
    let error = pushed.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Status { code, .. } if code == "MANIFEST_BLOB_UNKNOWN"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_push_to_a_registry_of_this_machine_that_speaks_tls_finds_out() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let registry = Registry::start(None, Some(&certificates));
    let client = Client::new(Config { ca_files: Vec::new(), ..parted() }).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    let error = push(&client, &name, &content(10)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    let client = Client::new(Config { ca_files: vec![certificates.authority()], ..parted() }).unwrap();
    assert_eq!(push(&client, &name, &content(200_000)).await.unwrap(), Pushed::Sent);
}

#[tokio::test]
async fn small_blobs_go_whole_and_large_ones_in_parts() {
    let sink = Sink::start([]).await;
    push_to(&sink, &content(16_000)).await.unwrap();
    assert_eq!((sink.asked("POST"), sink.asked("PATCH"), sink.asked("PUT")), (1, 0, 1));
    push_to(&sink, &content(200_000)).await.unwrap();
    assert_eq!((sink.asked("POST"), sink.asked("PATCH"), sink.asked("PUT")), (2, 4, 2));
    assert!(stored(&sink, &content(16_000)) && stored(&sink, &content(200_000)));
    assert_eq!(sink.state.lock().unwrap().received, 216_000);
}

#[tokio::test]
async fn a_part_cut_off_is_continued_at_the_byte_the_registry_has() {
    let bytes = content(200_000);
    let sink = Sink::start([Trouble::None, Trouble::Cut(50_000), Trouble::Cut(60_001)]).await;
    assert_eq!(push_to(&sink, &bytes).await.unwrap(), Pushed::Sent);
    assert!(stored(&sink, &bytes));
    // The sink keeps what arrived before a cut: no byte came twice.
    assert_eq!((sink.asked("GET"), sink.state.lock().unwrap().received), (2, 200_000));
}

#[tokio::test]
async fn a_registry_that_takes_no_parts_gets_the_blob_whole() {
    let sink = Sink::start([]).await;
    sink.state.lock().unwrap().whole_only = true;
    let bytes = content(200_000);
    assert_eq!(push_to(&sink, &bytes).await.unwrap(), Pushed::Sent);
    assert!(stored(&sink, &bytes));
    assert_eq!((sink.asked("PATCH"), sink.asked("PUT")), (1, 1));
}

#[tokio::test]
async fn a_registrys_least_part_is_obeyed_and_a_proxys_largest_is_found() {
    let bytes = content(4_500_000);
    let name = |sink: &Sink| reference(&format!("{}/a", sink.address));
    let sink = Sink::start([]).await;
    sink.state.lock().unwrap().least = Some(1_000_000);
    push(&Client::new(parted()).unwrap(), &name(&sink), &bytes).await.unwrap();
    assert_eq!(sink.asked("PATCH"), 5);
    let sink = Sink::start([]).await;
    sink.state.lock().unwrap().body_max = Some(2 << 20);
    let client = Client::new(Config { upload_part_bytes: 8 << 20, ..config() }).unwrap();
    push(&client, &name(&sink), &bytes).await.unwrap();
    // 4.5 MB and 4 MiB are refused, then three parts of 2 MiB go.
    assert!(stored(&sink, &bytes));
    assert_eq!(sink.asked("PATCH"), 5);
}

#[tokio::test]
async fn a_finished_blob_whose_answer_got_lost_is_finished() {
    let bytes = content(200_000);
    let lost = [[Trouble::None; 5].as_slice(), &[Trouble::Lost]].concat();
    let sink = Sink::start(lost).await;
    push_to(&sink, &bytes).await.unwrap();
    assert!(stored(&sink, &bytes));
    assert_eq!((sink.asked("PATCH"), sink.state.lock().unwrap().received), (4, 200_000));
}

#[tokio::test]
async fn a_damaged_local_copy_is_refused_by_the_registry_and_named() {
    let sink = Sink::start([]).await;
    let client = Client::new(parted()).unwrap();
    let name = reference(&format!("{}/a", sink.address));
    for length in [1000, 200_000] {
        let (right, wrong) = (content(length), bytes::Bytes::from(vec![7; length]));
        let source = || Ok(Cursor::new(wrong.clone()));
        let pushed = client.push_blob(&name, &layer(&right), source, &[], quiet()).await;
        let error = pushed.unwrap_err();
        assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
        let source = || Ok(Cursor::new(wrong.slice(..length / 2)));
        let error = client.push_blob(&name, &layer(&right), source, &[], quiet()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
        assert!(words(&error).contains("shorter"), "{}", words(&error));
        assert!(sink.state.lock().unwrap().blobs.is_empty());
    }
}

#[tokio::test]
async fn a_registry_that_never_gets_further_is_given_up() {
    let sink = Sink::start([Trouble::Status(503); 40]).await;
    let error = push_to(&sink, &content(1000)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { .. }), "{error:?}");
    assert_eq!(sink.asked("POST"), 4);
    let sink = Sink::start([Trouble::Status(404)]).await;
    let error = push_to(&sink, &content(1000)).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoRepository { .. }), "{error:?}");
}

/// A server that opens uploads at `location`.
async fn opening(location: String) -> Fault {
    Fault::start(move |seen, _| match seen.method.as_str() {
        "HEAD" => Reply::new(404, &[], b""),
        _ => Reply::new(202, &[("Location", &location)], b""),
    })
    .await
}

#[tokio::test]
async fn vuln_c04_an_upload_sent_to_another_host_carries_no_credentials() {
    let store = Fault::start(|seen, _| match seen.method.as_str() {
        "PATCH" => Reply::new(202, &[], b""),
        _ => Reply::new(201, &[], b""),
    })
    .await;
    let place = format!("http://{}/bucket?signature=x", store.host());
    let registry = Fault::start(move |seen, _| match (seen.header("authorization"), seen.method.as_str()) {
        (None, _) => Reply::new(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        (_, "HEAD") => Reply::new(404, &[], b""),
        _ => Reply::new(202, &[("Location", &place)], b""),
    })
    .await;
    let login = Some(Credentials::password("user", "secret"));
    let client = Client::new(Config { credentials: login, ..parted() }).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    for length in [1000, 100_000] {
        assert_eq!(push(&client, &name, &content(length)).await.unwrap(), Pushed::Sent);
    }
    assert_eq!((store.requests().len(), store.authorized()), (4, 0));
    let closed = &store.requests()[3].path;
    assert!(closed.starts_with("/bucket?signature=x&digest=sha256%3A"), "{closed}");
}

#[tokio::test]
async fn vuln_c03_an_upload_is_not_sent_to_the_link_or_to_a_file() {
    for place in ["http://169.254.169.254/x", "file:///etc/passwd", "https://user:pw@example.com/", ""] {
        let registry = opening(place.to_owned()).await;
        let client = Client::new(parted()).unwrap();
        let error = push(&client, &reference(&format!("{}/a", registry.host())), &content(10)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{place}: {error:?}");
    }
}

#[tokio::test]
async fn vuln_c05_an_upload_never_leaves_tls_and_a_proxied_registrys_http_is_read_as_https() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let plain = Fault::start(|_, _| Reply::new(201, &[], b"")).await;
    let away = format!("http://{}/x", plain.host());
    let start = |location: String| {
        let acceptor = certificates.acceptor();
        Fault::start_with(Some(acceptor), move |seen, _| match seen.method.as_str() {
            "HEAD" => Reply::new(404, &[], b""),
            _ => Reply::new(202, &[("Location", &location)], b""),
        })
    };
    let registry = start(away).await;
    let client = Client::new(Config { ca_files: vec![certificates.authority()], ..parted() }).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    let error = push(&client, &name, &content(10)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
    assert!(plain.requests().is_empty());
}

#[tokio::test]
async fn vuln_c07_the_right_to_push_is_asked_for_one_repository_and_only_when_pushing() {
    let service = Fault::start(|seen, _| {
        let scopes: Vec<_> = seen.path.split(['?', '&']).filter(|part| part.starts_with("scope=")).collect();
        Reply::new(200, &[], format!("{{\"token\":\"{}\"}}", scopes.join("+").replace('%', "_")).as_bytes())
    })
    .await;
    let realm = format!("Bearer realm=\"http://{}/t\",service=\"s\"", service.host());
    let bytes = content(1000);
    let registry = Fault::start(move |seen, _| {
        let token = seen.header("authorization").unwrap_or_default();
        let mount = seen.path.contains("mount=");
        let enough = match seen.method.as_str() {
            "GET" => token.contains("a_3Apull"),
            _ if mount => token.contains("a_3Apull_2Cpush+scope=repository_3Alib_2Fb_3Apull"),
            _ => token.ends_with("a_3Apull_2Cpush"),
        };
        match seen.method.as_str() {
            _ if !enough => Reply::new(401, &[("WWW-Authenticate", &realm)], b""),
            "GET" => Reply::new(200, &[], b"bytes"),
            "HEAD" => Reply::new(404, &[], b""),
            "POST" => Reply::new(202, &[("Location", "/v2/a/blobs/uploads/1")], b""),
            _ => Reply::new(201, &[], b""),
        }
    })
    .await;
    let client = Client::new(parted()).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    drain(client.blob(&name, &layer(b"bytes"), 0).await.unwrap()).await.unwrap();
    assert!(!service.requests()[0].path.contains("push"), "{:?}", service.requests());
    let source = || Ok(Cursor::new(bytes.clone()));
    let pushed = client.push_blob(&name, &layer(&bytes), source, &["lib/b".to_owned()], quiet()).await;
    assert_eq!(pushed.unwrap(), Pushed::Sent);
    assert_eq!(service.requests().len(), 3, "{:?}", service.requests());
}

#[tokio::test]
async fn vuln_c10_a_registry_that_stored_something_else_is_found_out() {
    let other = Digest::of(b"other").to_string();
    let registry = Fault::start(move |seen, _| match seen.method.as_str() {
        "HEAD" => Reply::new(404, &[], b""),
        "POST" => Reply::new(202, &[("Location", "/v2/a/blobs/uploads/1")], b""),
        _ => Reply::new(201, &[("Docker-Content-Digest", &other)], b""),
    })
    .await;
    let client = Client::new(parted()).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    let error = push(&client, &name, &content(10)).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let error = client.push_manifest(&name, media::OCI_MANIFEST, content(10)).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn referrers_are_listed_by_the_tag_where_a_registry_has_no_api() {
    let registry = Registry::start(None, None);
    let client = Client::new(config()).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    let (subject, empty) = (Digest::of(b"subject"), bytes::Bytes::from_static(b"{}"));
    assert!(client.referrers(&name, &subject, None).await.unwrap().is_empty());
    push(&client, &name, &empty).await.unwrap();
    let mut made = Vec::new();
    for kind in ["application/x.sig", "application/x.sbom"] {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": kind,
            "config": Descriptor::of("application/vnd.oci.empty.v1+json", &empty), "layers": [],
            "subject": Descriptor::new(media::OCI_MANIFEST, subject, 7), "annotations": {"k": kind},
        });
        let bytes = bytes::Bytes::from(manifest.to_string());
        let pinned = name.with_digest(Digest::of(&bytes));
        for _ in 0..2 {
            client.push_manifest(&pinned, media::OCI_MANIFEST, bytes.clone()).await.unwrap();
        }
        made.push(Digest::of(&bytes));
    }
    let all = client.referrers(&name, &subject, None).await.unwrap();
    assert_eq!(all.iter().map(|one| one.descriptor.digest).collect::<Vec<_>>(), made);
    let some = client.referrers(&name, &subject, Some("application/x.sbom")).await.unwrap();
    assert_eq!((some.len(), some[0].descriptor.annotations["k"].as_str()), (1, "application/x.sbom"));
}

#[tokio::test]
async fn referrers_are_read_page_by_page_where_there_is_an_api() {
    let page = |text: &'static str| {
        let entry = serde_json::json!({"mediaType": media::OCI_MANIFEST, "digest": Digest::of(text.as_bytes()),
            "size": 1, "artifactType": text});
        serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry]})
            .to_string()
    };
    let registry = Fault::start(move |seen, _| match seen.path.contains("page=2") {
        false => {
            Reply::new(200, &[("Link", "</v2/a/referrers/x?page=2>; rel=\"next\"")], page("one").as_bytes())
        }
        true => Reply::new(200, &[], page("two").as_bytes()),
    })
    .await;
    let client = Client::new(config()).unwrap();
    let found =
        client.referrers(&reference(&format!("{}/a", registry.host())), &Digest::of(b"s"), None).await;
    let kinds: Vec<_> = found.unwrap().into_iter().filter_map(|one| one.artifact_type).collect();
    assert_eq!(kinds, ["one", "two"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever breaks, and as long as something arrives between failures: the blob is there, and exactly it.
    #[test]
    fn vuln_c12_an_upload_troubled_anywhere_arrives_whole(
        troubles in prop::collection::vec(prop_oneof![
            3 => Just(Trouble::None),
            2 => (0usize..70_000).prop_map(Trouble::Cut),
            1 => Just(Trouble::Lost),
            1 => Just(Trouble::Status(503)),
            1 => Just(Trouble::Forget),
            1 => Just(Trouble::Half),
        ], 0..3),
        length in prop_oneof![Just(0usize), 1usize..20_000, 60_000usize..200_000],
        whole_only in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sink = Sink::start(troubles).await;
            sink.state.lock().unwrap().whole_only = whole_only;
            let bytes = content(length);
            let pushed = push_to(&sink, &bytes).await;
            assert!(stored(&sink, &bytes), "{pushed:?}");
            pushed.unwrap();
        });
    }
}
