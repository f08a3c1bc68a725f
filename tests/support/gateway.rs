//! A double of `cvmfs_gateway` and `cvmfs_receiver` 2.12, in this process, over a repository that
//! prepub's own `mkfs` made.
//!
//! It is faithful where a publisher can tell: the HTTP interface, signatures, the table of leases,
//! packs, the receiver's merge with all that it misses, and what is said when something fails. Time
//! stands still until a test moves it, and faults come when a test asks for them.
//!
//! Not in it: administration, notifications, limits on entries, automatic catalogs, named objects in
//! packs, more than one repository.

pub mod auth;
pub mod faults;
mod halt;
mod http;
mod leases;
mod merge;
mod nesting;
mod node;
mod output;
mod pack;
mod reading;
mod receiver;
mod service;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commit::RepoHome;
use parking_lot::Mutex;

use auth::Key;
use faults::Faults;
use http::Server;
use receiver::Receiver;
use service::Service;

/// How long a lease is granted for, the gateway's default.
pub const MAX_LEASE: Duration = Duration::from_secs(7200);

/// What time it is for the gateway: it stands still until it is moved.
pub struct Clock(Mutex<SystemTime>);

impl Clock {
    fn now(&self) -> SystemTime {
        *self.0.lock()
    }
}

/// A gateway that runs until it is dropped.
pub struct Gateway {
    service: Arc<Service>,
    server: Option<Server>,
}

impl Gateway {
    /// Starts one for a repository on this machine, whose leases last so long.
    pub fn start(home: RepoHome, keys: Vec<Key>, lease: Duration) -> Self {
        let receiver = Receiver::new(home);
        // made by whoever sets up a gateway
        fs::write(receiver.client_local(), b"").unwrap();
        let service = Arc::new(Service {
            receiver,
            keys,
            lease,
            leases: Mutex::default(),
            gate: Mutex::default(),
            clock: Clock(Mutex::new(SystemTime::now())),
            faults: Faults::default(),
        });
        let server = Some(Server::start(service.clone(), 0));
        Self { service, server }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Where it listens; the interface is below `/api/v1`.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server().address
    }

    /// Stops and starts it: connections are cut, leases stay, what was counted for them is lost.
    pub fn restart(&mut self) {
        let port = self.address().port();
        self.service.faults.release();
        self.server = None;
        self.service.leases.lock().restart();
        self.server = Some(Server::start(self.service.clone(), port));
    }

    /// Moves the gateway's clock.
    pub fn advance(&self, by: Duration) {
        *self.service.clock.0.lock() += by;
    }

    /// How many leases there are that have not expired.
    pub fn leases(&self) -> usize {
        let now = self.service.clock.now();
        self.service.leases.lock().active(now).count()
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // nothing waits for a gateway that is gone
        self.service.faults.release();
    }
}
