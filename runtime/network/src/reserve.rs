//! Who has which port of the machine.
//!
//! A published port is a firewall rule, which takes a port whether or not somebody listens on it. So before one is made, our
//! own records and the machine's sockets are asked, and a port that is taken is refused by name.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::error::NetworkError;
use crate::port::{Port, Protocol};
use crate::record::Record;

/// Sockets that hold ports until the firewall does.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _streams: Vec<TcpListener>,
    _datagrams: Vec<UdpSocket>,
}

/// `wanted` with numbers for those that asked for any, all of them free and held until the second value is dropped.
///
/// # Errors
/// [`NetworkError::PortTaken`], [`NetworkError::Address`].
pub(crate) fn reserve(wanted: &[Port], others: &[Record]) -> Result<(Vec<Port>, Held), NetworkError> {
    let mut held = Held::default();
    let mut ports: Vec<Port> = Vec::with_capacity(wanted.len());
    for &want in wanted {
        let by_other = others.iter().find(|record| record.ports.iter().any(|port| overlaps(port, &want)));
        if let Some(record) = by_other {
            return Err(NetworkError::PortTaken { port: want, by: format!("container {}", record.id) });
        }
        if ports.iter().any(|port| overlaps(port, &want)) {
            let by = "another port of this same container".to_owned();
            return Err(NetworkError::PortTaken { port: want, by });
        }
        ports.push(held.hold(want)?);
    }
    Ok((ports, held))
}

fn overlaps(one: &Port, other: &Port) -> bool {
    one.host_port != 0
        && one.host_port == other.host_port
        && one.protocol == other.protocol
        && (one.host_ip.is_none() || other.host_ip.is_none() || one.host_ip == other.host_ip)
}

impl Held {
    fn hold(&mut self, want: Port) -> Result<Port, NetworkError> {
        let ip = want.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = SocketAddr::new(ip, want.host_port);
        let bound = match want.protocol {
            Protocol::Udp => UdpSocket::bind(address).and_then(|socket| {
                let bound = socket.local_addr()?;
                self._datagrams.push(socket);
                Ok(bound)
            }),
            // Nobody listens for SCTP with std's sockets; a free TCP port is as good a number as any.
            Protocol::Sctp if want.host_port != 0 => Ok(address),
            Protocol::Tcp | Protocol::Sctp => TcpListener::bind(address).and_then(|socket| {
                let bound = socket.local_addr()?;
                self._streams.push(socket);
                Ok(bound)
            }),
        };
        let bound = bound.map_err(|error| refused(want, error))?;
        Ok(Port { host_port: bound.port(), ..want })
    }
}

fn refused(port: Port, error: io::Error) -> NetworkError {
    match error.kind() {
        ErrorKind::AddrInUse => NetworkError::PortTaken { port, by: "a program of this machine".to_owned() },
        _ => NetworkError::Address { port, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<Port> {
        Port::parse(text).unwrap()
    }

    fn record(ports: Vec<Port>) -> Record {
        Record {
            namespace: "default".to_owned(),
            id: "web".to_owned(),
            kind: "bridge".to_owned(),
            ports,
            plugins: None,
        }
    }

    #[test]
    fn a_port_somebody_listens_on_is_refused_and_a_free_one_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = reserve(&ports(&format!("127.0.0.1:{port}:80")), &[]).unwrap_err();
        assert!(error.to_string().contains("a program of this machine"), "{error}");
        let (chosen, held) = reserve(&ports("127.0.0.1::80"), &[]).unwrap();
        assert_ne!(chosen[0].host_port, 0);
        assert!(TcpListener::bind(("127.0.0.1", chosen[0].host_port)).is_err());
        drop(held);
        // The same number for datagrams is another port.
        reserve(&ports(&format!("127.0.0.1:{port}:80/udp")), &[]).unwrap();
    }

    #[test]
    fn a_port_of_another_container_is_refused_by_its_name() {
        let others = [record(ports("127.0.0.1:8080:80"))];
        for text in ["8080:1", "127.0.0.1:8080:2"] {
            let error = reserve(&ports(text), &others).unwrap_err();
            assert!(error.to_string().contains("container web"), "{error}");
        }
        assert!(overlaps(&ports("8080:1")[0], &ports("127.0.0.1:8080:2")[0]));
        assert!(!overlaps(&ports("127.0.0.2:8080:1")[0], &ports("127.0.0.1:8080:2")[0]));
        let twice = [ports("127.0.0.1:8081:80"), ports("127.0.0.1:8081:81")].concat();
        assert!(matches!(reserve(&twice, &[]), Err(NetworkError::PortTaken { .. })));
    }

    #[test]
    fn an_address_that_is_not_here_is_told() {
        let error = reserve(&ports("192.0.2.77:8080:80"), &[]).unwrap_err();
        assert!(matches!(error, NetworkError::Address { .. }) && error.is_bad_request(), "{error}");
    }
}
