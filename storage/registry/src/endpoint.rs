//! Places to ask for a reference: the mirrors of its `hosts.toml` in order, then the registry itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, Uri};

use crate::credentials::is_hub;
use crate::hosts::{Capabilities, HOSTS_BYTES_MAX, HostEntry, HostsError, HostsFile};
use crate::location::{Reach, reach};
use crate::tls::{DIAL_TIMEOUT, Profile};
use crate::{Config, RegistryError};

/// How to speak to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// TLS.
    Https,
    /// Not TLS: it was asked for.
    Http,
    /// On this machine and nothing was said: http, or https if that is what answers.
    Either,
}

/// One place.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    /// Host, with a port if one was given.
    pub(crate) authority: String,
    /// Path in front of the repository: `/v2`.
    pub(crate) prefix: String,
    /// What it may be asked.
    pub(crate) may: Capabilities,
    /// Headers for this place and no other.
    pub(crate) headers: HeaderMap,
    pub(crate) profile: Arc<Profile>,
    /// Registry a mirror stands for (`?ns=`).
    pub(crate) mirrored: Option<String>,
    /// Name under which credentials for this place are filed.
    pub(crate) login: String,
}

const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true };

impl Endpoint {
    /// Address of `path`, which may end with a query, in `repository`, spoken to by `scheme`.
    pub(crate) fn uri(&self, scheme: &str, repository: &str, path: &str) -> Option<Uri> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let ns = self.mirrored.as_ref().map(|ns| format!("{mark}ns={}", escape(ns))).unwrap_or_default();
        format!("{scheme}://{}{}/{repository}/{path}{ns}", self.authority, self.prefix).parse().ok()
    }

    /// Whether the place is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.reach() == Reach::Loopback
    }

    pub(crate) fn reach(&self) -> Reach {
        reach(host_part(&self.authority))
    }
}

/// Percent-encodes what may not stand in a query.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_ascii_alphanumeric() || b"-._~".contains(&c) {
            out.push(char::from(c));
        } else {
            write!(out, "%{c:02X}").expect("writing to a String cannot fail");
        }
        out
    })
}

/// Host of `host:port` or `[v6]:port`.
fn host_part(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The places to ask for `registry`, in order. Files are read anew each time, as containerd does.
///
/// # Errors
/// [`RegistryError::Hosts`] and [`RegistryError::Certificate`] for files that are there and unusable.
pub(crate) fn endpoints(config: &Config, registry: &str) -> Result<Vec<Endpoint>, RegistryError> {
    let Some(folder) = host_folder(&config.hosts_dir, registry) else {
        return Ok(vec![upstream(config, registry, &HostEntry::default(), Path::new(""))?]);
    };
    let path = folder.join("hosts.toml");
    let unusable = |source| RegistryError::Hosts { path: path.clone(), source };
    let file = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let server = docker_layout(&folder).map_err(|error| unusable(HostsError::Read(error)))?;
            HostsFile { server, hosts: Vec::new() }
        }
        Err(error) => return Err(unusable(HostsError::Read(error))),
        Ok(found) if found.len() > HOSTS_BYTES_MAX as u64 => {
            return Err(unusable(HostsError::TooLarge(found.len() as usize)));
        }
        Ok(_) => {
            let text = std::fs::read_to_string(&path).map_err(|error| unusable(HostsError::Read(error)))?;
            HostsFile::parse(&text).map_err(unusable)?
        }
    };
    let mut places = Vec::new();
    for entry in &file.hosts {
        if let Some(url) = &entry.url {
            places.push(mirror(config, registry, entry, url, &folder)?);
        }
    }
    places.push(upstream(config, registry, &file.server, &folder)?);
    Ok(places)
}

/// The directory of `registry`: `host_port_`, `host:port`, then `_default`, in the first root that has one.
fn host_folder(roots: &[PathBuf], registry: &str) -> Option<PathBuf> {
    let mut names = vec![registry.to_owned(), "_default".to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        names.insert(0, format!("{host}_{port}_"));
    }
    let candidates = roots.iter().flat_map(|root| names.iter().map(move |name| root.join(name)));
    candidates.into_iter().find(|folder| folder.is_dir())
}

/// Docker's layout of a host directory: `*.crt` are authorities, `NAME.cert` with `NAME.key` client pairs.
fn docker_layout(folder: &Path) -> std::io::Result<HostEntry> {
    let mut entry = HostEntry::default();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => entry.ca.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                entry.client.push((file, Some(key)));
            }
            _ => {}
        }
    }
    Ok(entry)
}

fn profile(config: &Config, entry: &HostEntry, folder: &Path) -> Result<Arc<Profile>, RegistryError> {
    let mut roots = config.ca_files.clone();
    roots.extend(entry.ca.iter().map(|ca| folder.join(ca)));
    let clients: Vec<_> = entry
        .client
        .iter()
        .map(|(certificate, key)| (folder.join(certificate), key.as_ref().map(|key| folder.join(key))))
        .collect();
    let skip = config.skip_verify || entry.skip_verify;
    let dial = entry.dial_timeout.unwrap_or(DIAL_TIMEOUT);
    Ok(Arc::new(Profile::load(&roots, &clients, skip, dial)?))
}

/// Path in front of the repository, as containerd puts it together.
fn prefix(url: &Uri, override_path: bool) -> String {
    let path = url.path().trim_end_matches('/');
    if override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") }
}

