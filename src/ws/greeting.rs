//! Hello mode: an upgraded socket that has not said who it is.
//!
//! G1  Such a socket holds one of few places, for 5 s at the most.
//! G2  A key that cannot be checked now closes 1011, never a code that ends the client for good.

use std::time::Duration;

use axum::extract::ws::Message;
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::frames::{Hello, hello_error, parse_hello};
use super::socket::{self, Closing, Transport};
use super::{WINDOWS, mode};
use crate::app::App;
use crate::http::extract::credential;
use crate::wire::error::ApiError;

/// The first frame has to arrive within this; the contract's number.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Waits for the hello and serves the socket, or closes it.
pub async fn greet(app: App, mut transport: Transport, waiting: OwnedSemaphorePermit) {
    let hello = match timeout(HELLO_DEADLINE, first_frame(&mut transport)).await {
        Ok(Some(First::Hello(hello))) => hello,
        Ok(Some(First::Other)) => {
            let error = ApiError::form("the first frame has to be a hello with an api_key");
            return refuse(&mut transport, &error, Closing::new(1008, "hello expected")).await;
        }
        Ok(None) => return,
        Err(_) => return socket::close(&mut transport, Closing::new(4408, "no hello in time")).await,
    };
    drop(waiting);
    match credential(&app, &hello.api_key).await {
        Ok(who) => socket::serve(app, transport, who, mode(hello.ack, WINDOWS.0)).await,
        Err(error @ ApiError::Unauthorized) => {
            refuse(&mut transport, &error, Closing::new(1008, "unauthorized")).await;
        }
        Err(_) => socket::close(&mut transport, Closing::new(1011, "the key cannot be checked now")).await,
    }
}

/// Says why, then closes.
pub async fn refuse(transport: &mut Transport, error: &ApiError, closing: Closing) {
    if transport.send(hello_error(error)).await.is_ok() {
        socket::close(transport, closing).await;
    }
}

enum First {
    Hello(Hello),
    Other,
}

/// `None`: the peer went away.
async fn first_frame(transport: &mut Transport) -> Option<First> {
    loop {
        return match transport.stream.next().await?.ok()? {
            Message::Text(text) => Some(parse_hello(&text).map_or(First::Other, First::Hello)),
            Message::Binary(_) => Some(First::Other),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => None,
        };
    }
}
