//! The same objects without bundles: one request for each, over connections that stay open.

use std::io::Read;
use std::time::{Duration, Instant};

use formats::ObjectName;
use formats::warm::enrolment::Credentials;
use formats::warm::identity::{certificate, private_key};
use formats::warm::list::{MISSING_BYTES_MAX, write_list};
use formats::warm::{Encoder, Listed, Missing};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use store::ObjectStore;
use store::peer::connect;

use super::site::{REPO, Site};
use super::tree::Tree;

type Sender = SendRequest<Full<Bytes>>;

/// Seconds from the first request to the last answer, connections and announcement left out.
pub fn send(site: &Site, tree: &Tree, objects: &[Listed], connections: usize) -> f64 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut senders = Vec::new();
        for _ in 0..connections {
            senders.push(connected(site).await);
        }
        let first = senders.first_mut().expect("a connection");
        let session = announce(first, connections, objects).await;
        let begun = Instant::now();
        let share = objects.len().div_ceil(connections);
        let mut tasks = tokio::task::JoinSet::new();
        for (sender, part) in senders.into_iter().zip(objects.chunks(share)) {
            let bundles: Vec<Bytes> = part.iter().map(|one| bundle(tree, one)).collect();
            let session = session.clone();
            tasks.spawn(async move { each(sender, connections, session, bundles).await });
        }
        tasks.join_all().await;
        begun.elapsed().as_secs_f64()
    })
}

async fn connected(site: &Site) -> Sender {
    let own = site.warmer.credentials().expect("the register");
    let own = own.expect("a certificate");
    let ours = Credentials {
        ca: certificate(&own.ca).expect("PEM"),
        certificate: certificate(&own.certificate).expect("PEM"),
        key: private_key(&own.key).expect("PEM"),
    };
    let host = site.at.ip().to_string();
    let connected = connect(&ours, &host, site.at.port(), Duration::from_secs(20)).await;
    let (stream, _) = connected.expect("a connection");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

fn path(connections: usize) -> String {
    format!("/v1/{REPO}/transactions/single-{connections}")
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> Bytes {
    sender.ready().await.expect("a connection");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let body = Limited::new(answer.into_body(), MISSING_BYTES_MAX);
    body.collect().await.expect("an answer").to_bytes()
}

async fn announce(sender: &mut Sender, connections: usize, objects: &[Listed]) -> String {
    let mut list = Vec::new();
    write_list(&mut list, objects.iter().copied()).expect("a list");
    let request = Request::builder()
        .method(Method::POST)
        .uri(path(connections))
        .header("host", "site")
        .body(Full::new(Bytes::from(list)));
    let answer = ask(sender, request.expect("a request")).await;
    let missing = Missing::parse(&answer).expect("what is absent");
    assert_eq!(missing.absent.count() as usize, objects.len());
    missing.session
}

async fn each(mut sender: Sender, connections: usize, session: String, bundles: Vec<Bytes>) {
    for bundle in bundles {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/bundle", path(connections)))
            .header("host", "site")
            .header("x-prepub-session", &session)
            .body(Full::new(bundle));
        let answer = ask(&mut sender, request.expect("a request")).await;
        assert!(answer.starts_with(b"{\"kept\":1,"), "{answer:?}");
    }
}

fn bundle(tree: &Tree, object: &Listed) -> Bytes {
    let open = |name: &ObjectName| -> std::io::Result<Box<dyn Read + Send>> {
        tree.storage.open(name).map_err(std::io::Error::other)
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(vec![*object], open).expect("a bundle");
    encoder.read_to_end(&mut bytes).expect("an object");
    Bytes::from(bytes)
}
