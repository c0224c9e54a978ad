//! Against a real `docker-registry`, with images pushed by `oci-client`.

use crate::common::files::{Certificates, docker_config, hosts_toml};
use crate::common::registry::Registry;
use crate::common::{config, content, drain, layer, reference, words};
use oci_client::client::{ClientConfig, ClientProtocol, Config as PeerConfig, ImageLayer};
use oci_client::secrets::RegistryAuth;
use storage_model::{Document, media};
use storage_registry::{Client, Config, Credentials, Login, RegistryError};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// Pushes an image with one layer as `repository:v1`.
async fn push(registry: &Registry, repository: &str, bytes: &[u8], auth: &RegistryAuth) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let protocol = ClientProtocol::Http;
    let peer = oci_client::Client::new(ClientConfig { protocol, ..ClientConfig::default() });
    let name: oci_client::Reference = format!("{}/{repository}:v1", registry.host()).parse().unwrap();
    let layers = [ImageLayer::new(bytes.to_vec(), media::OCI_LAYER_GZIP.to_owned(), None)];
    let image_config = PeerConfig::new(CONFIG.to_vec(), media::OCI_CONFIG.to_owned(), None);
    peer.push(&name, &layers, image_config, auth, None).await.unwrap();
}

/// Pulls `repository:v1` by our client and gives its only layer.
async fn pull(client: &Client, name: &str) -> Result<Vec<u8>, RegistryError> {
    let name = reference(name);
    let resolved = client.resolve(&name).await?;
    let bytes = client.manifest(&name, &resolved.descriptor).await?;
    assert_eq!(resolved.bytes.as_ref(), Some(&bytes));
    let document = Document::parse(&resolved.descriptor.media_type, &bytes).unwrap();
    let [config, layer] = document.children()[..] else { panic!("not a manifest with one layer") };
    assert_eq!(client.small_blob(&name, config, 1 << 20).await?, CONFIG);
    drain(client.blob(&name, layer, 0).await?).await
}

#[tokio::test]
async fn an_image_pushed_by_another_client_comes_back_whole_and_from_any_offset() {
    let registry = Registry::start(None, None);
    let bytes = content(3_000_000);
    push(&registry, "some/image", &bytes, &RegistryAuth::Anonymous).await;
    let client = Client::new(config()).unwrap();
    let name = format!("{}/some/image:v1", registry.host());
    assert_eq!(pull(&client, &name).await.unwrap(), bytes);
    for offset in [1, 65_536, 2_999_999, 3_000_000] {
        let stream = client.blob(&reference(&name), &layer(&bytes), offset as u64).await.unwrap();
        assert_eq!(drain(stream).await.unwrap(), &bytes[offset..], "from {offset}");
    }
    let missing =
        client.resolve(&reference(&format!("{}/some/image:v2", registry.host()))).await.unwrap_err();
    assert!(matches!(missing, RegistryError::NotFound { .. }), "{missing:?}");
    assert!(missing.to_string().contains("some/image:v2"), "{missing}");
    let blob = client.blob(&reference(&name), &layer(b"never pushed"), 0).await.unwrap_err();
    assert!(matches!(blob, RegistryError::NotFound { .. }), "{blob:?}");
}

#[tokio::test]
async fn a_registry_with_a_login_opens_to_the_right_one_only() {
    let registry = Registry::start(Some(("alice", "hunter2")), None);
    let auth = RegistryAuth::Basic("alice".to_owned(), "hunter2".to_owned());
    push(&registry, "a", b"layer", &auth).await;
    let name = format!("{}/a:v1", registry.host());
    let with = |credentials| Client::new(Config { credentials, ..config() }).unwrap();
    let anonymous = pull(&with(None), &name).await.unwrap_err();
    assert!(
        matches!(anonymous, RegistryError::Unauthorized { login: Login::Anonymous, .. }),
        "{anonymous:?}"
    );
    let wrong = pull(&with(Some(Credentials::password("alice", "wrong"))), &name).await.unwrap_err();
    assert!(matches!(wrong, RegistryError::Unauthorized { login: Login::User(_), .. }), "{wrong:?}");
    let right = pull(&with(Some(Credentials::password("alice", "hunter2"))), &name).await;
    assert_eq!(right.unwrap(), b"layer");
    // alice:hunter2
    let text =
        format!("{{\"auths\":{{\"http://{}/v2/\":{{\"auth\":\"YWxpY2U6aHVudGVyMg==\"}}}}}}", registry.host());
    let docker_config = Some(docker_config(registry.folder(), &text));
    let client = Client::new(Config { docker_config, ..config() }).unwrap();
    assert_eq!(pull(&client, &name).await.unwrap(), b"layer");
}

#[tokio::test]
async fn tls_works_with_a_known_authority_and_says_what_is_missing_without() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path());
    let registry = Registry::start(None, Some(&certificates));
    // Loopback speaks http until told otherwise: the client finds out, and then checks the certificate.
    let name = format!("{}/a:v1", registry.host());
    let error = Client::new(config()).unwrap().resolve(&reference(&name)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert!(words(&error).contains("authority") && error.to_string().contains("hosts.toml"), "{error}");
    let found = |client: Client| async move { client.resolve(&reference(&name.clone())).await.unwrap_err() };
    let trusting = Config { ca_files: vec![certificates.authority()], ..config() };
    let skipping = Config { skip_verify: true, ..config() };
    let root = folder.path().join("hosts");
    let text = format!(
        "server = \"https://{0}\"\nca = \"{1}\"\n",
        registry.host(),
        certificates.authority().display()
    );
    hosts_toml(&root, &registry.host(), &text);
    let configured = Config { hosts_dir: vec![root], ..config() };
    for works in [trusting, skipping, configured] {
        let error = found.clone()(Client::new(works).unwrap()).await;
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    }
    let mixed = found(Client::new(Config { plain_http: true, ..config() }).unwrap()).await;
    assert!(matches!(mixed, RegistryError::SpeaksHttps { .. }), "{mixed:?}");
}

#[tokio::test]
async fn a_registry_without_tls_asked_with_tls_is_told_from_a_broken_one() {
    let registry = Registry::start(None, None);
    let root = tempfile::tempdir().unwrap();
    hosts_toml(root.path(), &registry.host(), &format!("server = \"https://{}\"\n", registry.host()));
    let client = Client::new(Config { hosts_dir: vec![root.path().to_owned()], ..config() }).unwrap();
    let error = client.resolve(&reference(&format!("{}/a", registry.host()))).await.unwrap_err();
    assert!(matches!(error, RegistryError::SpeaksHttp { .. }), "{error:?}");
    assert!(error.to_string().contains("--plain-http"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-a-ca.pem");
    std::fs::write(&file, "hello").unwrap();
    let error = Client::new(Config { ca_files: vec![file], ..config() }).unwrap_err();
    assert!(error.to_string().contains("not-a-ca.pem"), "{error}");
}
