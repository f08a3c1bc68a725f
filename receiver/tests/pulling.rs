//! A site that lets nobody in fetches the same from its publisher, here a small double of one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use axum::{Extension, Router};
use formats::ObjectName;
use formats::warm::bundle::BUNDLE_TYPE;
use formats::warm::enrolment::Credentials;
use formats::warm::{Encoder, ListReader, Listed, Missing, Role};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use store::peer::{Acceptor, Host, ListenLimits, Peer, PeerError, listen};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support::publisher::{PUBLISHER, SITE};
use crate::support::world::World;
use crate::support::{Object, REPO, list, objects};

const TXN: &str = "t-1";
/// Small, so that the rest has to be asked for again.
const BUNDLE_OBJECTS: usize = 37;

#[derive(Default)]
struct Said {
    objects: BTreeMap<String, Object>,
    order: Vec<Object>,
    is_open: bool,
    published: bool,
    given_up: bool,
    /// Which receiver of its name asked.
    instances: BTreeSet<String>,
    /// Sent with other bytes once.
    damage: BTreeSet<String>,
    kept: BTreeSet<String>,
    missing: Option<u32>,
    seen: u32,
    callers: BTreeSet<String>,
}

struct Double {
    said: Arc<Mutex<Said>>,
    at: SocketAddr,
    _stop: watch::Sender<bool>,
    _runtime: Runtime,
}

struct Doors(Router);

impl Host for Doors {
    type Service = TowerToHyperService<Router>;
    type Body = Body;

    fn service(&self, peer: Peer) -> Self::Service {
        TowerToHyperService::new(self.0.clone().layer(Extension(peer)))
    }

    fn refused(&self, from: SocketAddr, why: &PeerError) {
        eprintln!("{from}: {why}");
    }
}

impl Double {
    fn start(shows: Credentials, objects: Vec<Object>) -> Self {
        let runtime = Runtime::new().unwrap();
        let said = Arc::new(Mutex::new(Said {
            objects: objects
                .iter()
                .map(|o| (o.0.name.to_string(), o.clone()))
                .collect(),
            order: objects,
            is_open: true,
            ..Said::default()
        }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&said));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let at = listener.local_addr().unwrap();
        let (_, acceptors) = watch::channel(Acceptor::new(&[shows]).unwrap());
        let (stop, stopping) = watch::channel(false);
        let doors = Arc::new(Doors(router));
        runtime.spawn(listen(
            listener,
            acceptors,
            ListenLimits::default(),
            doors,
            stopping,
        ));
        Self {
            said,
            at,
            _stop: stop,
            _runtime: runtime,
        }
    }

