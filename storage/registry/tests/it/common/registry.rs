//! A real registry (`docker-registry` of Debian) on a free port of loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::files::{Certificates, run};

/// The registry; it is stopped and its files removed when dropped.
pub struct Registry {
    pub port: u16,
    process: Child,
    folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// Starts one; with `login` it wants that user and password, with certificates it speaks TLS.
    pub fn start(login: Option<(&str, &str)>, tls: Option<&Certificates>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {0}/data}}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            folder.path().display()
        );
        if let Some(tls) = tls {
            let (certificate, key) = (tls.certificate(), tls.key());
            text += &format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        }
        if let Some((user, password)) = login {
            run("htpasswd", &["-Bbc", "passwords", user, password], folder.path());
            text +=
                &format!("auth:\n  htpasswd: {{realm: test, path: {}/passwords}}\n", folder.path().display());
        }
        std::fs::write(folder.path().join("config.yml"), text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry must be installed (apt-get install docker-registry)");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "docker-registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, process, folder }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
