//! The accept loop: bounded connections, a deadline for request heads, a drain that ends.
//!
//! V1  At most [`CONNECTIONS_MAX`] connections are open; further ones wait in the kernel's queue.
//! V2  After shutdown no connection is accepted, requests under way are answered, and after [`DRAIN`] the rest is cut.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::{ServiceExt, service_fn};
use tracing::{debug, warn};

use crate::app::draining;

/// Most open connections of one node: a million sockets on one machine is the design's limit.
const CONNECTIONS_MAX: usize = 1_000_000;
/// The head of a request has to arrive within this.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// Requests under way are answered within this, or cut. Sockets have left HTTP and drain by themselves.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for example when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown` turns true, then drains.
pub async fn serve(listener: TcpListener, router: Router, mut shutdown: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let builder = Arc::new(builder);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = draining(&mut shutdown) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, builder, watcher) = (router.clone(), Arc::clone(&builder), graceful.watcher());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer)); // handlers ask where a request comes from
                router.clone().oneshot(request)
            });
            let service = TowerToHyperService::new(service);
            let served =
                watcher.watch(builder.serve_connection_with_upgrades(unbuffered(stream), service).into_owned());
            if let Err(error) = served.await {
                debug!(%error, %peer, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        warn!("some connections were cut after the drain's deadline");
    }
}

/// Small writes go out at once: frames and answers wait for nothing, so delaying them would only add latency.
fn unbuffered(stream: TcpStream) -> TokioIo<TcpStream> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY was refused");
    }
    TokioIo::new(stream)
}