fn scheme_of(url: &Uri) -> Scheme {
    if url.scheme_str() == Some("http") { Scheme::Http } else { Scheme::Https }
}

fn mirror(
    config: &Config,
    registry: &str,
    entry: &HostEntry,
    url: &Uri,
    folder: &Path,
) -> Result<Endpoint, RegistryError> {
    let authority = url.authority().map_or_else(String::new, ToString::to_string);
    let itself = authority == registry || (is_hub(registry) && is_hub(&authority));
    Ok(Endpoint {
        scheme: scheme_of(url),
        prefix: prefix(url, entry.override_path),
        may: entry.capabilities.unwrap_or(ALL),
        headers: entry.headers.clone(),
        profile: profile(config, entry, folder)?,
        mirrored: (!itself).then(|| registry.to_owned()),
        login: if itself { registry.to_owned() } else { authority.clone() },
        authority,
    })
}

/// The registry itself: `server` of the file, or its own name.
fn upstream(
    config: &Config,
    registry: &str,
    entry: &HostEntry,
    folder: &Path,
) -> Result<Endpoint, RegistryError> {
    if let Some(url) = &entry.url {
        return mirror(config, registry, entry, url, folder);
    }
    let authority = if is_hub(registry) { "registry-1.docker.io" } else { registry }.to_owned();
    let local = reach(host_part(&authority)) == Reach::Loopback;
    let port = authority[host_part(&authority).len()..].trim_start_matches(':');
    let said_tls = config.skip_verify
        || !config.ca_files.is_empty()
        || entry.skip_verify
        || !entry.ca.is_empty()
        || !entry.client.is_empty();
    let scheme = if config.plain_http {
        Scheme::Http
    } else if local && !said_tls && !matches!(port, "" | "443") {
        Scheme::Either
    } else {
        Scheme::Https
    };
    Ok(Endpoint {
        scheme,
        authority,
        prefix: "/v2".to_owned(),
        may: entry.capabilities.unwrap_or(ALL),
        headers: entry.headers.clone(),
        profile: profile(config, entry, folder)?,
        mirrored: None,
        login: registry.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(config: &Config, registry: &str) -> Vec<Endpoint> {
        endpoints(config, registry).unwrap()
    }

    #[test]
    fn docker_hub_is_asked_under_its_real_name_and_only_loopback_may_be_http_unasked() {
        let config = Config::default();
        let hub = &places(&config, "docker.io")[0];
        let uri = hub.uri("https", "library/alpine", "manifests/latest").unwrap();
        assert_eq!(uri, "https://registry-1.docker.io/v2/library/alpine/manifests/latest");
        for (registry, scheme) in [
            ("example.com:5000", Scheme::Https),
            ("10.0.0.1:5000", Scheme::Https),
            ("localhost", Scheme::Https),
            ("localhost:443", Scheme::Https),
            ("localhost:5000", Scheme::Either),
            ("127.0.0.1:5000", Scheme::Either),
            ("[::1]:5000", Scheme::Either),
        ] {
            assert_eq!(places(&config, registry)[0].scheme, scheme, "{registry}");
        }
        let plain = Config { plain_http: true, ..Config::default() };
        assert_eq!(places(&plain, "example.com")[0].scheme, Scheme::Http);
    }

    #[test]
    fn the_first_directory_that_exists_is_the_only_one_used() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("hosts.toml"), text).unwrap();
        };
        write("_default", "[host.\"https://default.example\"]\n");
        write("h.example:5000", "[host.\"https://colon.example\"]\n");
        let config = Config { hosts_dir: vec![root.path().to_owned()], ..Config::default() };
        let names = |registry: &str| -> Vec<String> {
            places(&config, registry).into_iter().map(|place| place.authority).collect()
        };
        assert_eq!(names("other.example"), ["default.example", "other.example"]);
        assert_eq!(names("h.example:5000"), ["colon.example", "h.example:5000"]);
        write("h.example_5000_", "server = \"http://up.example/base\"\n[host.\"https://m.example/x/v2\"]\n");
        assert_eq!(names("h.example:5000"), ["m.example", "up.example"]);
        let found = places(&config, "h.example:5000");
        assert_eq!((found[0].prefix.as_str(), found[1].prefix.as_str()), ("/x/v2", "/base/v2"));
        let uri = found[0].uri("https", "a/b", "blobs/c").unwrap();
        assert_eq!(uri, "https://m.example/x/v2/a/b/blobs/c?ns=h.example%3A5000");
    }

    #[test]
    fn vuln_c07_a_mirror_has_credentials_under_its_own_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("docker.io")).unwrap();
        std::fs::write(
            root.path().join("docker.io/hosts.toml"),
            "server = \"https://registry-1.docker.io\"\n[host.\"https://m.example\"]\n",
        )
        .unwrap();
        let config = Config { hosts_dir: vec![root.path().to_owned()], ..Config::default() };
        let logins: Vec<_> = places(&config, "docker.io").into_iter().map(|place| place.login).collect();
        assert_eq!(logins, ["m.example", "docker.io"]);
    }

    #[test]
    fn a_broken_file_names_itself() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a.example")).unwrap();
        std::fs::write(root.path().join("a.example/hosts.toml"), "server =\n").unwrap();
        let config = Config { hosts_dir: vec![root.path().to_owned()], ..Config::default() };
        let error = endpoints(&config, "a.example").unwrap_err();
        assert!(error.to_string().contains("a.example/hosts.toml"), "{error}");
    }
}
