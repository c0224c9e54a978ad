//! Rows L9 and C12 over real connections: registries that misbehave on the wire, through the distribution client.

use std::sync::Arc;
use std::time::Duration;

use lazy_fetch::{Access, Config, FetchError, Fetcher, Image, Origin, RegistrySources};
use storage_registry::Credentials;

use crate::common::http::{Answer, End, Http, Seen, answer, served};
use crate::common::image::{Layout, Made, made};
use crate::common::{config, whole};

fn origin(http: &Http) -> Origin {
    Origin {
        reference: format!("{}/team/app:1", http.host),
        access: Access { plain_http: true, ..Access::default() },
    }
}

fn quick() -> Config {
    let mut config = config();
    config.fault_deadline = Duration::from_secs(15);
    config.stall = Duration::from_millis(700);
    config
}

fn blob_of(seed: u64) -> Made {
    made(seed, &[("a", 30_000), ("b", 400_000), ("big", 1_500_000)], 64 * 1024, Layout::Gzip)
}

/// A fetcher with one image that is to be had at `origins`.
fn opened(made: &Made, origins: &[Origin], config: Config) -> (tempfile::TempDir, Fetcher, Arc<Image>) {
    let folder = tempfile::tempdir().unwrap();
    let sources = Arc::new(RegistrySources::new(Vec::new()));
    let fetcher = Fetcher::open(folder.path(), config, sources).unwrap();
    let image = fetcher.image(made.spec("test", origins)).unwrap();
    (folder, fetcher, image)
}

fn check(image: &Image, made: &Made) {
    for (path, bytes) in &made.files {
        assert_eq!(whole(image, made, path, 100_000), *bytes, "{path}");
    }
}

/// A misdeed: what is answered to a request, given what should have been.
type Misdeed = fn(&Seen, &[u8]) -> Answer;

/// Misdeeds from which the next attempt recovers.
const MISDEEDS: [(&str, Misdeed); 16] = [
    ("500", |_, _| answer(500, &[], b"")),
    ("502", |_, _| answer(502, &[], b"")),
    ("503 with Retry-After", |_, _| answer(503, &[("Retry-After", "0")], b"")),
    ("429 with Retry-After", |_, _| answer(429, &[("Retry-After", "0")], b"")),
    ("408", |_, _| answer(408, &[], b"")),
    ("reset before the head", |_, _| Answer { bytes: Vec::new(), end: End::Reset }),
    ("reset in the body", |seen, blob| cut(served(seen, blob), 5_000, End::Reset)),
    ("body that is short", |seen, blob| cut(served(seen, blob), 700, End::Reset)),
    ("silence before the head", |_, _| Answer { bytes: Vec::new(), end: End::Silence }),
    ("silence in the body", |seen, blob| cut(served(seen, blob), 5_000, End::Silence)),
    ("body that is long", |seen, blob| {
        let range = seen.range.clone().unwrap();
        let place = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len());
        let mut body = blob[range].to_vec();
        body.extend_from_slice(b"more");
        answer(206, &[("Content-Range", &place)], &body)
    }),
    ("other range than asked", |seen, blob| {
        let range = seen.range.clone().unwrap();
        let place = format!("bytes {}-{}/{}", range.start - 1, range.end - 2, blob.len());
        answer(206, &[("Content-Range", &place)], &blob[range.start - 1..range.end - 1])
    }),
    ("206 without a range", |seen, blob| answer(206, &[], &blob[seen.range.clone().unwrap()])),
    ("wrong bytes", |seen, blob| {
        let mut answer = served(seen, blob);
        let last = answer.bytes.len() - 1;
        answer.bytes[last / 2] ^= 1;
        answer.bytes[last] ^= 1;
        answer
    }),
    ("no HTTP", |_, _| Answer { bytes: b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), end: End::Reset }),
    ("empty 200", |_, _| answer(200, &[], b"")),
];

