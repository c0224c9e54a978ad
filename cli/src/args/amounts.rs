//! Values of limits, ports and policies.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use runtime_api::windlass::v1::{PortMapping, Ulimit};
use runtime_network::Port;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::network::Ports;
use super::value::{lifetime, signal, size};

/// `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`.
pub(super) fn publish(text: &str) -> Result<Ports, String> {
    let ports = Port::parse(text).map_err(|error| error.to_string())?;
    let mapping = |port: Port| PortMapping {
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: port.protocol.as_str().to_owned(),
    };
    Ok(Ports(ports.into_iter().map(mapping).collect()))
}

/// An address, IPv4 or IPv6.
pub(super) fn ip(text: &str) -> Result<String, String> {
    text.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| format!("{text:?} is not an IP address"))
}

/// A size, or -1 for no limit.
pub(super) fn signed_size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    size(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// A number of processes, or -1 for no limit.
pub(super) fn pids(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number > 0 || number == -1 => Ok(number),
        _ => Err(format!("{text:?} is not a number of processes: write 1 or more, or -1 for no limit")),
    }
}

/// Processors, such as `1.5`, in thousandths.
pub(super) fn cpus(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of processors: write 0.01 or more, such as 1.5");
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let number = text.parse::<f64>().ok().filter(|_| plain).ok_or_else(bad)?;
    let millis = (number * 1000.0).round();
    // Ten thousandths are what the kernel takes at least; nobody has a million processors.
    if (10.0..=1e9).contains(&millis) { Ok(millis as u64) } else { Err(bad()) }
}

/// `NAME=SOFT[:HARD]`; -1 and `unlimited` are no limit.
pub(super) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("{text:?} is not a limit: write NAME=SOFT[:HARD], such as nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        digits => digits.parse::<u64>().map_err(|_| bad()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    if name.is_empty() {
        return Err(bad());
    }
    Ok(Ulimit { name: name.to_ascii_lowercase(), soft: number(soft)?, hard: number(hard)? })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:COUNT]`.
pub(super) fn restart(text: &str) -> Result<String, String> {
    let counted = text.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok());
    if counted || matches!(text, "no" | "always" | "unless-stopped" | "on-failure") {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no restart policy: no, always, unless-stopped or on-failure[:COUNT]"))
}

/// A signal that exists, as it was typed.
pub(super) fn signal_name(text: &str) -> Result<String, String> {
    signal(text).map(|_| text.to_owned())
}

/// Whole seconds, with or without a unit: `5`, `5s`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    digits.parse().map_err(|_| format!("{text:?} is not a number of seconds"))
}

/// A moment: a time ago (`10m`), seconds since 1970, or RFC 3339.
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = lifetime(text)
        && text != "0"
    {
        return Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    if let Ok(seconds) = text.parse::<u64>() {
        let since = Duration::from_secs(seconds);
        return SystemTime::UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| format!("{text:?} is too late a time"));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.map(SystemTime::from)
        .map_err(|_| format!("{text:?} is no time: write 10m for ten minutes ago, or 2026-01-31T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!([cpus("1.5"), cpus("2"), cpus("0.01")], [Ok(1500), Ok(2000), Ok(10)]);
        for text in ["", "0", "-1", "0.001", "NaN", "inf", "1e3", "many"] {
            assert!(cpus(text).unwrap_err().contains("processors"), "{text}");
        }
    }

    #[test]
    fn limits_of_setrlimit_have_one_value_or_two() {
        let limit = ulimit("NOFILE=1024:4096").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 1024, 4096));
        assert_eq!(ulimit("core=unlimited").unwrap().hard, u64::MAX);
        for text in ["nofile", "=1", "nofile=x", "nofile=1:y"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn policies_and_amounts_are_refused_in_words() {
        assert_eq!(restart("on-failure:3").unwrap(), "on-failure:3");
        for text in ["sometimes", "on-failure:", "on-failure:x", ""] {
            assert!(restart(text).is_err(), "{text}");
        }
        assert_eq!((signed_size("-1"), pids("-1"), pids("9")), (Ok(-1), Ok(-1), Ok(9)));
        assert!(pids("0").is_err() && signed_size("-2").is_err() && seconds("soon").is_err());
        assert_eq!(seconds("5s"), Ok(5));
    }

    #[test]
    fn a_moment_is_ago_or_a_date() {
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        assert_eq!(moment("60").unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        assert!(moment("1h").unwrap() < SystemTime::now() && moment("yesterday").is_err());
    }

    #[test]
    fn ports_are_those_of_the_network() {
        let Ports(ports) = publish("127.0.0.1:8000-8001:80-81/udp").unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!(
            (ports[1].host_port, ports[1].container_port, ports[1].protocol.as_str()),
            (8001, 81, "udp")
        );
        assert!(publish("x").is_err());
    }
}
