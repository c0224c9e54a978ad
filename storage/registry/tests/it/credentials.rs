//! Credentials reach no host but theirs (rows C2 to C7 and C13 of the catalogue of known vulnerabilities).

use std::path::Path;
use std::process::Command;

use crate::common::fault::{Fault, Reply, Seen, Step};
use crate::common::files::{Certificates, docker_config, hosts_toml};
use crate::common::{config, content, drain, layer, reference, words};
use storage_model::{Digest, media};
use storage_registry::{Client, Config, Credentials, Login, RegistryError};

const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";

fn manifest() -> Reply {
    Reply::new(200, &[("Content-Type", media::OCI_MANIFEST)], MANIFEST)
}

fn challenge(text: &str) -> Reply {
    Reply::new(401, &[("WWW-Authenticate", text)], b"")
}

/// A token server that gives `token-SCOPE` for each request.
async fn tokens() -> Fault {
    Fault::start(|seen, _| {
        let scope = seen.path.split("scope=").nth(1).or(seen.body.split("scope=").nth(1)).unwrap_or("none");
        let scope = scope.split('&').next().unwrap_or_default().replace("%2F", ".").replace("%3A", ".");
        Reply::new(200, &[], format!("{{\"token\":\"token-{scope}\",\"expires_in\":300}}").as_bytes())
    })
    .await
}

/// Wants a bearer token of its own repository and scope, from `realm`.
fn bearer(seen: &Seen, realm: &str) -> Option<Reply> {
    let repository = seen.path.strip_prefix("/v2/")?.split("/manifests").next()?.split("/blobs").next()?;
    let wanted = format!("Bearer token-repository.{}.pull", repository.replace('/', "."));
    let fine = seen.header("authorization") == Some(&wanted);
    let scope = format!("repository:{repository}:pull");
    (!fine).then(|| challenge(&format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"")))
}

#[tokio::test]
async fn vuln_c02_the_urls_of_a_foreign_layer_are_never_asked() {
    let evil = Fault::start(|_, _| challenge("Basic realm=\"give me your password\"")).await;
    let registry = Fault::start(|_, _| Reply::new(404, &[], b"")).await;
    let mut descriptor = layer(b"foreign");
    descriptor.urls = vec![format!("http://{}/layer", evil.host())];
    let login = Some(Credentials::password("user", "secret"));
    let client = Client::new(Config { credentials: login, ..config() }).unwrap();
    let error = client.blob(&reference(&format!("{}/a", registry.host())), &descriptor, 0).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(evil.requests().is_empty());
}

#[tokio::test]
async fn vuln_c03_a_token_service_on_the_link_is_not_asked() {
    let registry =
        Fault::start(|_, _| challenge("Bearer realm=\"http://169.254.169.254/latest\",service=\"x\"")).await;
    let client = Client::new(config()).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error:?}");
    assert!(error.to_string().contains("169.254.169.254"), "{error}");
}