/// Runs a test for each misdeed, all at the same time: most of it is waiting.
fn side_by_side(test: impl Fn(u64, &str, Misdeed) + Sync) {
    std::thread::scope(|scope| {
        for (number, (name, misdeed)) in MISDEEDS.into_iter().enumerate() {
            let test = &test;
            scope.spawn(move || test(number as u64, name, misdeed));
        }
    });
}

fn cut(mut whole: Answer, body: usize, end: End) -> Answer {
    let head = whole.bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    whole.bytes.truncate(head + body);
    Answer { end, ..whole }
}

#[test]
fn c12_every_misdeed_once_or_twice_costs_time_and_no_wrong_byte() {
    side_by_side(|number, name, misdeed| {
        let made = blob_of(number);
        let blob = made.blob.clone();
        let http =
            Http::start(move |seen| if seen.number < 2 { misdeed(seen, &blob) } else { served(seen, &blob) });
        let (_folder, _fetcher, image) = opened(&made, &[origin(&http)], quick());
        let mut out = vec![0; 30_000];
        match image.read(made.node("a"), 0, &mut out) {
            Ok(count) => assert_eq!(&out[..count], made.bytes("a"), "{name}"),
            // Where asking again should not help, a reader may be told; the next one is served.
            Err(FetchError::Unavailable { .. } | FetchError::WrongBytes { .. }) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        check(&image, &made);
    });
}

#[test]
fn c12_every_misdeed_for_ever_ends_by_the_deadline_without_a_wrong_byte() {
    side_by_side(|number, name, misdeed| {
        let made = made(number, &[("a", 30_000)], 64 * 1024, Layout::Gzip);
        let blob = made.blob.clone();
        let bad = Http::start(move |seen| match &seen.range {
            Some(_) => misdeed(seen, &blob),
            // It was asked for the whole, since it answers ranges wrongly: it has no better answer.
            None => answer(500, &[], b""),
        });
        let mut config = quick();
        config.fault_deadline = Duration::from_millis(2_500);
        config.stall = Duration::from_millis(300);
        let (_folder, _fetcher, image) = opened(&made, &[origin(&bad)], config);
        let mut out = [0; 100];
        match image.read(made.node("a"), 0, &mut out) {
            // One that gives a few bytes each time is a slow one.
            Ok(_) => assert_eq!(out, made.bytes("a")[..100], "{name}"),
            Err(
                FetchError::Deadline { .. } | FetchError::WrongBytes { .. } | FetchError::Unavailable { .. },
            ) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    });
}

#[test]
fn c12_a_registry_that_ignores_ranges_sends_its_blob_once() {
    let made = blob_of(40);
    let blob = made.blob.clone();
    let http = Http::start(move |_| answer(200, &[], &blob));
    let (_folder, _fetcher, image) = opened(&made, &[origin(&http)], quick());
    std::thread::scope(|scope| {
        for (path, bytes) in &made.files {
            let (image, made) = (&image, &made);
            scope.spawn(move || assert_eq!(whole(image, made, path, 50_000), *bytes));
        }
    });
    let answered = http.requests("/v2/").len();
    assert!(
        answered <= 12,
        "{answered} requests: as many as were made before the first was answered, at most"
    );
    let sent = image.status().bytes_fetched;
    assert!(sent < 2 * made.blob.len() as u64, "{sent} bytes for a blob of {}", made.blob.len());
}

#[test]
fn c12_an_expired_token_is_refreshed_and_a_stale_redirect_resolved_anew() {
    let made = blob_of(41);
    let blob = made.blob.clone();
    let host = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&host);
    // Each token opens three doors, each signed address one.
    let http = Http::start(move |seen| {
        let host = own.get().unwrap();
        if seen.path.starts_with("/token") {
            return answer(200, &[], format!("{{\"token\":\"t{}\"}}", seen.number).as_bytes());
        }
        if seen.path.starts_with("/store") {
            let good = seen.path == format!("/store/{}", seen.number);
            return if good { served(seen, &blob) } else { answer(403, &[], b"expired") };
        }
        let fresh = format!("Bearer t{}", seen.number / 4);
        if seen.authorization.as_deref() != Some(&fresh) {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return answer(401, &[("WWW-Authenticate", &challenge)], b"");
        }
        served(seen, &blob)
    });
    host.set(http.host.clone()).unwrap();
    let mut config = quick();
    config.fault_range_bytes_max = 1;
    let (_folder, _fetcher, image) = opened(&made, &[origin(&http)], config);
    check(&image, &made);
    assert!(http.requests("/token").len() > 2, "tokens were refreshed on the way");
    assert_eq!(image.status().failures, 0);
}

#[test]
fn c12_a_signed_address_that_has_expired_is_asked_for_again() {
    let made = blob_of(42);
    let blob = made.blob.clone();
    let store = Http::start(move |seen| {
        // Every second answer of the store is that the signature is too old.
        if seen.number % 2 == 1 { answer(403, &[], b"expired") } else { served(seen, &blob) }
    });
    let place = format!("http://{}/store/blob", store.host);
    let http = Http::start(move |_| answer(307, &[("Location", &place)], b""));
    let mut config = quick();
    config.fault_range_bytes_max = 1;
    let (_folder, _fetcher, image) = opened(&made, &[origin(&http)], config);
    check(&image, &made);
    assert_eq!(image.status().failures, 0);
    assert!(http.requests("/v2/").len() > 2, "it was resolved more than once");
    assert!(store.requests("/store").iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn c12_a_redirect_that_leads_in_circles_is_an_error() {
    let made = blob_of(43);
    let http = Http::start(|_| answer(302, &[("Location", "/v2/round")], b""));
    let (_folder, _fetcher, image) = opened(&made, &[origin(&http)], quick());
    let error = image.read(made.node("a"), 0, &mut [0; 10]).unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[test]
fn a_login_given_in_memory_is_used_and_can_be_replaced_while_readers_wait() {
    let made = blob_of(44);
    let blob = made.blob.clone();
    let http = Http::start(move |seen| match seen.authorization.as_deref() {
        // user:new
        Some("Basic dXNlcjpuZXc=") => served(seen, &blob),
        _ => answer(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    });
    let folder = tempfile::tempdir().unwrap();
    let sources = Arc::new(RegistrySources::new(Vec::new()));
    sources.set_login(&http.host, Some(Credentials::password("user", "old")));
    let fetcher = Fetcher::open(folder.path(), quick(), Arc::clone(&sources) as _).unwrap();
    let image = fetcher.image(made.spec("test", &[origin(&http)])).unwrap();
    let error = image.read(made.node("a"), 0, &mut [0; 10]).unwrap_err();
    assert!(
        matches!(error, FetchError::Unavailable { .. }) && !format!("{error:?}").contains("old"),
        "{error}"
    );
    sources.set_login(&http.host, Some(Credentials::password("user", "new")));
    check(&image, &made);
}

#[test]
fn a_blob_that_is_here_whole_is_read_and_no_registry_asked_and_a_damaged_one_is_left() {
    let made = blob_of(45);
    let blob = made.blob.clone();
    let http = Http::start(move |seen| served(seen, &blob));
    let blobs = tempfile::tempdir().unwrap();
    std::fs::create_dir(blobs.path().join("sha256")).unwrap();
    let path = blobs.path().join("sha256").join(made.digest.hex());
    for damaged in [false, true] {
        let mut bytes = made.blob.clone();
        if damaged {
            bytes.iter_mut().step_by(5_000).for_each(|byte| *byte ^= 0x80);
        }
        std::fs::write(&path, &bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sources = Arc::new(RegistrySources::new(vec![blobs.path().to_owned()]));
        let fetcher = Fetcher::open(folder.path(), quick(), sources).unwrap();
        let image = fetcher.image(made.spec("test", &[origin(&http)])).unwrap();
        check(&image, &made);
        assert_eq!(http.requests("/v2/").is_empty(), !damaged);
    }
}
