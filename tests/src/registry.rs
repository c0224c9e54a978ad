//! A real registry on a free loopback port: Debian's `docker-registry`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use storage_model::Digest;
use tempfile::TempDir;

use crate::Image;
use crate::process::wait_until;

/// The running registry; it ends, and its files go, when this is dropped.
#[derive(Debug)]
pub struct Registry {
    directory: TempDir,
    child: Child,
    address: String,
    login: Option<(String, String)>,
}

impl Registry {
    /// Starts one that lets everybody in.
    ///
    /// # Errors
    /// `docker-registry` is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::launch(None, false)
    }

    /// Starts one that lets everybody in and notes every request, for [`Registry::fetches`].
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_counting() -> Result<Self> {
        Self::launch(None, true)
    }

    /// Starts one that asks for this name and password.
    ///
    /// # Errors
    /// As [`Registry::start`]; or `htpasswd` is not installed.
    pub fn start_with_login(user: &str, password: &str) -> Result<Self> {
        Self::launch(Some((user.to_owned(), password.to_owned())), false)
    }

    fn launch(login: Option<(String, String)>, counting: bool) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-registry.").tempdir()?;
        let path = directory.path();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: {}}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            !counting,
            path.join("data").display()
        );
        if let Some((user, password)) = &login {
            let output = Command::new("htpasswd").args(["-nbB", user, password]).output();
            let output = output.context("htpasswd: apt-get install apache2-utils")?;
            ensure!(output.status.success(), "htpasswd failed: {}", String::from_utf8_lossy(&output.stderr));
            fs::write(path.join("users"), &output.stdout)?;
            let users = path.join("users");
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()));
        }
        fs::write(path.join("config.yml"), config)?;
        let log = path.join("log");
        let file = fs::File::create(&log)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(path.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("docker-registry cannot be started: apt-get install docker-registry")?;
        let mut registry = Self { directory, child, address: String::new(), login };
        // Port 0 was asked for; the log tells which one was given.
        let mut address = None;
        wait_until("docker-registry listens", Duration::from_secs(20), || {
            address = listening(&fs::read_to_string(&log).unwrap_or_default());
            address.is_some()
        })?;
        registry.address = address.context("just found")?;
        Ok(registry)
    }

    /// `host:port`, as it stands in a reference.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference into this registry.
    pub fn reference(&self, name_and_tag: &str) -> String {
        format!("{}/{name_and_tag}", self.address)
    }

    /// Pushes an image under `name` and `tag` and returns its reference.
    ///
    /// # Errors
    /// The registry refuses a part of it.
    pub fn push(&self, image: &Image, name: &str, tag: &str) -> Result<String> {
        for (digest, bytes) in &image.blobs {
            self.push_blob(name, digest, bytes)?;
        }
        for (descriptor, bytes) in &image.manifests {
            self.push_manifest(name, &descriptor.digest.to_string(), &descriptor.media_type, bytes)?;
        }
        self.push_manifest(name, tag, &image.root.media_type, &image.document)?;
        Ok(self.reference(&format!("{name}:{tag}")))
    }

    /// Pushes one blob.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_blob(&self, name: &str, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let opened = self.request("POST", &format!("/v2/{name}/blobs/uploads/"), "application/json", b"")?;
        ensure!(opened.status == 202, "an upload was answered with {}: {}", opened.status, opened.body);
        let location = opened.location.context("the upload has no location")?;
        let path = location.split_once(&self.address).map_or(location.as_str(), |(_, path)| path);
        let mark = if path.contains('?') { '&' } else { '?' };
        let stored =
            self.request("PUT", &format!("{path}{mark}digest={digest}"), "application/octet-stream", bytes)?;
        ensure!(stored.status == 201, "blob {digest} was answered with {}: {}", stored.status, stored.body);
        Ok(())
    }

    /// Pushes one manifest or index under a tag or digest.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let stored = self.request("PUT", &format!("/v2/{name}/manifests/{tag}"), media_type, bytes)?;
        ensure!(
            stored.status == 201,
            "manifest {name}:{tag} was answered with {}: {}",
            stored.status,
            stored.body
        );
        Ok(())
    }

    /// File in which the registry keeps a blob: a test may damage it, the registry does not look.
    pub fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs: &Path = Path::new("data/docker/registry/v2/blobs/sha256");
        self.directory.path().join(blobs).join(&hex[..2]).join(hex).join("data")
    }

    /// How often each blob was asked for, by digest, since the registry started. It must count.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn fetches(&self) -> Result<BTreeMap<String, usize>> {
        let log = fs::read_to_string(self.directory.path().join("log"))?;
        let mut found = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains("\"GET /v2/")) {
            let Some((_, rest)) = line.split_once("/blobs/") else { continue };
            *found.entry(rest.split([' ', '?']).next().unwrap_or(rest).to_owned()).or_default() += 1;
        }
        Ok(found)
    }

    /// Bytes of blobs that it sent since it started, as its log has them. It must count.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn sent_bytes(&self) -> Result<u64> {
        let log = fs::read_to_string(self.directory.path().join("log"))?;
        let of_blobs = log.lines().filter(|line| line.contains("\"GET /v2/") && line.contains("/blobs/"));
        // After the request in quotes: status, then bytes.
        let bytes = |line: &str| line.split("HTTP/1.1\" ").nth(1)?.split(' ').nth(1)?.parse::<u64>().ok();
        Ok(of_blobs.filter_map(bytes).sum())
    }

    fn request(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        let login = self.login.as_ref().map_or_else(String::new, |(user, password)| {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Authorization: Basic {pair}\r\n")
        });
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{login}Content-Type: {media_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.address,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Answer::parse(&String::from_utf8_lossy(&answer))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the log line that announces it.
fn listening(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    Some(rest[..end].to_owned())
}

/// What the registry said.
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Result<Self> {
        let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("no HTTP answer: {text:?}") };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.to_owned())
        });
        Ok(Self { status, location, body: body.to_owned() })
    }
}
