//! `hosts.toml`: which places serve a registry, as containerd reads it (its `docs/hosts.md`).
//!
//! This file is the reader of the text; finding the file, and turning an entry into something to connect to, is
//! `endpoint.rs`. One difference is meant: a file that does not parse is an error here, where containerd logs it and
//! goes past the mirror.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use toml::{Table, Value};

/// Largest `hosts.toml` that is read, in bytes.
pub const HOSTS_BYTES_MAX: usize = 1024 * 1024;
/// Most hosts one file may list.
pub const HOSTS_MAX: usize = 64;

/// A `hosts.toml`.
#[derive(Debug, Clone, Default)]
pub struct HostsFile {
    /// `server` and the settings beside it: the registry itself, asked last.
    pub server: HostEntry,
    /// `[host."URL"]` in the order of the file.
    pub hosts: Vec<HostEntry>,
}

/// One place and how to talk to it.
#[derive(Debug, Clone, Default)]
pub struct HostEntry {
    /// Its address; absent only for a `server` that is not given.
    pub url: Option<Uri>,
    /// `pull`: may serve content by digest. `None`: not said.
    pub capabilities: Option<Capabilities>,
    /// PEM files of authorities to trust here.
    pub ca: Vec<PathBuf>,
    /// Client certificates, each with its key (or with the key in the same file).
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Accept any certificate here.
    pub skip_verify: bool,
    /// Headers sent with each request here and nowhere else.
    pub headers: HeaderMap,
    /// The path of the address is whole: no `/v2` is added.
    pub override_path: bool,
    /// Longest wait for a connection.
    pub dial_timeout: Option<Duration>,
}

/// What a place is trusted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Serve content by digest.
    pub pull: bool,
    /// Say which digest a tag has.
    pub resolve: bool,
    /// Take content.
    pub push: bool,
}

/// Why a `hosts.toml`, or a directory that holds one, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// Longer than any real one.
    #[error("it has {0} bytes: at most {HOSTS_BYTES_MAX} are read")]
    TooLarge(usize),
    /// More hosts than anybody waits for.
    #[error("it lists {0} hosts: at most {HOSTS_MAX} are read")]
    TooMany(usize),
    /// Not TOML.
    #[error("it is not valid TOML")]
    Syntax(#[source] Box<toml::de::Error>),
    /// An address that is none.
    #[error("{0:?} is not an http or https address")]
    Address(String),
    /// A field with a value of another kind than containerd takes.
    #[error("{field} of {host:?} should be {wanted}")]
    Field {
        /// The host, or `server`.
        host: String,
        /// The field.
        field: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
}

impl HostsFile {
    /// Reads the text of a `hosts.toml`. Unknown fields are ignored, as containerd does.
    ///
    /// # Errors
    /// [`HostsError`]: not TOML, an address that is none, or a field of the wrong kind.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        if text.len() > HOSTS_BYTES_MAX {
            return Err(HostsError::TooLarge(text.len()));
        }
        let root: Table = toml::from_str(text).map_err(|error| HostsError::Syntax(Box::new(error)))?;
        let mut server = HostEntry::read("server", &root)?;
        if let Some(address) = root.get("server") {
            let fault = || field("server", "server", "an address in quotes");
            server.url = Some(address_of(address.as_str().ok_or_else(fault)?)?);
        }
        let mut hosts = Vec::new();
        if let Some(listed) = root.get("host") {
            let listed = listed.as_table().ok_or_else(|| field("host", "host", "tables [host.\"URL\"]"))?;
            if listed.len() > HOSTS_MAX {
                return Err(HostsError::TooMany(listed.len()));
            }
            for (address, settings) in listed {
                let settings = settings.as_table().ok_or_else(|| field(address, "host", "a table"))?;
                let mut entry = HostEntry::read(address, settings)?;
                entry.url = Some(address_of(address)?);
                hosts.push(entry);
            }
        }
        Ok(Self { server, hosts })
    }
}

impl HostEntry {
    fn read(host: &str, table: &Table) -> Result<Self, HostsError> {
        Ok(Self {
            url: None,
            capabilities: table.get("capabilities").map(|value| capabilities(host, value)).transpose()?,
            ca: match table.get("ca") {
                None => Vec::new(),
                Some(value) => {
                    let names = strings(value);
                    let names = names.ok_or_else(|| field(host, "ca", "a file name or a list of them"))?;
                    names.into_iter().map(PathBuf::from).collect()
                }
            },
            client: table.get("client").map(|value| clients(host, value)).transpose()?.unwrap_or_default(),
            skip_verify: boolean(host, table, "skip_verify")?,
            headers: table.get("header").map(|value| headers(host, value)).transpose()?.unwrap_or_default(),
            override_path: boolean(host, table, "override_path")?,
            dial_timeout: match table.get("dial_timeout") {
                None => None,
                Some(value) => {
                    let parsed = value.as_str().and_then(go_duration);
                    Some(parsed.ok_or_else(|| field(host, "dial_timeout", "a duration like \"5s\""))?)
                }
            },
        })
    }
}

fn field(host: &str, field: &'static str, wanted: &'static str) -> HostsError {
    HostsError::Field { host: host.chars().take(200).collect(), field, wanted }
}

