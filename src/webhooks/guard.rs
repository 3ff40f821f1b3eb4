//! Where a webhook may go: public addresses over TLS, unless the operator allows more.
//!
//! G1  The address that was judged is the address that is called: nothing is resolved a second time.
//! G2  One private address among those of a name is one too many: the name is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Longest URL; the contract's number.
const URL_MAX: usize = 2_048;

/// Why a URL may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL, or not one that we call.
    #[error("{0}")]
    Url(&'static str),
    /// The name does not resolve now.
    #[error("the host name does not resolve")]
    Unresolved,
    /// It leads into a private network.
    #[error("must not lead to private, loopback or link-local addresses")]
    Private,
}

/// Judges a URL by itself; with `allow_private`, plain HTTP and private addresses pass.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, Refused> {
    if text.len() > URL_MAX {
        return Err(Refused::Url("must be at most 2048 characters"));
    }
    let url = Url::parse(text).map_err(|_| Refused::Url("must be an absolute URL"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(Refused::Url("must be an https URL")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Url("must not contain credentials"));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        Some(Host::Domain(name)) if name == "localhost" || name.ends_with(".localhost") => {
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
        Some(Host::Domain(_)) => None,
        None => return Err(Refused::Url("must name a host")),
    };
    if !allow_private && literal.is_some_and(|ip| !is_public(ip)) {
        return Err(Refused::Private);
    }
    Ok(url)
}

/// The addresses to call (G1, G2).
pub async fn resolve(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, Refused> {
    let port = url.port_or_known_default().ok_or(Refused::Url("must name a port"))?;
    let found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        Some(Host::Domain(name)) => {
            tokio::net::lookup_host((name, port)).await.map_err(|_| Refused::Unresolved)?.collect()
        }
        None => return Err(Refused::Url("must name a host")),
    };
    if found.is_empty() {
        return Err(Refused::Unresolved);
    }
    if !allow_private && found.iter().any(|address| !is_public(address.ip())) {
        return Err(Refused::Private);
    }
    Ok(found)
}

fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 168)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

/// Global unicast only, and none that carries an address of version 4 inside.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let global = (0x2000..0x4000).contains(&a);
    let tunnel = a == 0x2002 || (a == 0x2001 && b == 0); // 6to4, Teredo
    let documentation = (a == 0x2001 && b == 0xdb8) || a == 0x3fff;
    global && !tunnel && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.169.0.1", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_are_judged() {
        assert!(check_url("https://example.com/hook", false).is_ok());
        let long = format!("https://example.com/{}", "x".repeat(URL_MAX));
        for bad in [
            "http://example.com/",
            "ftp://example.com/",
            "https://u:p@example.com/",
            "https://u@example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://localhost/",
            "https://a.localhost/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:10.0.0.1]/",
            "not a url",
            "https://",
            &long,
        ] {
            assert!(check_url(bad, false).is_err(), "{bad}");
        }
        assert!(check_url("http://127.0.0.1:9/", true).is_ok());
        assert!(check_url("ftp://127.0.0.1/", true).is_err());
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused() {
        let url = Url::parse("https://localhost/").unwrap();
        assert_eq!(resolve(&url, false).await, Err(Refused::Private));
        assert!(resolve(&url, true).await.is_ok());
    }
}
