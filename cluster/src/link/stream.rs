//! Streams between nodes: greeting, encryption, kill switch. Nothing of a stranger gets past here.
//!
//! ```text
//!   greeting   "AGENTCHAT-LINK" 2 bytes version, 8 bytes id, 8 bytes id of the addressee (0: unknown), 1 byte length, name
//! ```
//! U1  A stranger has [`GREETING_DEADLINE`] to greet and [`PROOF_DEADLINE`] to prove that it knows the cookie; at most
//!     [`STRANGERS`] are listened to at a time. Each is refused with one line in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{debug, warn};

use super::session::Introduced;
use super::{Links, Payload, VERSION};
use crate::routes::NodeId;

/// A peer looks for a process that was here before: it learns better from the tables.
const STALE: &str = "it looks for an earlier process of this node";
const GREETING: &[u8; 14] = b"AGENTCHAT-LINK";
const GREETING_DEADLINE: Duration = Duration::from_secs(2);
const PROOF_DEADLINE: Duration = Duration::from_secs(3);
const STRANGERS: usize = 64;
/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Read buffer of a link: whole batches at a time.
const READ_BUFFER: usize = 64 * 1024;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cluster TLS needs readable ca.pem, cert.pem and key.pem in {directory}: {reason}")]
pub struct SecurityError {
    directory: PathBuf,
    reason: String,
}

/// How streams are encrypted.
pub(super) enum Security {
    Plain,
    Tls(TlsAcceptor, TlsConnector),
}

impl Security {
    pub(super) fn load(directory: Option<&Path>) -> Result<Self, SecurityError> {
        let Some(directory) = directory else { return Ok(Self::Plain) };
        Self::read(directory).map_err(|reason| SecurityError { directory: directory.to_owned(), reason })
    }

    /// Both ends show a certificate of the same authority.
    fn read(directory: &Path) -> Result<Self, String> {
        let certificates = |file: &str| -> Result<Vec<CertificateDer<'static>>, String> {
            let found = CertificateDer::pem_file_iter(directory.join(file)).map_err(|e| format!("{file}: {e}"))?;
            found.collect::<Result<_, _>>().map_err(|e| format!("{file}: {e}"))
        };
        let key = || PrivateKeyDer::from_pem_file(directory.join("key.pem")).map_err(|e| format!("key.pem: {e}"));
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca.pem")? {
            roots.add(certificate).map_err(|e| format!("ca.pem: {e}"))?;
        }
        let (roots, chain) = (Arc::new(roots), certificates("cert.pem")?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier.map_err(|e| e.to_string())?)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|e| e.to_string())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|e| e.to_string())?;
        Ok(Self::Tls(TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client))))
    }
}

/// Ends a connection whatever waits on it: ractor_cluster's own writer would wait for ever.
#[derive(Debug)]
pub(super) struct Kill(std::net::TcpStream);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both); // it may have ended by itself
    }
}

/// A stream on which both have greeted.
pub(super) struct Greeted {
    reader: BoxRead,
    writer: BoxWrite,
    label: String,
}

impl ClusterBidiStream for Greeted {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (self.reader, self.writer)
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

fn with_kill_switch(stream: TcpStream) -> std::io::Result<(TcpStream, Kill)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let kill = Kill(stream.try_clone()?);
    Ok((TcpStream::from_std(stream)?, kill))
}

fn greeting(id: NodeId, to: NodeId, name: &str) -> Vec<u8> {
    let name = &name.as_bytes()[..name.len().min(255)];
    let mut bytes = GREETING.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&id.0.to_be_bytes());
    bytes.extend_from_slice(&to.0.to_be_bytes());
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name);
    bytes
}

/// Reads a greeting: who it is, whom it means, its name.
async fn greeted(reader: &mut BoxRead) -> Result<(NodeId, NodeId, String), String> {
    let mut head = [0; GREETING.len() + 2];
    reader.read_exact(&mut head).await.map_err(|e| format!("no greeting: {e}"))?;
    if head[..GREETING.len()] != *GREETING {
        return Err("this is no node of a cluster".to_owned());
    }
    let version = u16::from_be_bytes([head[GREETING.len()], head[GREETING.len() + 1]]);
    if version != VERSION {
        return Err(format!("it speaks version {version} of the cluster protocol, this node speaks {VERSION}"));
    }
    let read = async {
        let (id, to) = (NodeId(reader.read_u64().await?), NodeId(reader.read_u64().await?));
        let mut name = vec![0; usize::from(reader.read_u8().await?)];
        reader.read_exact(&mut name).await?;
        Ok((id, to, String::from_utf8_lossy(&name).into_owned()))
    };
    read.await.map_err(|e: std::io::Error| format!("half a greeting: {e}"))
}

