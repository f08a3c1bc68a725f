//! A long, narrow path: connections that pass through it take their time, and share what it carries.
//!
//! Delay and bandwidth are those of the path in each direction; a lost packet is what it is to TCP,
//! a pause in which everything behind it waits. What is not modelled is slow start: a connection has
//! its share of the path from its first byte on.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What is taken from a connection at a time: ten packets of an Ethernet.
const PIECE_BYTES: usize = 14_480;
/// What a connection has on the way at most, as a system's largest TCP window.
const WINDOW_BYTES: usize = 4 << 20;
/// What a lost packet costs: the least time-out of a retransmission.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// A path.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// From one end to the other.
    pub delay: Duration,
    /// Bits a second, each way; none: as many as the machine passes.
    pub bandwidth: Option<u64>,
    /// One piece in so many is lost; 0: none.
    pub loses_one_in: u64,
}

impl Shape {
    /// There and back in `round_trip`, so many million bits a second.
    pub fn of(round_trip: Duration, megabits: u64) -> Self {
        Self {
            delay: round_trip / 2,
            bandwidth: Some(megabits * 1_000_000),
            loses_one_in: 0,
        }
    }
}

/// Stands before a server until it is dropped.
pub struct Shaper {
    pub address: SocketAddr,
    path: Arc<Path>,
}

struct Path {
    target: SocketAddr,
    shape: Shape,
    there: Lane,
    back: Lane,
    /// Nothing passes any more, and nobody is told.
    silent: AtomicBool,
    /// One bit of one piece is turned over.
    corrupt_next: AtomicBool,
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// One direction: when it has carried what it was given so far, and how much that was.
#[derive(Default)]
struct Lane {
    free_at: Mutex<Option<Instant>>,
    pieces: AtomicU64,
    bytes: AtomicU64,
}

impl Shaper {
    /// Listens at `address`, whose port may be 0, for connections to `target`.
    pub fn start(address: &str, target: SocketAddr, shape: Shape) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let path = Arc::new(Path {
            target,
            shape,
            there: Lane::default(),
            back: Lane::default(),
            silent: AtomicBool::new(false),
            corrupt_next: AtomicBool::new(false),
            over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let accepting = path.clone();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let path = accepting.clone();
                thread::spawn(move || path.carry(connection));
            }
        });
        Self { address, path }
    }

    /// Bytes that went to the server.
    pub fn bytes_there(&self) -> u64 {
        self.path.there.bytes.load(Ordering::SeqCst)
    }

    /// Ends all connections; new ones are welcome.
    pub fn cut(&self) {
        for connection in self.path.open.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing passes, or all does again.
    pub fn set_silent(&self, silent: bool) {
        self.path.silent.store(silent, Ordering::SeqCst);
    }

    /// Spoils the next piece on its way to the server.
    pub fn corrupt_next(&self) {
        self.path.corrupt_next.store(true, Ordering::SeqCst);
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.path.over.store(true, Ordering::SeqCst);
        self.cut();
        // whoever waits for connections sees that it is over
        let _ = TcpStream::connect(self.address);
    }
}

impl Path {
    fn carry(self: Arc<Self>, client: TcpStream) {
        // a connection comes about after one round trip
        thread::sleep(self.shape.delay * 2);
        let Ok(server) = TcpStream::connect(self.target) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            self.open.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let path = self.clone();
        let (to, from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || path.pass(from, to, false));
        self.pass(client, server, true);
    }

    fn pass(self: &Arc<Self>, mut from: TcpStream, to: TcpStream, is_there: bool) {
        let queue = Arc::new(Queue::default());
        let arriving = queue.clone();
        let path = self.clone();
        let out = thread::spawn(move || arriving.deliver(to, &path));
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            let mut bytes = piece[..read].to_vec();
            if is_there && self.corrupt_next.swap(false, Ordering::SeqCst) {
                bytes[read / 2] ^= 1;
            }
            let lane = if is_there { &self.there } else { &self.back };
            queue.send(lane.arrival(read, &self.shape), bytes);
        }
        queue.end();
        let _ = out.join();
    }
}

impl Lane {
    /// When a piece arrives that is sent now.
    fn arrival(&self, bytes: usize, shape: &Shape) -> Instant {
        let now = Instant::now();
        let takes = shape.bandwidth.map_or(Duration::ZERO, |bits| {
            Duration::from_secs_f64(bytes as f64 * 8.0 / bits as f64)
        });
        let mut free_at = self.free_at.lock().unwrap();
        let sent = free_at.map_or(now, |free| free.max(now)) + takes;
        *free_at = Some(sent);
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        let number = self.pieces.fetch_add(1, Ordering::SeqCst) + 1;
        let is_lost = shape.loses_one_in > 0 && number.is_multiple_of(shape.loses_one_in);
        let again = if is_lost {
            RETRANSMISSION
        } else {
            Duration::ZERO
        };
        sent + shape.delay + again
    }
}

/// What of a connection is on the way, in order.
#[derive(Default)]
struct Queue {
    state: Mutex<OnTheWay>,
    changed: Condvar,
}

#[derive(Default)]
struct OnTheWay {
    /// When each arrives.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    is_over: bool,
}

impl Queue {
    fn send(&self, arrives: Instant, bytes: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        while state.bytes >= WINDOW_BYTES {
            state = self.changed.wait(state).unwrap();
        }
        state.bytes += bytes.len();
        state.pieces.push_back((arrives, bytes));
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }

    fn deliver(&self, mut to: TcpStream, path: &Path) {
        loop {
            let mut state = self.state.lock().unwrap();
            let (arrives, bytes) = loop {
                match state.pieces.pop_front() {
                    Some(next) => break next,
                    None if state.is_over => {
                        let _ = to.shutdown(Shutdown::Write);
                        return;
                    }
                    None => state = self.changed.wait(state).unwrap(),
                }
            };
            drop(state);
            thread::sleep(arrives.saturating_duration_since(Instant::now()));
            while path.silent.load(Ordering::SeqCst) && !path.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
            // a receiver that is gone is noticed by whoever sends to it
            let sent = to.write_all(&bytes);
            let mut state = self.state.lock().unwrap();
            // nothing waits for one that is gone
            state.bytes = match sent {
                Ok(()) => state.bytes.saturating_sub(bytes.len()),
                Err(_) => 0,
            };
            self.changed.notify_all();
        }
    }
}
