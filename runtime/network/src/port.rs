//! Published ports, as they are typed: `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`, each port also a range `8000-8010`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most ports one text may publish: beyond it each start would make tens of thousands of firewall rules.
const RANGE_PORTS_MAX: u16 = 1024;

/// What a port carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Messages (RFC 9260).
    Sctp,
}

impl Protocol {
    /// Its name, as CNI and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortError::Protocol { given: text.to_owned() }),
        }
    }
}

/// A port of the machine that leads into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Address of the machine it is published on; `None` is all of them.
    pub host_ip: Option<IpAddr>,
    /// Port of the machine; 0 in a request asks for one that is free.
    pub host_port: u16,
    /// Port in the container, 1..=65535.
    pub container_port: u16,
    /// What it carries.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port, container_port, protocol } = self;
        match host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{host_port}->{container_port}/{}", protocol.as_str()),
            Some(ip) => write!(f, "{ip}:{host_port}->{container_port}/{}", protocol.as_str()),
            None => write!(f, "{host_port}->{container_port}/{}", protocol.as_str()),
        }
    }
}

/// Why a text publishes no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Not a number from 1 to 65535, nor a range of such.
    #[error("{given:?} is not a port: write a number from 1 to 65535, or a range such as 8000-8010")]
    Number {
        /// What was written.
        given: String,
    },
    /// Not one of the three.
    #[error("{given:?} is not a protocol: tcp, udp or sctp")]
    Protocol {
        /// What was written.
        given: String,
    },
    /// Not an address.
    #[error("{given:?} is not an address of this machine: write one such as 127.0.0.1 or [::1]")]
    Address {
        /// What was written.
        given: String,
    },
    /// Ranges of two lengths.
    #[error("the ranges {host:?} and {container:?} have not the same length")]
    Lengths {
        /// On the machine.
        host: String,
        /// In the container.
        container: String,
    },
    /// More than [`RANGE_PORTS_MAX`].
    #[error(
        "the range {given:?} has more than {RANGE_PORTS_MAX} ports: use the machine's network (--net host)"
    )]
    TooMany {
        /// What was written.
        given: String,
    },
}

impl Port {
    /// The ports that `text` publishes.
    ///
    /// # Errors
    /// [`PortError`] names the part that cannot be read.
    pub fn parse(text: &str) -> Result<Vec<Self>, PortError> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
        let protocol: Protocol = protocol.parse()?;
        let (rest, container) = match ports.rsplit_once(':') {
            Some((rest, container)) => (Some(rest), container),
            None => (None, ports),
        };
        let (address, host) = match rest {
            None => (None, ""),
            Some(rest) => match rest.rsplit_once(':') {
                // `[::1]:80:80`, `127.0.0.1:80:80`, and `127.0.0.1::80` for a free port.
                Some((address, host)) => (Some(parse_address(address)?), host),
                None => (None, rest),
            },
        };
        let inside = parse_range(container)?;
        let outside = if host.is_empty() || host == "0" { None } else { Some(parse_range(host)?) };
        if let Some(outside) = &outside
            && outside.len() != inside.len()
        {
            return Err(PortError::Lengths { host: host.to_owned(), container: container.to_owned() });
        }
        let port = |at: usize, container_port: u16| Port {
            host_ip: address,
            host_port: outside.as_ref().map_or(0, |ports| ports[at]),
            container_port,
            protocol,
        };
        Ok(inside.iter().enumerate().map(|(at, &number)| port(at, number)).collect())
    }
}

fn parse_address(text: &str) -> Result<IpAddr, PortError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| PortError::Address { given: text.to_owned() })
}

fn parse_range(text: &str) -> Result<Vec<u16>, PortError> {
    let bad = || PortError::Number { given: text.to_owned() };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && *number > 0).ok_or_else(bad)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first {
        return Err(bad());
    }
    if last - first >= RANGE_PORTS_MAX {
        return Err(PortError::TooMany { given: text.to_owned() });
    }
    Ok((first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        Port::parse(text).unwrap().iter().map(Port::to_string).collect()
    }

    #[test]
    fn ports_are_read_in_every_spelling() {
        assert_eq!(shown("80"), ["0->80/tcp"]);
        assert_eq!(shown("8080:80"), ["8080->80/tcp"]);
        assert_eq!(shown("53:53/UDP"), ["53->53/udp"]);
        assert_eq!(shown("127.0.0.1:8080:80"), ["127.0.0.1:8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:0->80/tcp"]);
        assert_eq!(shown("[::1]:8080:80/sctp"), ["[::1]:8080->80/sctp"]);
        assert_eq!(shown("8000-8002:80-82"), ["8000->80/tcp", "8001->81/tcp", "8002->82/tcp"]);
    }

    #[test]
    fn what_is_no_port_is_told_in_words() {
        for (text, part) in [
            ("", "port"),
            ("0:0", "port"),
            ("80:x", "\"x\""),
            ("65536", "65536"),
            ("+80", "+80"),
            ("80/icmp", "protocol"),
            ("host:80:80", "address"),
            ("8000-8001:80", "length"),
            ("90-80", "90-80"),
            ("1-65535:1-65535", "1024"),
        ] {
            let error = Port::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9:./a-z\\[\\]-]{0,24}") {
            let _ = Port::parse(&text);
        }
    }
}