/// An address; without a scheme it is https.
fn address_of(text: &str) -> Result<Uri, HostsError> {
    let bad = || HostsError::Address(text.chars().take(200).collect());
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = whole.parse().map_err(|_| bad())?;
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty());
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    if plain && known && uri.query().is_none() { Ok(uri) } else { Err(bad()) }
}

fn boolean(host: &str, table: &Table, name: &'static str) -> Result<bool, HostsError> {
    match table.get(name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| field(host, name, "true or false")),
    }
}

/// A string or a list of strings.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn capabilities(host: &str, value: &Value) -> Result<Capabilities, HostsError> {
    let listed = value.as_array().and_then(|_| strings(value));
    let listed = listed.ok_or_else(|| field(host, "capabilities", "a list of \"pull\", \"resolve\", ..."))?;
    let has = |name: &str| listed.iter().any(|item| item.eq_ignore_ascii_case(name));
    Ok(Capabilities { pull: has("pull"), resolve: has("resolve"), push: has("push") })
}

/// A file, a list of files, or a list of pairs of files.
fn clients(host: &str, value: &Value) -> Result<Vec<(PathBuf, Option<PathBuf>)>, HostsError> {
    let bad = || field(host, "client", "a file name, a list of them, or a list of [certificate, key]");
    let one = |item: &Value| -> Result<(PathBuf, Option<PathBuf>), HostsError> {
        match (item.as_str(), strings(item).as_deref()) {
            (Some(both), _) => Ok((both.into(), None)),
            (None, Some([both])) => Ok((both.into(), None)),
            (None, Some([certificate, key])) if key.is_empty() => Ok((certificate.into(), None)),
            (None, Some([certificate, key])) => Ok((certificate.into(), Some(key.into()))),
            _ => Err(bad()),
        }
    };
    match value {
        Value::String(_) => Ok(vec![one(value)?]),
        Value::Array(items) => items.iter().map(one).collect(),
        _ => Err(bad()),
    }
}

/// Header values may be secrets: they are marked so that `Debug` hides them.
fn headers(host: &str, value: &Value) -> Result<HeaderMap, HostsError> {
    let bad = || field(host, "header", "header names with a string or a list of strings each");
    let mut map = HeaderMap::new();
    for (name, values) in value.as_table().ok_or_else(bad)? {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        for text in strings(values).ok_or_else(bad)? {
            let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
            value.set_sensitive(true);
            map.append(&name, value);
        }
    }
    Ok(map)
}

/// A duration as Go writes it (`1m30s`, `500ms`, `1.5h`), up to a day.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        total += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    (total > 0.0 && total <= 86_400.0).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_containerds_documentation_is_read_in_its_order() {
        let text = r#"
server = "https://registry-1.docker.io"
capabilities = ["pull"]
[host."https://z.example:5000"]
  capabilities = ["pull", "resolve"]
  ca = "ca.pem"
  client = [["c.cert", "c.key"], ["both.pem", ""]]
  override_path = true
  dial_timeout = "1m30s"
  unknown = 7
  [host."https://z.example:5000".header]
    x-custom = ["a", "b"]
    authorization = "Bearer hunter2"
[host."http://a.example"]
  skip_verify = true
[host."bare.example:7000"]
  client = "one.pem"
"#;
        let file = HostsFile::parse(text).unwrap();
        let names: Vec<_> = file.hosts.iter().map(|h| h.url.as_ref().unwrap().to_string()).collect();
        assert_eq!(names, ["https://z.example:5000/", "http://a.example/", "https://bare.example:7000/"]);
        let z = &file.hosts[0];
        assert_eq!(z.capabilities, Some(Capabilities { pull: true, resolve: true, push: false }));
        assert_eq!(z.ca, [PathBuf::from("ca.pem")]);
        assert_eq!(z.client, [("c.cert".into(), Some("c.key".into())), ("both.pem".into(), None)]);
        assert!(z.override_path && !z.skip_verify);
        assert_eq!(z.dial_timeout, Some(Duration::from_secs(90)));
        assert_eq!(z.headers.get_all("x-custom").iter().count(), 2);
        assert!(!format!("{file:?}").contains("hunter2"));
        assert!(file.hosts[1].skip_verify);
        assert_eq!(file.hosts[2].client, [("one.pem".into(), None)]);
        assert_eq!(file.server.url.as_ref().unwrap().host(), Some("registry-1.docker.io"));
        assert_eq!(file.server.capabilities, Some(Capabilities { pull: true, resolve: false, push: false }));
    }

    #[test]
    fn a_mistake_is_an_error_and_never_a_mirror_that_is_silently_dropped() {
        for text in [
            "server = ",
            "server = 5",
            "server = \"ftp://a\"",
            "server = \"https://user:pw@a\"",
            "host = 1",
            "[host.\"https://a\"]\ncapabilities = \"pull\"",
            "[host.\"https://a\"]\nca = 1",
            "[host.\"https://a\"]\nclient = [[\"a\",\"b\",\"c\"]]",
            "[host.\"https://a\"]\nskip_verify = \"yes\"",
            "[host.\"https://a\"]\ndial_timeout = \"soon\"",
            "[host.\"https://a\"]\nheader = {\"a b\" = \"c\"}",
            "[host.\"https://a b\"]",
        ] {
            assert!(HostsFile::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            let _ = HostsFile::parse(&text);
        }
    }
}
