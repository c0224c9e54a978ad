//! Files that tests need: certificates, a password file, Docker's configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str], folder: &Path) {
    let done = Command::new(program).args(arguments).current_dir(folder).stderr(Stdio::piped()).output();
    let done = done.unwrap_or_else(|error| panic!("{program} cannot be started (is it installed?): {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority (`ca.pem`) and a certificate for loopback signed by it (`server.pem`, `server.key`).
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub fn make(folder: &Path) -> Self {
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["req", "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"];
        run("openssl", &[&ca[..], &curve[..]].concat(), folder);
        let request = ["req", "-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"];
        run("openssl", &[&request[..], &curve[..4], &["-nodes"]].concat(), folder);
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem";
        run("openssl", &sign.split(' ').collect::<Vec<_>>(), folder);
        Self { folder: folder.to_owned() }
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// For a scripted server.
    pub fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_file(self.certificate()).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.key()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A `hosts.toml` for `registry` under `root`.
pub fn hosts_toml(root: &Path, registry: &str, text: &str) {
    let folder = root.join(registry);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
}

/// A `config.json` in `folder`.
pub fn docker_config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("config.json");
    std::fs::write(&path, text).unwrap();
    path
}