    fn until(&self, mut what: impl FnMut(&Said) -> bool) {
        while !what(&self.said.lock()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

async fn answer(
    State(said): State<Arc<Mutex<Said>>>,
    Extension(peer): Extension<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let instance = headers["x-prepub-instance"].to_str().unwrap();
    said.lock().instances.insert(instance.to_owned());
    if uri.path() == "/v1/work" {
        return work(&said, &peer).await;
    }
    let mut said = said.lock();
    let of = format!("/v1/{REPO}/transactions/{TXN}/");
    match (method, uri.path().strip_prefix(&of).unwrap_or_default()) {
        (Method::GET, "objects") => respond("application/x-prepub-objects", list(&said.order)),
        (Method::POST, "missing") => {
            said.missing = Some(Missing::parse(&body).unwrap().absent.count());
            nothing()
        }
        (Method::POST, "bundle") => respond(BUNDLE_TYPE, bundle(&mut said, &body)),
        (Method::POST, "kept") => {
            let names = ListReader::new(&body[..]).unwrap();
            let names: Vec<String> = names.map(|l| l.unwrap().name.to_string()).collect();
            said.kept.extend(names);
            said.is_open = said.kept.len() < said.missing.unwrap() as usize;
            nothing()
        }
        (Method::POST, "seen") => {
            said.seen += 1;
            (said.published, said.given_up) = (false, false);
            nothing()
        }
        other => panic!("{other:?} of {uri}"),
    }
}

async fn work(said: &Mutex<Said>, peer: &Peer) -> Response<Body> {
    let name = format!("{} {}", peer.identity.role, peer.identity.name);
    said.lock().callers.insert(name);
    for _ in 0..20 {
        let (is_open, published, given_up) = {
            let said = said.lock();
            (said.is_open, said.published, said.given_up)
        };
        if is_open || published || given_up {
            let mut work = serde_json::json!({"transactions": [], "published": []});
            if given_up {
                work["given_up"] = serde_json::json!([{"repo": REPO, "txn": TXN}]);
            }
            if is_open {
                work["transactions"] =
                    serde_json::json!([{"repo": REPO, "txn": TXN, "objects": 1, "bytes": 1}]);
            }
            if published {
                work["published"] = serde_json::json!([{"repo": REPO, "txn": TXN,
                    "root_hash": "ab".repeat(20), "revision": 3, "published_at": "now"}]);
            }
            return respond("application/json", work.to_string().into_bytes());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nothing()
}

fn bundle(said: &mut Said, wanted: &Bytes) -> Vec<u8> {
    let wanted = ListReader::new(&wanted[..]).unwrap().map(Result::unwrap);
    let wanted: Vec<Listed> = wanted.take(BUNDLE_OBJECTS).collect();
    let open = |name: &ObjectName| {
        let (_, mut bytes) = said.objects[&name.to_string()].clone();
        if said.damage.remove(&name.to_string()) {
            bytes[0] ^= 1;
        }
        Ok(Box::new(std::io::Cursor::new(bytes)) as Box<dyn Read + Send>)
    };
    let mut bytes = Vec::new();
    Encoder::new(wanted, open)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn respond(form: &str, body: Vec<u8>) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, form);
    response.body(Body::from(body)).unwrap()
}

fn nothing() -> Response<Body> {
    let response = Response::builder().status(StatusCode::NO_CONTENT);
    response.body(Body::empty()).unwrap()
}

fn pulling(world: &mut World, at: SocketAddr) {
    world.more = "listen = \"\"\n".into();
    let url = format!("https://{at}");
    world.enrol("publisher", &world.publisher.enrolment(Some(url), &[REPO]));
}

#[test]
fn it_fetches_what_is_absent_and_acknowledges_what_it_has() {
    let mut world = World::new();
    let all = objects(0..300);
    let double = Double::start(world.publisher.own(), all.clone());
    let damaged = all[100].0.name.to_string();
    double.said.lock().damage.insert(damaged);
    for (listed, bytes) in &all[..50] {
        store::put(&world.storage, &listed.name, bytes).unwrap();
    }
    pulling(&mut world, double.at);
    let receiver = world.start();
    assert_eq!(receiver.at, None);
    double.until(|said| !said.is_open);
    assert_eq!(world.there(&all), 300);
    {
        let said = double.said.lock();
        assert_eq!(said.missing, Some(250));
        let absent: BTreeSet<String> = all[50..].iter().map(|o| o.0.name.to_string()).collect();
        assert_eq!(said.kept, absent);
        let site = format!("site {SITE}");
        assert_eq!(said.callers.iter().collect::<Vec<_>>(), [&site]);
    }
    assert_eq!(receiver.site.metrics.objects_refused.get("corrupt"), 1);
    double.said.lock().published = true;
    double.until(|said| said.seen > 0);
    assert_eq!(receiver.site.metrics.published.get(), 1);
    receiver.pass(365 * 86_400);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 300);
    receiver.end();
}

/// It was killed, or its publisher was: what it has it does not fetch again.
#[test]
fn it_goes_on_after_a_restart() {
    let mut world = World::new();
    let all = objects(0..200);
    let double = Double::start(world.publisher.own(), all.clone());
    pulling(&mut world, double.at);
    let receiver = world.start();
    double.until(|said| said.kept.len() > 40);
    receiver.end();
    {
        let mut said = double.said.lock();
        said.kept.clear();
        said.is_open = true;
    }
    let there = world.there(&all);
    assert!(there > 40);
    let receiver = world.start();
    double.until(|said| said.missing == Some(200 - there as u32));
    double.until(|said| !said.is_open || there == 200);
    while world.there(&all) < 200 {
        std::thread::sleep(Duration::from_millis(20));
    }
    receiver.end();
    let said = double.said.lock();
    assert_eq!(said.instances.len(), 1, "it is the same receiver");
}

/// What came to nothing is heard, and goes without waiting for its time.
#[test]
fn it_hears_that_something_came_to_nothing() {
    let mut world = World::new();
    let all = objects(0..60);
    let double = Double::start(world.publisher.own(), all.clone());
    pulling(&mut world, double.at);
    let receiver = world.start();
    double.until(|said| !said.is_open);
    assert_eq!(world.there(&all), 60);
    double.said.lock().given_up = true;
    double.until(|said| said.seen > 0);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 0);
    receiver.end();
}

/// A site's certificate, of the same authority, does not make a publisher.
#[test]
fn it_takes_nothing_from_anybody_else() {
    let mut world = World::new();
    let shows = world
        .publisher
        .credentials(Role::Site, PUBLISHER, SystemTime::now());
    let double = Double::start(shows, objects(0..3));
    pulling(&mut world, double.at);
    let receiver = world.start();
    while receiver.site.metrics.pull_failures.get() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(double.said.lock().callers.is_empty());
    assert_eq!(world.sound(), 0);
    receiver.end();
}
