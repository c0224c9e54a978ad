//! What network a container asks for.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The network that needs no configuration.
pub(crate) const BRIDGE: &str = "bridge";

/// What a container is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    /// A namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The machine's own network.
    Host,
    /// The namespace of another container of the same namespace, by its id.
    Container(String),
    /// A namespace that somebody else keeps at this path.
    Path(PathBuf),
    /// A network by name: `bridge` is ours, others are configured below `/etc/cni/net.d`.
    Named(String),
}

impl FromStr for Kind {
    type Err = Infallible;

    /// `none`, `host`, `container:ID`, `ns:PATH`; anything else is a name. The empty text is `bridge`.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.split_once(':')) {
            ("none", _) => Self::None,
            ("host", _) => Self::Host,
            ("", _) => Self::Named(BRIDGE.to_owned()),
            (_, Some(("container", id))) => Self::Container(id.to_owned()),
            (_, Some(("ns", path))) => Self::Path(path.into()),
            (name, _) => Self::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written_as_it_is_read() {
        for text in ["none", "host", "bridge", "container:web", "ns:/run/netns/a", "my-net"] {
            let kind: Kind = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
        }
        assert_eq!("".parse::<Kind>().unwrap(), Kind::Named("bridge".to_owned()));
    }
}
