//! `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container: files beside its record, mounted over the image's.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::NetworkError;

/// How names are resolved; what is empty is taken from the network, then from this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains that short names are looked up in.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty() && self.options.is_empty()
    }

    /// This, and where it says nothing, `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        let choose = |own: Vec<String>, other: Vec<String>| if own.is_empty() { other } else { own };
        Self {
            servers: choose(self.servers, other.servers),
            search: choose(self.search, other.search),
            options: choose(self.options, other.options),
        }
    }

    fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => dns.search = words.map(str::to_owned).collect(),
                Some("options") => dns.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        dns
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// A file to be mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameFile {
    /// On the machine.
    pub source: PathBuf,
    /// In the container.
    pub destination: &'static str,
}

const RESOLV: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";

/// Where systemd-resolved says which servers it asks, when `/etc/resolv.conf` only names its own loopback address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// How this machine resolves names, as far as a container on another network can do the same.
pub(crate) fn machine_dns() -> Dns {
    let read = |path: &str| Dns::parse(&fs::read_to_string(path).unwrap_or_default());
    let mut dns = read(RESOLV);
    if dns.servers.iter().all(|server| is_loopback(server)) {
        dns = read(RESOLVED).or(dns);
    }
    // Loopback is another one inside.
    dns.servers.retain(|server| !is_loopback(server));
    dns
}

/// How this machine resolves names, for a container on its own network.
pub(crate) fn host_dns() -> Dns {
    Dns::parse(&fs::read_to_string(RESOLV).unwrap_or_default())
}

fn is_loopback(server: &str) -> bool {
    // `fe80::1%eth0` has a zone; an address with one is never loopback.
    server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What the files say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) hostname: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) dns: Dns,
    pub(crate) hosts: Vec<(String, IpAddr)>,
    /// Start from this machine's `/etc/hosts`.
    pub(crate) of_machine: bool,
}

impl Names {
    fn hosts_text(&self) -> String {
        let mut text = if self.of_machine {
            let mut text = fs::read_to_string(HOSTS).unwrap_or_default();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text
        } else {
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned()
        };
        for (name, address) in &self.hosts {
            let _ = writeln!(text, "{address}\t{name}");
        }
        for address in &self.addresses {
            let _ = writeln!(text, "{address}\t{}", self.hostname);
        }
        text
    }

    /// Writes the files into `directory` and says where they belong.
    ///
    /// # Errors
    /// [`NetworkError::Io`].
    pub(crate) fn write(&self, directory: &Path) -> Result<Vec<NameFile>, NetworkError> {
        let mut files = vec![("hosts", HOSTS, self.hosts_text()), ("resolv.conf", RESOLV, self.dns.render())];
        if !self.of_machine {
            files.push(("hostname", HOSTNAME, format!("{}\n", self.hostname)));
        }
        for (name, _, text) in &files {
            let path = directory.join(name);
            fs::write(&path, text).map_err(NetworkError::io("write", path))?;
        }
        Ok(present(directory))
    }
}

/// The files that `directory` has.
pub(crate) fn present(directory: &Path) -> Vec<NameFile> {
    let known = [("hosts", HOSTS), ("resolv.conf", RESOLV), ("hostname", HOSTNAME)];
    let files = known.map(|(name, destination)| NameFile { source: directory.join(name), destination });
    files.into_iter().filter(|file| file.source.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_and_written_without_what_is_not_known() {
        let text = "; a comment\ndomain old\nsearch a.example b.example\nnameserver 10.0.0.1\nnameserver\n\
                    options ndots:2 edns0\nsortlist 1.2.3.4\n";
        let dns = Dns::parse(text);
        assert_eq!(dns.render(), "search a.example b.example\nnameserver 10.0.0.1\noptions ndots:2 edns0\n");
        assert!(is_loopback("127.0.0.53") && is_loopback("::1") && !is_loopback("fe80::1%eth0"));
    }

    #[test]
    fn what_is_asked_for_goes_before_what_the_machine_has() {
        let asked = Dns { servers: vec!["1.1.1.1".to_owned()], ..Dns::default() };
        let machine = Dns::parse("nameserver 10.0.0.1\nsearch x\n");
        assert_eq!(asked.or(machine).render(), "search x\nnameserver 1.1.1.1\n");
    }

    #[test]
    fn a_container_knows_its_own_name_and_those_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let names = Names {
            hostname: "web".to_owned(),
            addresses: vec!["10.86.0.2".parse().unwrap()],
            hosts: vec![("db".to_owned(), "10.86.0.3".parse().unwrap())],
            ..Names::default()
        };
        let files = names.write(directory.path()).unwrap();
        assert_eq!(files.iter().map(|file| file.destination).collect::<Vec<_>>(), [HOSTS, RESOLV, HOSTNAME]);
        let hosts = fs::read_to_string(directory.path().join("hosts")).unwrap();
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
        assert!(hosts.ends_with("10.86.0.3\tdb\n10.86.0.2\tweb\n"), "{hosts}");
        assert_eq!(fs::read_to_string(directory.path().join("hostname")).unwrap(), "web\n");
    }
}
