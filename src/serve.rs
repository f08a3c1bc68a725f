//! Embedded repositories over HTTP, so that an official client can mount them.
//!
//! ```text
//! /cvmfs/REPO/.cvmfspublished and its like   application/x-cvmfs        61 s
//! /cvmfs/REPO/data/xx/...                    application/octet-stream   3 days
//! /cvmfs/info/v1/repositories.json           application/json           61 s
//! ```
//!
//! Content types and ages are those of `cvmfs_server`'s Apache configuration; neither ETag nor
//! Last-Modified is sent. What is not there is never cached: it may be published the next moment.
//! Only names that CVMFS itself gives are looked for, so nothing else of the disk can be reached.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::get;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::io::ReaderStream;

use crate::report::{Context, Result};

pub mod names;

use names::{ROOT_FILE_SECONDS, kind_of};

/// Ports tried after the configured one, before any port will do.
const NEXT_PORTS: u16 = 16;
/// Read from disk at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where each repository's storage is. Asked at every request: repositories come and go.
pub type Storages = Arc<dyn Fn() -> Vec<(String, PathBuf)> + Send + Sync>;

struct Served {
    storages: Storages,
    known: RwLock<HashMap<String, PathBuf>>,
}

impl Served {
    fn storage(&self, repo: &str) -> Option<PathBuf> {
        if let Some(dir) = self.known.read().get(repo)
            && dir.exists()
        {
            return Some(dir.clone());
        }
        let fresh: HashMap<String, PathBuf> = (self.storages)().into_iter().collect();
        let dir = fresh.get(repo).cloned();
        *self.known.write() = fresh;
        dir
    }
}

/// Listens where it is asked to, or at another port if that one is taken.
///
/// # Errors
/// When no port at all can be had.
pub async fn listen(wanted: SocketAddr) -> Result<TcpListener> {
    let mut tries = vec![wanted];
    if wanted.port() != 0 {
        let next = (1..=NEXT_PORTS).filter_map(|i| wanted.port().checked_add(i));
        tries.extend(next.map(|port| SocketAddr::new(wanted.ip(), port)));
        tries.push(SocketAddr::new(wanted.ip(), 0));
    }
    let mut last = std::io::Error::from(ErrorKind::AddrInUse);
    for address in tries {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(e) => {
                let taken = matches!(e.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
                last = e;
                if !taken {
                    break;
                }
            }
        }
    }
    Err(last).context(format_args!("cannot listen on {wanted}"))
}

/// The service.
pub fn router(storages: Storages) -> Router {
    let served = Arc::new(Served {
        storages,
        known: RwLock::default(),
    });
    Router::new()
        .route("/cvmfs/info/v1/repositories.json", get(repositories))
        .route("/cvmfs/{repo}/{*file}", get(file))
        .with_state(served)
}

async fn repositories(Shared(served): Shared<Arc<Served>>) -> Response<Body> {
    let repositories: Vec<_> = (served.storages)()
        .into_iter()
        .map(|(name, _)| serde_json::json!({"name": name, "url": format!("/cvmfs/{name}")}))
        .collect();
    let body = serde_json::json!({
        "schema": 1,
        "repositories": repositories,
        "replicas": [],
    });
    let body = Body::from(body.to_string());
    respond(StatusCode::OK, "application/json", ROOT_FILE_SECONDS, body)
}

async fn file(
    Shared(served): Shared<Arc<Served>>,
    method: Method,
    Path((repo, name)): Path<(String, String)>,
) -> Response<Body> {
    let Some((content_type, seconds)) = kind_of(&name) else {
        return missing();
    };
    let Some(dir) = served.storage(&repo) else {
        return missing();
    };
    let open = async {
        let file = tokio::fs::File::open(dir.join(&name)).await?;
        let metadata = file.metadata().await?;
        if !metadata.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok::<_, std::io::Error>((file, metadata.len()))
    };
    match open.await {
        Ok((file, length)) => {
            let body = match method {
                Method::HEAD => Body::empty(),
                _ => Body::from_stream(ReaderStream::with_capacity(file, BUFFER_BYTES)),
            };
            let mut response = respond(StatusCode::OK, content_type, seconds, body);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            response
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => missing(),
        Err(e) => {
            tracing::warn!("cannot serve {repo}/{name}: {e}");
            uncached(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    seconds: u32,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(age) = HeaderValue::from_str(&format!("max-age={seconds}")) {
        headers.insert(header::CACHE_CONTROL, age);
    }
    response
}

fn missing() -> Response<Body> {
    uncached(StatusCode::NOT_FOUND)
}

fn uncached(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(storage: PathBuf, method: Method, path: &str) -> Response<Body> {
        let repo = "a.example.org".to_owned();
        let router = router(Arc::new(move || vec![(repo.clone(), storage.clone())]));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x")
            .body(String::new())
            .unwrap();
        sender.send_request(request).await.unwrap().map(Body::new)
    }

    #[tokio::test]
    async fn serves_with_types_and_ages() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".cvmfspublished"), "manifest").unwrap();
        let at = |path: &str| (dir.path().to_path_buf(), path.to_owned());
        let (storage, path) = at("/cvmfs/a.example.org/.cvmfspublished");
        let response = ask(storage, Method::GET, &path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-cvmfs");
        assert_eq!(response.headers()["cache-control"], "max-age=61");
        assert_eq!(response.headers()["content-length"], "8");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"manifest");

        let (storage, path) = at("/cvmfs/a.example.org/.cvmfspublished");
        let response = ask(storage, Method::HEAD, &path).await;
        assert_eq!(response.headers()["content-length"], "8");

        let (storage, path) = at("/cvmfs/a.example.org/.cvmfswhitelist");
        let response = ask(storage, Method::GET, &path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["cache-control"], "no-store");

        let (storage, path) = at("/cvmfs/b.example.org/.cvmfspublished");
        let response = ask(storage, Method::GET, &path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);

        let (storage, path) = at("/cvmfs/info/v1/repositories.json");
        let response = ask(storage, Method::GET, &path).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("/cvmfs/a.example.org"));
    }

    #[tokio::test]
    async fn another_port_if_taken() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let taken = first.local_addr().unwrap();
        let second = listen(taken).await.unwrap();
        assert_ne!(second.local_addr().unwrap().port(), taken.port());
    }
}
