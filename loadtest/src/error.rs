//! What can go wrong while measuring. A server that breaks its promises is no error but a verdict.

use tokio_tungstenite::tungstenite;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Files, processes, connections.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// The HTTP connection.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The WebSocket.
    #[error("socket: {0}")]
    Socket(#[source] Box<tungstenite::Error>),
    /// The server answered otherwise than the contract says.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// The server did not answer in time.
    #[error("no answer within {0} s")]
    Late(u64),
    /// What was asked for cannot be done; says what can.
    #[error("{0}")]
    Usage(String),
}

impl From<tungstenite::Error> for LoadError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

impl LoadError {
    /// An answer that breaks the contract, in words.
    pub fn answer(what: impl std::fmt::Display) -> Self {
        Self::Answer(what.to_string())
    }
}
