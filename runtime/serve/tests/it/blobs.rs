//! Blobs: whole and in part, of the repository that was asked, and never other bytes than their digest says.

use proptest::prelude::*;
use storage_model::Digest;

use crate::client::Server;
use crate::memory::Memory;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[at % 4]).collect()
}

#[tokio::test]
async fn a_blob_comes_whole_and_in_the_part_that_was_asked_for() {
    let memory = Memory::new();
    let bytes = content(200_000);
    memory.simple("docker.io/library/a:1", &[&bytes]);
    let server = Server::start(memory).await;
    let digest = Digest::of(&bytes);
    let path = format!("/v2/a/blobs/{digest}");
    let whole = server.get(&path).await;
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
    assert_eq!(whole.body, bytes);
    let head = server.ask("HEAD", &path, &[("Range", "bytes=1-2")]).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("200000")));
    let (good, bad) = (format!("\"{digest}\""), "\"sha256:other\"".to_owned());
    for (range, condition, status, first, last) in [
        ("bytes=0-0", None, 206, 0, 1),
        ("bytes=100000-", None, 206, 100_000, 200_000),
        ("bytes=-5", Some(&good), 206, 199_995, 200_000),
        ("bytes=5-9", Some(&bad), 200, 0, 200_000),
        ("bytes=1-2,4-5", None, 200, 0, 200_000),
    ] {
        let mut headers = vec![("Range", range)];
        headers.extend(condition.map(|tag| ("If-Range", tag.as_str())));
        let answer = server.ask("GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.body, bytes[first..last], "{range}");
        let wanted = (status == 206).then(|| format!("bytes {first}-{}/200000", last - 1));
        assert_eq!(answer.header("content-range").map(str::to_owned), wanted, "{range}");
    }
    let past = server.ask("GET", &path, &[("Range", "bytes=200000-")]).await;
    assert_eq!((past.status, past.header("content-range")), (416, Some("bytes */200000")));
    let known = server.ask("GET", &path, &[("If-None-Match", &good)]).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let memory = Memory::new();
    memory.simple("docker.io/library/a:1", &[b""]);
    let server = Server::start(memory).await;
    let answer = server.get(&format!("/v2/a/blobs/{}", Digest::of(b""))).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
}

#[tokio::test]
async fn vuln_c16_a_removed_image_is_gone_with_the_next_request_though_its_bytes_are_still_here() {
    let memory = Memory::new();
    let target = memory.simple("docker.io/library/a:1", &[b"layer"]);
    let server = Server::start(memory.clone()).await;
    let paths =
        [format!("/v2/a/blobs/{}", Digest::of(b"layer")), format!("/v2/a/manifests/{}", target.digest)];
    for path in &paths {
        assert_eq!(server.get(path).await.status, 200);
    }
    memory.state().images.clear();
    for path in &paths {
        assert_eq!(server.get(path).await.status, 404);
    }
}

#[tokio::test]
async fn vuln_c15_knowing_a_digest_gives_nothing_that_the_repository_does_not_have() {
    let memory = Memory::new();
    memory.simple("docker.io/library/a:1", &[b"mine"]);
    memory.simple("docker.io/library/b:1", &[b"other"]);
    let loose = memory.put(b"of a pull that failed");
    let server = Server::start(memory).await;
    assert_eq!(server.get(&format!("/v2/a/blobs/{}", Digest::of(b"mine"))).await.status, 200);
    for digest in [Digest::of(b"other"), loose] {
        let answer = server.get(&format!("/v2/a/blobs/{digest}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UNKNOWN"));
    }
}

#[tokio::test]
async fn vuln_c17_a_damaged_blob_never_ends() {
    let memory = Memory::new();
    let bytes = content(300_000);
    memory.simple("docker.io/library/a:1", &[&bytes]);
    memory.state().blobs.get_mut(&Digest::of(&bytes)).unwrap()[7] ^= 1;
    let server = Server::start(memory).await;
    assert!(server.try_ask("GET", &format!("/v2/a/blobs/{}", Digest::of(&bytes)), &[]).await.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against the slice that the standard says.
    #[test]
    fn any_part_is_that_part(length in 1usize..100_000, first in 0usize..120_000, more in prop::option::of(0usize..120_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let memory = Memory::new();
            let bytes = content(length);
            memory.simple("docker.io/library/a:1", &[&bytes]);
            let server = Server::start(memory).await;
            let last = more.map(|more| (first + more).to_string()).unwrap_or_default();
            let range = format!("bytes={first}-{last}");
            let path = format!("/v2/a/blobs/{}", Digest::of(&bytes));
            let answer = server.ask("GET", &path, &[("Range", &range)]).await;
            if first >= length {
                assert_eq!(answer.status, 416);
            } else {
                let end = more.map_or(length, |more| length.min(first + more + 1));
                assert_eq!((answer.status, answer.body.as_slice()), (206, &bytes[first..end]));
            }
        });
    }
}
