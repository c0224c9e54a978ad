//! Addresses: where a `Location` points, whether two of them are one origin, and which are nobody's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// Longest `Location` that is followed, in bytes: signed URLs of clouds have about 2,000.
const LOCATION_BYTES_MAX: usize = 16 * 1024;

/// Resolves a `Location` against the address that answered with it (RFC 3986, section 5.2, for http only).
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() || location.len() > LOCATION_BYTES_MAX {
        return None;
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let lower = location.get(..8).unwrap_or(location).to_ascii_lowercase();
    let whole = if lower.starts_with("http://") || lower.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None; // another scheme
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = whole.parse().ok()?;
    let authority = uri.authority()?;
    (!authority.as_str().contains('@') && !authority.host().is_empty()).then_some(uri)
}

/// `location` over https, if it is plain http at the very host of `base`, which is https, and names no port.
pub(crate) fn same_host(base: &Uri, location: &str) -> Option<String> {
    let rest = location.strip_prefix("http://").filter(|_| base.scheme_str() == Some("https"))?;
    let uri: Uri = location.parse().ok()?;
    let same = uri.authority()? == base.host()? && matches!(base.port_u16(), None | Some(443));
    same.then(|| format!("https://{rest}"))
}

/// Whether two addresses have one scheme, host and port: the reach of a credential.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// Port, the scheme's own if none is written.
fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

/// What kind of network an address literal is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A name, or an address of the internet.
    Public,
    /// An address of a private network.
    Private,
    /// This machine.
    Loopback,
    /// This link: where clouds keep their metadata services.
    Link,
}

/// Reach of a host as written in an address, without asking DNS.
pub(crate) fn reach(host: &str) -> Reach {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost") {
        return Reach::Loopback;
    }
    match bare.parse::<IpAddr>() {
        Ok(address) => reach_of(address),
        Err(_) => Reach::Public,
    }
}

/// Reach of an address.
pub(crate) fn reach_of(address: IpAddr) -> Reach {
    let v4 = |a: Ipv4Addr| {
        if a.is_loopback() || a.is_unspecified() {
            Reach::Loopback
        } else if a.is_link_local() {
            Reach::Link
        } else if a.is_private() {
            Reach::Private
        } else {
            Reach::Public
        }
    };
    let v6 = |a: Ipv6Addr| {
        if a.is_loopback() || a.is_unspecified() {
            Reach::Loopback
        } else if a.segments()[0] & 0xffc0 == 0xfe80 {
            Reach::Link
        } else if a.segments()[0] & 0xfe00 == 0xfc00 {
            Reach::Private
        } else {
            Reach::Public
        }
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or_else(|| v6(address), v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn locations_resolve_as_browsers_resolve_them() {
        let base: Uri = "https://a.example:5000/v2/x/blobs/d?q=1".parse().unwrap();
        for (location, wanted) in [
            ("https://b/c?s=1#f", Some("https://b/c?s=1")),
            ("HTTP://b/", Some("http://b/")),
            ("//b/c", Some("https://b/c")),
            ("/root", Some("https://a.example:5000/root")),
            ("e", Some("https://a.example:5000/v2/x/blobs/e")),
            ("?z", Some("https://a.example:5000/v2/x/blobs/d?z")),
            ("file:///etc/passwd", None),
            ("unix:/run/x.sock", None),
            ("https://user:pw@b/", None),
            ("https://", None),
            ("", None),
        ] {
            let got = resolve(&base, location).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), wanted, "{location}");
        }
    }

    #[test]
    fn vuln_c04_an_origin_is_scheme_and_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(!same("https://a/x", "http://a/x"));
        assert!(!same("https://a/x", "https://a:8443/x"));
        assert!(!same("https://a/x", "https://b/x"));
    }

    #[test]
    fn addresses_of_the_machine_its_link_and_private_networks_are_known() {
        for (host, wanted) in [
            ("localhost", Reach::Loopback),
            ("127.8.9.1", Reach::Loopback),
            ("[::1]", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("169.254.169.254", Reach::Link),
            ("[fe80::1]", Reach::Link),
            ("[::ffff:169.254.169.254]", Reach::Link),
            ("10.1.2.3", Reach::Private),
            ("[fd00::1]", Reach::Private),
            ("example.com", Reach::Public),
            ("8.8.8.8", Reach::Public),
        ] {
            assert_eq!(reach(host), wanted, "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_location_makes_the_resolver_panic(location in "\\PC{0,60}") {
            let _ = resolve(&"https://a/b".parse().unwrap(), &location);
        }
    }
}
