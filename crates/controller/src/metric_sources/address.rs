//! Addresses that the operator must not speak to, whoever wrote them down: what listens on the node itself, and what
//! hands out credentials to anybody who asks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use meshupgrade_core::measure::{Problem, ProblemKind};
use reqwest::Url;
use serde::Deserialize;

use super::config::Source;
use super::problem;

/// Metadata services by IPv6 that are unique local addresses: Amazon's and Google's.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
/// Metadata services that are no link-local addresses: Azure's, Alibaba's, Oracle's.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// The prefix under which NAT64 gateways reach IPv4 (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// A class of addresses that is refused unless a source allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Class {
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`, and the metadata services of clouds.
    LinkLocal,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One that may be spoken to.
    Ordinary,
    /// One that may be spoken to when its class is allowed.
    Guarded(Class),
    /// Unspecified, multicast or broadcast: never a server.
    NoServer,
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(|| kind_v6(address), kind_v4),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    if address.is_loopback() {
        Kind::Guarded(Class::Loopback)
    } else if address.is_link_local() || METADATA_V4.contains(&address) {
        Kind::Guarded(Class::LinkLocal)
    } else if address.octets()[0] == 0 || address.is_multicast() || address.is_broadcast() {
        // All of 0.0.0.0/8 is "this host".
        Kind::NoServer
    } else {
        Kind::Ordinary
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if address.is_loopback() {
        Kind::Guarded(Class::Loopback)
    } else if address.is_unicast_link_local() || METADATA_V6.contains(&address) {
        Kind::Guarded(Class::LinkLocal)
    } else if address.is_unspecified() || address.is_multicast() {
        Kind::NoServer
    } else {
        Kind::Ordinary
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible (obsolete), or behind NAT64.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if address.is_loopback() || address.is_unspecified() {
        return None;
    }
    let behind_nat64 = address.segments().starts_with(&NAT64);
    let [.., a, b, c, d] = address.octets();
    if behind_nat64 { Some(Ipv4Addr::new(a, b, c, d)) } else { address.to_ipv4() }
}

/// Refuses a source if only one of its addresses must not be spoken to: which of them is used is not ours to say.
pub(super) fn check(source: &Source, addresses: &[SocketAddr]) -> Result<(), Problem> {
    let unprotected = source.token_file.is_some() && source.url.scheme() == "http";
    for address in addresses {
        let kind = kind(address.ip());
        if !is_allowed(kind, &source.allow) {
            let text = format!("source {} has {}", source.name, what(kind));
            return Err(problem(ProblemKind::Forbidden, text));
        }
        if unprotected && kind != Kind::Guarded(Class::Loopback) {
            let text =
                format!("source {} would get a token over http: its url must begin with https", source.name);
            return Err(problem(ProblemKind::Forbidden, text));
        }
    }
    Ok(())
}

fn is_allowed(kind: Kind, allow: &BTreeSet<Class>) -> bool {
    match kind {
        Kind::Ordinary => true,
        Kind::Guarded(class) => allow.contains(&class),
        Kind::NoServer => false,
    }
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Guarded(Class::Loopback) => {
            "a loopback address: the operator's configuration does not allow it (Loopback)"
        }
        Kind::Guarded(Class::LinkLocal) => {
            "a link-local or metadata address: the operator's configuration does not allow it (LinkLocal)"
        }
        Kind::Ordinary | Kind::NoServer => {
            "an address that no server has (unspecified, multicast or broadcast)"
        }
    }
}

/// The addresses of a source, looked up once. They are not checked.
pub(super) async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, Problem> {
    let port = url.port_or_known_default().unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    // The URL's parser has brought decimal, octal and hexadecimal forms to this one.
    if let Ok(literal) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(literal, port)]);
    }
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => addresses.collect(),
        Err(_) => Vec::new(),
    };
    if addresses.is_empty() {
        return Err(problem(ProblemKind::Unreachable, "the name of its host has no address".to_owned()));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Kind {
        kind(address.parse().unwrap())
    }

    #[test]
    fn what_a_pod_or_service_has_is_ordinary() {
        for address in
            ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"]
        {
            assert_eq!(of(address), Kind::Ordinary, "{address}");
        }
        for address in ["::ffff:10.0.0.1", "64:ff9b::10.0.0.1"] {
            assert_eq!(of(address), Kind::Ordinary, "{address}");
        }
    }

    #[test]
    fn what_is_guarded_is_so_in_every_writing() {
        for address in
            ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1"]
        {
            assert_eq!(of(address), Kind::Guarded(Class::Loopback), "{address}");
        }
        for address in ["169.254.169.254", "169.254.0.1", "fe80::1", "febf::1", "fd00:ec2::254"] {
            assert_eq!(of(address), Kind::Guarded(Class::LinkLocal), "{address}");
        }
        for address in ["::ffff:169.254.169.254", "64:ff9b::169.254.169.254"] {
            assert_eq!(of(address), Kind::Guarded(Class::LinkLocal), "{address}");
        }
    }

    #[test]
    fn what_is_no_server_is_never_allowed() {
        let all = BTreeSet::from([Class::Loopback, Class::LinkLocal]);
        for address in
            ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"]
        {
            assert_eq!(of(address), Kind::NoServer, "{address}");
            assert!(!is_allowed(of(address), &all));
        }
    }

    #[test]
    fn one_bad_address_among_good_ones_is_enough() {
        let sources = super::super::config::parse("sources: [{name: a, url: 'https://p'}]").unwrap();
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert!(check(&sources["a"], &addresses(&["10.0.0.1:1", "10.0.0.2:1"])).is_ok());
        let problem = check(&sources["a"], &addresses(&["10.0.0.1:1", "169.254.169.254:1"])).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Forbidden);
    }

    #[test]
    fn a_token_goes_over_http_to_loopback_only() {
        let text = "sources: [{name: a, url: 'http://p', tokenFile: /token, allow: [Loopback]}]";
        let sources = super::super::config::parse(text).unwrap();
        assert!(check(&sources["a"], &["127.0.0.1:1".parse().unwrap()]).is_ok());
        let problem = check(&sources["a"], &["10.0.0.1:1".parse().unwrap()]).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Forbidden);
    }
}
