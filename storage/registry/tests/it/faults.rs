//! What registries and networks do wrong, and what becomes of it (rows C10 to C12 of the catalogue).

use std::time::{Duration, Instant};

use crate::common::fault::{Fault, Reply, Seen, Step};
use crate::common::files::hosts_toml;
use crate::common::{config, content, drain, layer, noted, reference, words};
use storage_model::{Descriptor, Digest, limits, media};
use storage_registry::{Client, Config, RegistryError};

const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";

fn manifest() -> Reply {
    Reply::new(200, &[("Content-Type", media::OCI_MANIFEST)], MANIFEST)
}

/// Streams `body` from a server with this script; gives the bytes or the error, and the server.
async fn stream(
    body: &[u8],
    offset: u64,
    script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> (Result<Vec<u8>, RegistryError>, Fault) {
    let server = Fault::start(script).await;
    let client = Client::new(config()).unwrap();
    let name = reference(&format!("{}/a", server.host()));
    let outcome = match client.blob(&name, &layer(body), offset).await {
        Ok(stream) => drain(stream).await,
        Err(error) => Err(error),
    };
    (outcome, server)
}

async fn resolve(
    script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> (Result<storage_registry::Resolved, RegistryError>, Fault) {
    let server = Fault::start(script).await;
    let client = Client::new(config()).unwrap();
    let outcome = client.resolve(&reference(&format!("{}/a:v1", server.host()))).await;
    (outcome, server)
}

#[tokio::test]
async fn a_tag_is_resolved_by_one_request() {
    let (resolved, server) = resolve(|_, _| manifest()).await;
    let resolved = resolved.unwrap();
    assert_eq!(resolved.descriptor, Descriptor::of(media::OCI_MANIFEST, MANIFEST));
    assert_eq!(resolved.bytes.as_deref(), Some(MANIFEST));
    let asked = server.requests();
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/v2/a/manifests/v1"));
    let accept = asked[0].header("accept").unwrap();
    assert!(media::MANIFEST_TYPES.iter().all(|media_type| accept.contains(media_type)));
}

#[tokio::test]
async fn vuln_c10_a_manifest_with_another_digest_than_announced_or_pinned_is_refused() {
    let other = Digest::of(b"other").to_string();
    let (outcome, _) = resolve(move |_, _| {
        Reply::new(200, &[("Content-Type", media::OCI_MANIFEST), ("Docker-Content-Digest", &other)], MANIFEST)
    })
    .await;
    assert!(matches!(outcome, Err(RegistryError::DigestMismatch { .. })), "{outcome:?}");
    let server = Fault::start(|_, _| manifest()).await;
    let client = Client::new(config()).unwrap();
    let pinned = reference(&format!("{}/a@{}", server.host(), Digest::of(b"other")));
    let error = client.resolve(&pinned).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let name = reference(&format!("{}/a", server.host()));
    let mut descriptor = Descriptor::of(media::OCI_MANIFEST, MANIFEST);
    assert_eq!(client.manifest(&name, &descriptor).await.unwrap(), MANIFEST);
    for size in [0, 1, 18, 20, 4 << 20] {
        descriptor.size = size;
        let error = client.manifest(&name, &descriptor).await.unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{size}: {error:?}");
    }
    descriptor.size = u64::MAX;
    let error = client.manifest(&name, &descriptor).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn vuln_c10_a_blob_of_another_size_is_refused_before_it_is_read() {
    for length in [0, 99, 101, 1 << 20] {
        let (outcome, server) =
            stream(&content(100), 0, move |_, _| Reply::new(200, &[], &content(length))).await;
        assert!(
            matches!(outcome, Err(RegistryError::SizeMismatch { expected: 100, .. })),
            "{length}: {outcome:?}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn vuln_c10_a_stream_without_a_length_never_gives_more_than_the_descriptor_says() {
    let (outcome, _) = stream(&content(100), 0, |_, _| {
        Reply::head(200, &[("Connection", "close")])
            .then(Step::Send(content(5_000_000).to_vec()))
            .then(Step::Close)
    })
    .await;
    assert!(matches!(outcome, Err(RegistryError::SizeMismatch { expected: 100, .. })), "{outcome:?}");
}

#[tokio::test]
async fn vuln_c10_a_config_with_another_digest_is_refused() {
    let server = Fault::start(|_, _| Reply::new(200, &[], b"evil")).await;
    let client = Client::new(config()).unwrap();
    let name = reference(&format!("{}/a", server.host()));
    let error = client.small_blob(&name, &layer(b"good"), 100).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
    let error = client.small_blob(&name, &layer(b"long"), 3).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { max: 3, .. }), "{error:?}");
}

#[tokio::test]
async fn vuln_c11_a_manifest_without_end_is_cut_off() {
    let (outcome, _) = resolve(|_, _| {
        Reply::head(200, &[("Content-Type", media::OCI_INDEX), ("Content-Length", "1000000000")])
            .then(Step::Send(vec![b' '; limits::MANIFEST_BYTES_MAX as usize + 70_000]))
            .then(Step::Wait(Duration::from_secs(9)))
    })
    .await;
    assert!(matches!(outcome, Err(RegistryError::TooLarge { .. })), "{outcome:?}");
}

#[tokio::test]
async fn vuln_c12_errors_that_pass_are_waited_out_and_told() {
    let after = ("Retry-After", "0");
    for (status, headers) in
        [(500, vec![]), (502, vec![]), (503, vec![after]), (504, vec![]), (408, vec![]), (429, vec![after])]
    {
        let server = Fault::start(move |_, before| match before {
            0 | 1 => Reply::new(status, &headers, b""),
            _ => manifest(),
        })
        .await;
        let (config, notes) = noted();
        let client = Client::new(config).unwrap();
        client.resolve(&reference(&format!("{}/a:v1", server.host()))).await.unwrap();
        assert_eq!(server.requests().len(), 3, "{status}");
        let notes = notes.lock().unwrap();
        assert!(notes.len() == 2 && notes[0].contains("retrying") && notes[0].contains("/a:v1"), "{notes:?}");
    }
}

#[tokio::test]
async fn vuln_c12_retry_after_is_obeyed_within_a_limit() {
    for absurd in ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let (outcome, server) = resolve(move |_, before| match before {
            0 => Reply::new(429, &[("Retry-After", absurd)], b""),
            _ => manifest(),
        })
        .await;
        outcome.unwrap();
        assert_eq!(server.requests().len(), 2);
    }
    let begun = Instant::now();
    let (outcome, server) = resolve(|_, _| Reply::new(429, &[("Retry-After", "3600")], b"")).await;
    assert!(matches!(outcome, Err(RegistryError::TooManyRequests { .. })), "{outcome:?}");
    assert_eq!(server.requests().len(), 4);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(450) && waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn vuln_c12_errors_that_do_not_pass_are_not_repeated() {
    for status in [400, 403, 404, 405, 410, 451, 501, 505] {
        let (outcome, server) = resolve(move |_, _| {
            Reply::new(status, &[], br#"{"errors":[{"code":"DENIED","message":"the\nwords"}]}"#)
        })
        .await;
        let error = outcome.unwrap_err();
        assert_eq!(server.requests().len(), 1, "{status}");
        match status {
            404 => assert!(matches!(error, RegistryError::NotFound { .. })),
            403 => assert!(matches!(&error, RegistryError::Denied { message, .. } if message == "the words")),
            _ => assert!(matches!(error, RegistryError::Status { .. })),
        }
        assert!(error.to_string().contains("/a:v1") && !error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn vuln_c12_a_blob_cut_anywhere_is_continued_where_it_broke() {
    let body = content(64 * 1024);
    let whole = Digest::of(&body);
    for step in [Step::Reset, Step::Close] {
        for cut in (0..=body.len()).step_by(4096).chain([1, 65_535]) {
            let (bytes, step) = (body.clone(), step.clone());
            let (outcome, server) = stream(&body, 0, move |seen, before| match before {
                0 => Reply::ranged(seen, &bytes).cut(cut, step.clone()),
                _ => Reply::ranged(seen, &bytes),
            })
            .await;
            assert_eq!(Digest::of(&outcome.unwrap()), whole, "cut at {cut}");
            let ranges: Vec<_> = server.requests().iter().skip(1).map(Seen::range).collect();
            assert!(ranges.len() <= 1, "{ranges:?}");
            if let Some(Some(first)) = ranges.first() {
                assert!(*first <= cut, "asked from {first} after a cut at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn vuln_c12_a_blob_that_breaks_each_time_still_ends() {
    let body = content(200_000);
    let bytes = body.clone();
    // Each connection gives 20 kB: ten failures, each after progress.
    let (outcome, server) =
        stream(&body, 0, move |seen, _| Reply::ranged(seen, &bytes).cut(20_000, Step::Close)).await;
    assert_eq!(outcome.unwrap(), body);
    assert_eq!(server.requests().len(), 10);
    // One byte each time is no progress.
    let bytes = body.clone();
    let (outcome, server) =
        stream(&body, 0, move |seen, _| Reply::ranged(seen, &bytes).cut(1, Step::Close)).await;
    assert!(matches!(outcome, Err(RegistryError::Interrupted { .. })), "{outcome:?}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn vuln_c12_a_body_that_stalls_or_drips_is_dropped_and_resumed() {
    let body = content(50_000);
    for drip in [0, 1] {
        let bytes = body.clone();
        let (outcome, server) = stream(&body, 0, move |seen, before| {
            let reply = Reply::ranged(seen, &bytes);
            if before > 0 {
                return reply;
            }
            let mut slow = reply.cut(10_000, Step::Wait(Duration::from_millis(1)));
            for at in 0..100 {
                slow = slow.then(Step::Wait(Duration::from_millis(50)));
                slow = slow.then(Step::Send(bytes[10_000 + at..10_000 + at + drip].to_vec()));
            }
            slow
        })
        .await;
        assert_eq!(outcome.unwrap(), body);
        assert_eq!(server.requests().len(), 2, "drip {drip}");
    }
}

#[tokio::test]
async fn vuln_c12_no_answer_at_all_ends_in_a_timeout() {
    let server = Fault::start(|_, _| Reply(vec![Step::Wait(Duration::from_secs(60))])).await;
    let mut impatient = config();
    impatient.retry.answer_max = Duration::from_millis(100);
    impatient.retry.attempts = 2;
    let client = Client::new(impatient).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", server.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn vuln_c12_a_whole_answer_to_a_range_is_skipped_to_the_place() {
    let body = content(300_000);
    let bytes = body.clone();
    let (outcome, server) = stream(&body, 123_456, move |_, _| Reply::new(200, &[], &bytes)).await;
    assert_eq!(outcome.unwrap(), &body[123_456..]);
    assert_eq!(server.requests()[0].range(), Some(123_456));
}

#[tokio::test]
async fn vuln_c12_a_range_that_is_not_the_one_asked_for_is_not_believed() {
    let body = content(10_000);
    for wrong in
        ["bytes 0-9999/10000", "bytes 4999-9999/10000", "bytes 5000-99999/10000", "bytes */10000", "nonsense"]
    {
        let bytes = body.clone();
        let (outcome, server) = stream(&body, 5000, move |seen, _| match seen.range() {
            Some(first) => Reply::new(206, &[("Content-Range", wrong)], &bytes[first..]),
            None => Reply::new(200, &[], &bytes),
        })
        .await;
        assert_eq!(outcome.unwrap(), &body[5000..], "{wrong}");
        assert_eq!(server.requests().len(), 2, "{wrong}");
    }
    let bytes = body.clone();
    let (outcome, _) = stream(&body, 5000, move |_, _| {
        Reply::new(206, &[("Content-Range", "bytes 5000-9999/20000")], &bytes[5000..])
    })
    .await;
    assert!(matches!(outcome, Err(RegistryError::SizeMismatch { actual: 20_000, .. })), "{outcome:?}");
}

#[tokio::test]
async fn vuln_c12_multipart_and_unsatisfiable_answers_lead_to_the_whole() {
    let body = content(10_000);
    for status in [206, 416] {
        let bytes = body.clone();
        let (outcome, _) = stream(&body, 5000, move |seen, _| match seen.range() {
            Some(_) => Reply::new(status, &[("Content-Type", "multipart/byteranges; boundary=x")], b"--x--"),
            None => Reply::new(200, &[], &bytes),
        })
        .await;
        assert_eq!(outcome.unwrap(), &body[5000..], "{status}");
    }
}

#[tokio::test]
async fn a_range_in_pieces_is_put_together() {
    let body = content(10_000);
    let bytes = body.clone();
    let (outcome, server) = stream(&body, 4000, move |seen, _| {
        let first = seen.range().unwrap();
        let last = (first + 2999).min(9999);
        Reply::new(206, &[("Content-Range", &format!("bytes {first}-{last}/10000"))], &bytes[first..=last])
    })
    .await;
    assert_eq!(outcome.unwrap(), &body[4000..]);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn vuln_c12_chunked_lies_and_endless_headers_are_errors_and_cost_no_memory() {
    let body = content(1000);
    let (outcome, _) = stream(&body, 0, |_, _| {
        Reply::head(200, &[("Transfer-Encoding", "chunked")])
            .then(Step::Send(b"FFFFFFFFFFFFFFFFF\r\nx".to_vec()))
    })
    .await;
    assert!(matches!(outcome, Err(RegistryError::Interrupted { .. })), "{outcome:?}");
    let long = "x".repeat(1 << 20);
    let (outcome, _) = stream(&body, 0, move |_, _| Reply::new(200, &[("X-Long", &long)], b"")).await;
    assert!(outcome.is_err());
    let (outcome, _) = stream(&body, 0, |_, _| Reply::new(200, &vec![("X-Many", "1"); 10_000], b"")).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn vuln_c12_redirects_without_end_or_to_files_are_not_followed() {
    let (outcome, server) = resolve(|_, _| Reply::new(302, &[("Location", "/v2/again")], b"")).await;
    assert!(matches!(outcome, Err(RegistryError::Redirect { .. })), "{outcome:?}");
    assert_eq!(server.requests().len(), 6);
    for place in
        ["file:///etc/passwd", "unix:/run/docker.sock", "ftp://a/b", "http://169.254.169.254/meta", ""]
    {
        let (outcome, server) = resolve(move |_, _| Reply::new(307, &[("Location", place)], b"")).await;
        assert!(matches!(outcome, Err(RegistryError::Redirect { .. })), "{place}: {outcome:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_remembered_redirect_that_has_expired_is_asked_for_again() {
    let body = content(1000);
    let bytes = body.clone();
    let cdn = Fault::start(move |seen, _| match seen.path.as_str() {
        "/signed-0" if seen.range().is_some() => Reply::new(403, &[], b"<Error>expired</Error>"),
        "/signed-0" => Reply::ranged(seen, &bytes).cut(500, Step::Close),
        _ => Reply::ranged(seen, &bytes),
    })
    .await;
    let place = format!("http://{}/signed", cdn.host());
    let (outcome, registry) = stream(&body, 0, move |_, before| {
        Reply::new(307, &[("Location", &format!("{place}-{before}"))], b"")
    })
    .await;
    assert_eq!(outcome.unwrap(), body);
    let asked: Vec<_> = cdn.requests().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked, ["/signed-0", "/signed-0", "/signed-1"]);
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_mirror_that_fails_gives_way_to_the_registry_and_one_that_lies_is_avoided() {
    let body = content(1000);
    let bytes = body.clone();
    let registry = Fault::start(move |seen, _| match seen.path.contains("/manifests/") {
        true => manifest(),
        false => Reply::ranged(seen, &bytes),
    })
    .await;
    let liar = Fault::start(|seen, _| match seen.path.contains("/manifests/") {
        true => Reply::new(500, &[], b""),
        false => Reply::new(200, &[], &vec![0; 1000]),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let host = registry.host();
    let text = format!(
        "server = \"http://{host}\"\n[host.\"http://{0}\"]\n[host.\"http://127.0.0.1:1\"]\n\
         [host.\"http://{0}/pull-only\"]\ncapabilities = [\"pull\"]\n",
        liar.host()
    );
    hosts_toml(folder.path(), &host, &text);
    let (noted, notes) = noted();
    let client = Client::new(Config { hosts_dir: vec![folder.path().to_owned()], ..noted }).unwrap();
    let name = reference(&format!("{host}/a:v1"));
    client.resolve(&name).await.unwrap();
    assert_eq!(liar.requests().len(), 2, "a mirror that may only pull was asked for a tag");
    assert_eq!(notes.lock().unwrap().iter().filter(|note| note.contains("mirror")).count(), 2);
    assert_eq!(client.small_blob(&name, &layer(&body), 1000).await.unwrap(), body);
    let asked = liar.requests().len();
    assert_eq!(client.small_blob(&name, &layer(&body), 1000).await.unwrap(), body);
    assert_eq!(liar.requests().len(), asked, "a liar was asked again");
}

#[tokio::test]
async fn each_way_of_not_reaching_a_registry_has_its_own_words() {
    let client = Client::new(config()).unwrap();
    let refused = client.resolve(&reference("127.0.0.1:1/a:v1")).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Connect { .. }), "{refused:?}");
    assert!(words(&refused).contains("refused") && refused.to_string().contains("127.0.0.1:1/a:v1"));
    let unknown = client.resolve(&reference("no-such-host.invalid/a")).await.unwrap_err();
    assert!(matches!(unknown, RegistryError::UnknownHost { .. }), "{unknown:?}");
    assert!(unknown.to_string().contains("no-such-host.invalid"), "{unknown}");
}

#[tokio::test]
async fn an_offset_at_the_end_needs_no_request_and_one_past_it_is_an_error() {
    let (outcome, server) = stream(&content(10), 10, |_, _| manifest()).await;
    assert!(outcome.unwrap().is_empty() && server.requests().is_empty());
    let (outcome, _) = stream(&content(10), 11, |_, _| manifest()).await;
    assert!(matches!(outcome, Err(RegistryError::Offset { offset: 11, size: 10, .. })), "{outcome:?}");
}
