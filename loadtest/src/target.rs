//! Where the servers are, and connections to them: plain or TLS, from one source address or many.
//!
//! T1  Names are resolved once, when the run begins: a resolver is not what is measured.
//! T2  A socket that names its source address leaves the choice of its port to `connect`: otherwise the kernel would search
//!     its ports at `bind`, without knowing the destination, and run out of them at 28,000.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};
use url::Url;

use crate::error::LoadError;

/// A connection that takes longer than this is a failure.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// Most source addresses: 127.0.1.1 to 127.0.250.250.
pub const SOURCES_MAX: u64 = 62_500;
/// Addresses per block of the above, so that neither 0 nor 255 is ever used.
const SOURCE_BLOCK: u64 = 250;

/// One server.
pub struct Target {
    /// As it was given, without a slash at the end.
    pub url: String,
    /// `Host` header.
    pub host: String,
    /// What comes before `/v1`.
    pub path: String,
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Understands and resolves a base URL.
    pub fn new(url: &str) -> Result<Self, LoadError> {
        let bad = |why: &str| LoadError::Usage(format!("{url}: {why}"));
        let parsed = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let name = parsed.host_str().ok_or_else(|| bad("no host"))?.to_owned();
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => {
                let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
                Some((connector()?, ServerName::try_from(bare).map_err(|error| bad(&error.to_string()))?))
            }
            other => return Err(bad(&format!("{other} is neither http nor https"))),
        };
        let port = parsed.port_or_known_default().ok_or_else(|| bad("no port"))?;
        let host = parsed.port().map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
        let mut addresses = (name.trim_start_matches('[').trim_end_matches(']'), port)
            .to_socket_addrs()
            .map_err(|error| bad(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| bad("no address"))?;
        let path = parsed.path().trim_end_matches('/').to_owned();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, path, address, tls })
    }

    /// A plain server at an address.
    pub fn at(address: SocketAddr) -> Self {
        let (url, host) = (format!("http://{address}"), address.to_string());
        Self { url, host, path: String::new(), address, tls: None }
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Connects; from `source`, if one is given.
    pub async fn connect(&self, source: Option<Ipv4Addr>) -> Result<Stream, LoadError> {
        timeout(CONNECT_DEADLINE, self.open(source)).await.map_err(|_| LoadError::Late(CONNECT_DEADLINE.as_secs()))?
    }

    async fn open(&self, source: Option<Ipv4Addr>) -> Result<Stream, LoadError> {
        let io = |error| LoadError::Io("connect", error);
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(io)?;
        if let Some(source) = source {
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|error| io(error.into()))?; // T2
            socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).map_err(io)?;
        }
        let stream = socket.connect(self.address).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(stream)) };
        Ok(Stream::Tls(Box::new(connector.connect(name.clone(), stream).await.map_err(io)?)))
    }
}

/// Trusts what this machine trusts.
fn connector() -> Result<TlsConnector, LoadError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(LoadError::answer)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection, plain or not.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// All servers of a run; whoever connects gets the next one.
pub struct Fleet {
    targets: Vec<Arc<Target>>,
    turn: AtomicUsize,
}

impl Fleet {
    /// From base URLs; at least one.
    pub fn new(urls: &[String]) -> Result<Self, LoadError> {
        let targets: Result<Vec<_>, _> = urls.iter().map(|url| Target::new(url).map(Arc::new)).collect();
        let targets = targets?;
        if targets.is_empty() {
            return Err(LoadError::Usage("no server: name one with --url, or start one with --server".to_owned()));
        }
        Ok(Self { targets, turn: AtomicUsize::new(0) })
    }

    /// One plain server.
    pub fn at(address: SocketAddr) -> Self {
        Self { targets: vec![Arc::new(Target::at(address))], turn: AtomicUsize::new(0) }
    }

    /// The next one.
    pub fn any(&self) -> Arc<Target> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.targets[turn % self.targets.len()])
    }

    /// Each of them.
    pub fn all(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

/// The source address of the `n`-th of many sockets to this machine.
pub fn source(n: u64, sources: u64) -> Ipv4Addr {
    let at = n % sources.clamp(1, SOURCES_MAX);
    let byte = |part: u64| u8::try_from(part + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, byte(at / SOURCE_BLOCK), byte(at % SOURCE_BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_and_as_many_as_asked_for() {
        let all: std::collections::BTreeSet<Ipv4Addr> = (0..200_000).map(|n| source(n, SOURCES_MAX)).collect();
        assert_eq!(all.len() as u64, SOURCES_MAX);
        assert!(all.iter().all(|address| address.is_loopback() && !matches!(address.octets()[3], 0 | 255)));
        assert_eq!(source(5, 1), source(6, 1));
        assert_eq!((source(0, 2), source(1, 2)), (Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2)));
    }

    #[test]
    fn base_urls() {
        let target = Target::new("http://127.0.0.1:8080/base/").unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/base"));
        assert!(target.is_loopback());
        assert!(
            Target::new("https://127.0.0.1").is_ok_and(|target| target.tls.is_some() && target.address.port() == 443)
        );
        assert!(Target::new("ftp://127.0.0.1").is_err() && Target::new("127.0.0.1").is_err());
        assert!(Fleet::new(&[]).is_err());
    }
}