#[tokio::test]
async fn vuln_c04_a_redirect_to_another_port_carries_neither_credentials_nor_headers() {
    let cdn = Fault::start(|_, _| Reply::new(200, &[], b"bytes")).await;
    let place = format!("http://{}/signed?x=1", cdn.host());
    let registry = Fault::start(move |seen, _| match seen.header("authorization") {
        None => challenge("Basic realm=\"r\""),
        Some(_) => Reply::new(307, &[("Location", &place)], b""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let host = registry.host();
    let text = format!("server = \"http://{host}\"\n[header]\nx-secret = \"s\"\n");
    hosts_toml(folder.path(), &host, &text);
    let client = Client::new(Config {
        hosts_dir: vec![folder.path().to_owned()],
        credentials: Some(Credentials::password("user", "secret")),
        ..config()
    })
    .unwrap();
    let reference = reference(&format!("{host}/a"));
    for _ in 0..2 {
        let stream = client.blob(&reference, &layer(b"bytes"), 0).await.unwrap();
        assert_eq!(drain(stream).await.unwrap(), b"bytes");
    }
    assert_eq!((cdn.requests().len(), cdn.authorized()), (2, 0));
    assert!(cdn.requests().iter().all(|seen| seen.header("x-secret").is_none()));
    assert!(registry.requests().iter().all(|seen| seen.header("x-secret") == Some("s")));
    // Challenge, then redirect; the second blob goes to the remembered place at once.
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn vuln_c05_a_redirect_from_https_to_http_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let plain = Fault::start(|_, _| manifest()).await;
    let place = format!("http://{}/", plain.host());
    let registry = Fault::start_with(Some(certificates.acceptor()), move |_, _| {
        Reply::new(302, &[("Location", &place)], b"")
    })
    .await;
    let client = Client::new(Config { ca_files: vec![certificates.authority()], ..config() }).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
    assert!(error.to_string().contains("plain http"), "{error}");
    assert!(plain.requests().is_empty());
}

#[tokio::test]
async fn vuln_c05_a_token_service_without_tls_gets_nothing_from_a_registry_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let service = tokens().await;
    let realm = format!("Bearer realm=\"http://{}/t\",service=\"x\"", service.host());
    let registry = Fault::start_with(Some(certificates.acceptor()), move |_, _| challenge(&realm)).await;
    let client = Client::new(Config {
        ca_files: vec![certificates.authority()],
        credentials: Some(Credentials::password("user", "secret")),
        ..config()
    })
    .unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error:?}");
    assert!(service.requests().is_empty());
}

/// Helpers are found in `PATH`, which a test may not change for its process: it runs itself again with another.
fn again_with_helper(test: &str, script: &str) {
    let folder = tempfile::tempdir().unwrap();
    write_helper(folder.path(), script);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let this = std::env::current_exe().unwrap();
    let done = Command::new(this)
        .args(["--exact", &format!("credentials::{test}"), "--ignored", "--nocapture"])
        .env("PATH", path)
        .env("HELPER_SEEN", folder.path().join("seen"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn write_helper(folder: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let program = folder.join("docker-credential-test");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn vuln_c06_a_broken_credential_helper_sends_no_other_login() {
    again_with_helper("helper_broken", "cat > \"$HELPER_SEEN\"; echo secret-in-output; exit 1");
}

#[tokio::test]
#[ignore = "run by vuln_c06 with its helper in PATH"]
async fn helper_broken() {
    let registry = Fault::start(|_, _| challenge("Basic realm=\"r\"")).await;
    let folder = tempfile::tempdir().unwrap();
    let host = registry.host();
    // The file has a login for this host too, and one for the hub: neither may be used instead.
    let text = format!(
        "{{\"credHelpers\":{{\"{host}\":\"test\"}},\"auths\":{{\"{host}\":{{\"auth\":\"YTpi\"}},\
         \"https://index.docker.io/v1/\":{{\"auth\":\"YTpi\"}}}}}}"
    );
    let docker_config = Some(docker_config(folder.path(), &text));
    let client = Client::new(Config { docker_config, ..config() }).unwrap();
    let error = client.resolve(&reference(&format!("{host}/a"))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Helper { .. }), "{error:?}");
    let text = words(&error);
    assert!(text.contains("docker-credential-test") && text.contains(&host), "{text}");
    assert!(!text.contains("secret-in-output"), "{text}");
    assert_eq!(registry.authorized(), 0);
    assert_eq!(std::fs::read_to_string(std::env::var("HELPER_SEEN").unwrap()).unwrap(), host);
}

#[test]
fn a_credential_helper_that_works_is_used() {
    again_with_helper(
        "helper_works",
        "cat > /dev/null; echo '{\"ServerURL\":\"x\",\"Username\":\"a\",\"Secret\":\"b\"}'",
    );
}

#[tokio::test]
#[ignore = "run by a_credential_helper_that_works_is_used with its helper in PATH"]
async fn helper_works() {
    let registry = Fault::start(|seen, _| match seen.header("authorization") {
        Some("Basic YTpi") => manifest(),
        _ => challenge("Basic realm=\"r\""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let docker_config = Some(docker_config(folder.path(), r#"{"credsStore":"test"}"#));
    let client = Client::new(Config { docker_config, ..config() }).unwrap();
    client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap();
}

#[test]
fn a_credential_helper_without_a_login_for_the_host_means_anonymous() {
    again_with_helper(
        "helper_empty",
        "cat > /dev/null; echo 'credentials not found in native keychain'; exit 1",
    );
}

#[tokio::test]
#[ignore = "run by a_credential_helper_without_a_login_for_the_host_means_anonymous with its helper in PATH"]
async fn helper_empty() {
    let registry = Fault::start(|_, _| challenge("Basic realm=\"r\"")).await;
    let folder = tempfile::tempdir().unwrap();
    let docker_config = Some(docker_config(folder.path(), r#"{"credsStore":"test"}"#));
    let client = Client::new(Config { docker_config, ..config() }).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { login: Login::Anonymous, .. }), "{error:?}");
}

#[tokio::test]
async fn vuln_c07_a_token_for_one_repository_is_never_shown_for_another() {
    let service = tokens().await;
    let realm = format!("http://{}/token", service.host());
    let registry = Fault::start(move |seen, _| bearer(seen, &realm).unwrap_or_else(manifest)).await;
    let client = Client::new(config()).unwrap();
    for name in ["one/a", "two/b", "one/a", "two/b"] {
        client.resolve(&reference(&format!("{}/{name}", registry.host()))).await.unwrap();
    }
    // Two challenges and two tokens; afterwards each repository has its own.
    assert_eq!((registry.requests().len(), service.requests().len()), (6, 2));
    let shown: Vec<_> =
        registry.requests().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(shown[2], None, "the first request for the second repository carried a token");
}

#[tokio::test]
async fn vuln_c07_a_mirror_never_gets_the_login_of_the_registry() {
    let mirror = Fault::start(|_, _| challenge("Basic realm=\"r\"")).await;
    let registry = Fault::start(|seen, _| match seen.header("authorization") {
        Some(_) => manifest(),
        None => challenge("Basic realm=\"r\""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let host = registry.host();
    let text = format!("server = \"http://{host}\"\n[host.\"http://{}\"]\n", mirror.host());
    hosts_toml(folder.path(), &host, &text);
    let auths = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"YTpi\"}}}}}}");
    let from_file = Config { docker_config: Some(docker_config(folder.path(), &auths)), ..config() };
    let given = Config { credentials: Some(Credentials::password("a", "b")), ..config() };
    for base in [from_file, given] {
        let client = Client::new(Config { hosts_dir: vec![folder.path().to_owned()], ..base }).unwrap();
        client.resolve(&reference(&format!("{host}/a"))).await.unwrap();
    }
    assert_eq!((mirror.requests().len(), mirror.authorized()), (2, 0));
    assert!(mirror.requests()[0].path.ends_with(&format!("?ns={}", host.replace(':', "%3A"))));
    assert_eq!(registry.authorized(), 2);
}

#[tokio::test]
async fn many_requests_at_once_share_one_token() {
    let service = tokens().await;
    let realm = format!("http://{}/token", service.host());
    let registry =
        Fault::start(move |seen, _| bearer(seen, &realm).unwrap_or_else(|| Reply::new(200, &[], b"bytes")))
            .await;
    let client = Client::new(config()).unwrap();
    let name = reference(&format!("{}/a", registry.host()));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (client, name) = (client.clone(), name.clone());
            tokio::spawn(async move {
                drain(client.blob(&name, &layer(b"bytes"), 0).await.unwrap()).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), b"bytes");
    }
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn an_identity_token_is_traded_by_post_and_never_shown_to_the_registry() {
    let service = tokens().await;
    let realm = format!("http://{}/token", service.host());
    let registry = Fault::start(move |seen, _| bearer(seen, &realm).unwrap_or_else(manifest)).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{{\"auths\":{{\"{}\":{{\"identitytoken\":\"very/secret\"}}}}}}", registry.host());
    let docker_config = Some(docker_config(folder.path(), &text));
    let client = Client::new(Config { docker_config, ..config() }).unwrap();
    client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap();
    let asked = service.requests();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].path.as_str()), (1, "POST", "/token"));
    assert!(
        asked[0].body.contains("grant_type=refresh_token")
            && asked[0].body.contains("refresh_token=very%2Fsecret")
    );
    assert!(registry.requests().iter().all(|seen| !format!("{seen:?}").contains("very")));
}

#[tokio::test]
async fn vuln_c13_a_token_without_end_is_refused() {
    let service = Fault::start(|_, _| {
        let body = format!("{{\"token\":\"{}\"}}", "x".repeat(8 << 20));
        Reply::new(200, &[], body.as_bytes())
    })
    .await;
    let realm = format!("http://{}/token", service.host());
    let registry = Fault::start(move |seen, _| bearer(seen, &realm).unwrap_or_else(manifest)).await;
    let client = Client::new(config()).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_of_a_blob_is_replaced_once() {
    let body = content(100_000);
    let service =
        Fault::start(|_, before| Reply::new(200, &[], format!("{{\"token\":\"t{before}\"}}").as_bytes()))
            .await;
    let realm = format!("Bearer realm=\"http://{}/t\",service=\"s\"", service.host());
    let bytes = body.clone();
    let registry = Fault::start(move |seen, before| match (seen.header("authorization"), before) {
        (Some("Bearer t0"), 1) => Reply::ranged(seen, &bytes).cut(40_000, Step::Reset),
        (Some("Bearer t1"), _) => Reply::ranged(seen, &bytes),
        _ => challenge(&realm),
    })
    .await;
    let client = Client::new(config()).unwrap();
    let stream = client.blob(&reference(&format!("{}/a", registry.host())), &layer(&body), 0).await.unwrap();
    assert_eq!(Digest::of(&drain(stream).await.unwrap()), Digest::of(&body));
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn a_refused_login_is_tried_once_and_named() {
    let registry = Fault::start(|_, _| challenge("Basic realm=\"r\"")).await;
    let login = Some(Credentials::password("alice", "hunter2"));
    let client = Client::new(Config { credentials: login, ..config() }).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Unauthorized { login: Login::User(user), .. } if user == "alice")
    );
    assert!(
        error.to_string().contains("alice") && !format!("{error:?}{error}{client:?}").contains("hunter2")
    );
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn vuln_c04_a_token_service_that_moved_gets_the_login_only_at_its_own_origin() {
    for elsewhere in [false, true] {
        let new = tokens().await;
        let place = if elsewhere { format!("http://{}/moved", new.host()) } else { "/moved".to_owned() };
        let service = Fault::start(move |seen, _| match seen.path.starts_with("/moved") {
            false => Reply::new(307, &[("Location", &place)], b""),
            true => Reply::new(200, &[], b"{\"token\":\"t\"}"),
        })
        .await;
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", service.host());
        let registry = Fault::start(move |seen, _| match seen.header("authorization") {
            Some(_) => manifest(),
            None => challenge(&realm),
        })
        .await;
        let login = Some(Credentials::password("user", "secret"));
        let client = Client::new(Config { credentials: login, ..config() }).unwrap();
        client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap();
        let wanted = if elsewhere { (1, 1, 1, 0) } else { (2, 2, 0, 0) };
        let seen = (service.requests().len(), service.authorized(), new.requests().len(), new.authorized());
        assert_eq!(seen, wanted);
    }
}

#[tokio::test]
async fn vuln_c03_a_token_service_does_not_send_us_to_the_link_or_around_in_circles() {
    for place in ["http://169.254.169.254/token", "/token"] {
        let service = Fault::start(move |_, _| Reply::new(302, &[("Location", place)], b"")).await;
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", service.host());
        let registry = Fault::start(move |_, _| challenge(&realm)).await;
        let client = Client::new(config()).unwrap();
        let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
        assert!(service.requests().len() <= 5);
    }
}
