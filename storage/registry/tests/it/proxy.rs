//! Through a proxy: what it sees, and what it does not.

use std::sync::{Arc, Mutex};

use storage_model::{Descriptor, media};
use storage_registry::{Client, Config, Credentials, Proxies, RegistryError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::common::fault::{Fault, Reply};
use crate::common::files::Certificates;
use crate::common::{config, content, drain, layer, reference, words};

const MANIFEST: &[u8] = b"{\"schemaVersion\":2}";

fn manifest() -> Reply {
    Reply::new(200, &[("Content-Type", media::OCI_MANIFEST)], MANIFEST)
}

/// A proxy that tunnels everything to `target`, and keeps the heads of the requests it saw.
async fn tunnel(target: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.ok()?);
                }
                kept.lock().unwrap().push(String::from_utf8(head).ok()?);
                let mut server = TcpStream::connect(target).await.ok()?;
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn plain_http_goes_to_the_proxy_whole_and_only_the_proxy_gets_its_login() {
    let proxy = Fault::start(|_, _| manifest()).await;
    let through = format!("http://user:secret@{}", proxy.host());
    let proxies = Proxies::through(&through, "");
    let client = Client::new(Config { plain_http: true, proxies, ..config() }).unwrap();
    let resolved = client.resolve(&reference("registry.invalid/a:1")).await.unwrap();
    assert_eq!(resolved.descriptor, Descriptor::of(media::OCI_MANIFEST, MANIFEST));
    let asked = proxy.requests();
    assert_eq!(asked[0].path, "http://registry.invalid/v2/a/manifests/1");
    // user:secret
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(asked[0].header("host"), Some("registry.invalid"));
}

#[tokio::test]
async fn vuln_c05_https_is_tunnelled_and_the_proxy_sees_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let bytes = content(300_000);
    let body = bytes.clone();
    let registry = Fault::start_with(Some(certificates.acceptor()), move |seen, _| {
        match (seen.header("authorization"), seen.method.as_str()) {
            (None, _) => Reply::new(401, &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
            (_, "GET") => Reply::new(200, &[], &body),
            (_, "HEAD") => Reply::new(404, &[], b""),
            (_, "POST") => Reply::new(202, &[("Location", "/v2/a/blobs/uploads/1")], b""),
            _ => Reply::new(201, &[], b""),
        }
    })
    .await;
    let (proxy, seen) = tunnel(registry.address).await;
    let proxies = Proxies::through(&format!("http://user:secret@{proxy}"), "");
    let login = Some(Credentials::password("alice", "hunter2"));
    let client = Client::new(Config { skip_verify: true, credentials: login, proxies, ..config() }).unwrap();
    let name = reference("registry.invalid/a:1");
    assert_eq!(drain(client.blob(&name, &layer(&bytes), 0).await.unwrap()).await.unwrap(), bytes);
    let source = || Ok(std::io::Cursor::new(bytes.clone()));
    client.push_blob(&name, &layer(&bytes), source, &[], Arc::new(|_| ())).await.unwrap();
    for head in seen.lock().unwrap().iter() {
        assert!(head.starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpzzwnyzxq="), "{head}");
    }
    assert!(!registry.requests().is_empty());
    assert!(registry.requests().iter().all(|seen| seen.header("proxy-authorization").is_none()));
}

#[tokio::test]
async fn an_exception_is_asked_directly_and_a_proxy_that_is_not_there_is_an_error() {
    let registry = Fault::start(|_, _| manifest()).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxies = Proxies::through(&format!("http://{gone}"), "");
    let client = Client::new(Config { proxies, ..config() }).unwrap();
    client.resolve(&reference(&format!("{}/a:1", registry.host()))).await.unwrap();
    let error = client.resolve(&reference("registry.invalid/a:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error:?}");
    assert!(!words(&error).is_empty());
}