/// Listens for other nodes.
pub(super) async fn accept<M: Payload>(links: Arc<Links<M>>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(STRANGERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection to the cluster port could not be accepted");
                tokio::time::sleep(RECONNECT.0).await;
                continue;
            }
        };
        let links = Arc::clone(&links);
        tokio::spawn(async move {
            let welcomed = tokio::time::timeout(GREETING_DEADLINE, welcome(&links, stream)).await;
            let outcome = match welcomed.unwrap_or_else(|_| Err("it did not greet in time".to_owned())) {
                Ok((stream, introduced)) => prove(&links, stream, introduced, true).await.map(drop),
                Err(reason) => Err(reason),
            };
            drop(place);
            if let Err(reason) = outcome {
                if reason.starts_with(STALE) {
                    debug!(%from, %reason, "a connection to the cluster port was refused");
                    return;
                }
                metrics::counter!(crate::metrics::LINK_STRANGERS).increment(1);
                warn!(%from, %reason, "a connection to the cluster port was refused");
            }
        });
    }
}

async fn welcome<M: Payload>(links: &Links<M>, stream: TcpStream) -> Result<(Greeted, Introduced), String> {
    let (stream, kill) = with_kill_switch(stream).map_err(|e| e.to_string())?;
    let (mut reader, mut writer): (BoxRead, BoxWrite) = match &links.security {
        Security::Plain => {
            let (reader, writer) = stream.into_split();
            (Box::new(BufReader::with_capacity(READ_BUFFER, reader)), Box::new(writer))
        }
        Security::Tls(acceptor, _) => {
            let stream = acceptor.accept(stream).await.map_err(|e| format!("TLS: {e}"))?;
            let (reader, writer) = tokio::io::split(stream);
            (Box::new(BufReader::with_capacity(READ_BUFFER, reader)), Box::new(writer))
        }
    };
    let met = greeted(&mut reader).await;
    // Also to one that is refused: so both logs say what is wrong.
    let to = met.as_ref().map_or(NodeId(0), |(id, ..)| *id);
    let ours = greeting(links.options.id, to, &links.options.name);
    writer.write_all(&ours).await.map_err(|e| e.to_string())?;
    writer.flush().await.map_err(|e| e.to_string())?;
    let (id, to, name) = met?;
    if to != links.options.id {
        return Err(format!("{STALE}: {name}"));
    }
    let label = links.sessions.label();
    Ok((Greeted { reader, writer, label: label.clone() }, Introduced { id, name, label, kill }))
}

/// Hands a stream to the session layer; returns when the session is ready, with what ends when it ends.
async fn prove<M: Payload>(
    links: &Links<M>,
    stream: Greeted,
    introduced: Introduced,
    is_server: bool,
) -> Result<oneshot::Receiver<()>, String> {
    let (name, label) = (introduced.name.clone(), introduced.label.clone());
    let ready = links.sessions.introduce(stream, introduced, is_server)?;
    match tokio::time::timeout(PROOF_DEADLINE, ready).await {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(_)) | Err(_) => {
            links.sessions.dismiss(&label);
            Err(format!("{name} did not prove that it belongs here: is AGENTCHAT_CLUSTER_COOKIE the same?"))
        }
    }
}

/// Connects to a node again and again, as long as it has a lease.
pub(super) async fn keep_connected<M: Payload>(links: Arc<Links<M>>, id: NodeId) {
    let (mut pause, mut said) = (RECONNECT.0, String::new());
    while let Some((address, name)) = links.address(id) {
        let connected = async {
            let dialled = tokio::time::timeout(GREETING_DEADLINE, dial(&links, id, &address, &name)).await;
            let (stream, introduced) = dialled.unwrap_or_else(|_| Err("it does not answer".to_owned()))?;
            prove(&links, stream, introduced, false).await
        };
        match connected.await {
            Ok(ended) => {
                (pause, said) = (RECONNECT.0, String::new());
                let _ = ended.await; // an end is what is waited for
            }
            Err(reason) if reason != said => {
                warn!(peer = name, %address, %reason, "no link to another node");
                said = reason;
            }
            Err(reason) => debug!(peer = name, %address, %reason, "still no link to another node"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT.1);
    }
}

async fn dial<M: Payload>(
    links: &Links<M>,
    id: NodeId,
    address: &str,
    name: &str,
) -> Result<(Greeted, Introduced), String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (stream, kill) = with_kill_switch(stream).map_err(|e| e.to_string())?;
    let (mut reader, mut writer): (BoxRead, BoxWrite) = match &links.security {
        Security::Plain => {
            let (reader, writer) = stream.into_split();
            (Box::new(BufReader::with_capacity(READ_BUFFER, reader)), Box::new(writer))
        }
        Security::Tls(_, connector) => {
            let host = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
            let stream = connector.connect(host, stream).await.map_err(|e| format!("TLS: {e}"))?;
            let (reader, writer) = tokio::io::split(stream);
            (Box::new(BufReader::with_capacity(READ_BUFFER, reader)), Box::new(writer))
        }
    };
    writer.write_all(&greeting(links.options.id, id, &links.options.name)).await.map_err(|e| e.to_string())?;
    writer.flush().await.map_err(|e| e.to_string())?;
    let (met, _, name) = greeted(&mut reader).await?;
    if met != id {
        return Err(format!("another process answers there: {name}"));
    }
    let label = links.sessions.label();
    Ok((Greeted { reader, writer, label: label.clone() }, Introduced { id, name, label, kill }))
}
