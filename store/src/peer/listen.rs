//! The accept loop: bounded connections, a bound on handshakes and on idling, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_openssl::SslStream;

use super::{Acceptor, Peer, PeerError};

/// How long to wait before accepting again when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How much a listener takes upon itself.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// Connections at one time, those that shake hands among them; more wait to be accepted.
    pub connections: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long requests under way may go on once it is to end.
    pub grace: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            // some publishers with several connections each, and as much again for strangers
            connections: 256,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            grace: Duration::from_secs(20),
        }
    }
}

/// Who serves those that connect.
pub trait Host: Send + Sync + 'static {
    /// What answers one connection's requests.
    type Service: hyper::service::Service<
            Request<Incoming>,
            Response = Response<Self::Body>,
            Error: std::error::Error + Send + Sync,
            Future: Send,
        > + Send
        + 'static;
    /// Of its answers.
    type Body: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static;

    /// For one connection.
    fn service(&self, peer: Peer) -> Self::Service;

    /// Somebody was not let in.
    fn refused(&self, from: SocketAddr, why: &PeerError);
}

/// Accepts until `stop` says so (or its sender is gone), then lets requests under way end. A new
/// acceptor holds for connections that are made from then on.
pub async fn listen<H: Host>(
    listener: TcpListener,
    acceptor: watch::Receiver<Acceptor>,
    limits: ListenLimits,
    host: Arc<H>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            () = stopped(&mut stop) => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, host) = (acceptor.borrow().clone(), Arc::clone(&host));
        let stop = stop.clone();
        connections.spawn(async move {
            let _slot = slot;
            let _ = socket.set_nodelay(true);
            match acceptor.accept(socket, limits.handshake).await {
                Ok((stream, peer)) => serve(stream, host.service(peer), limits.idle, stop).await,
                Err(why) => host.refused(from, &why),
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, ended).await.is_err() {
        tracing::warn!(
            "requests were cut off: they took longer than {:?}",
            limits.grace
        );
    }
}

async fn serve<S, B>(
    stream: SslStream<TcpStream>,
    service: S,
    idle: Duration,
    mut stop: watch::Receiver<bool>,
) where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<B>,
            Error: std::error::Error + Send + Sync,
            Future: Send,
        > + Send
        + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Returns once it says so, or nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
