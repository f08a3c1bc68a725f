use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::*;

const FOREVER: Duration = Duration::from_secs(60);

fn limits(workers: usize) -> PoolLimits {
    PoolLimits {
        workers,
        pending_max: 4,
        pending_weight_max: 1000,
        nice: 1,
    }
}

fn pool(workers: usize) -> Pool<()> {
    Pool::new(limits(workers), "test", || ()).unwrap()
}

/// Submits a task that reports its name, or that it was stopped.
fn report(
    pool: &Pool<()>,
    delay: Duration,
    name: &'static str,
    to: &mpsc::Sender<(&'static str, bool)>,
) -> Ticket {
    let to = to.clone();
    let ticket = pool.handle().ticket();
    let pending = pool.handle().pend(1);
    let refused = pool.handle().submit(
        ticket,
        Instant::now() + delay,
        Box::new(move |turn| {
            to.send((name, matches!(turn, Turn::Work(..)))).unwrap();
            drop(pending);
        }),
    );
    assert!(refused.is_none());
    ticket
}

#[test]
fn order_is_pieces_then_urgent_then_the_rest() {
    let pool = pool(1);
    let (to, from) = mpsc::channel();
    pool.pause(true);
    report(&pool, Duration::ZERO, "normal", &to);
    let urged = report(&pool, FOREVER, "urged", &to);
    let hurried = report(&pool, FOREVER, "hurried", &to);
    pool.handle().urge(urged);
    pool.handle().expedite(hurried);
    assert!(
        from.recv_timeout(Duration::from_millis(50)).is_err(),
        "paused pools begin nothing"
    );
    let (go, gate) = mpsc::channel::<()>();
    pool.handle()
        .submit_piece(false, Box::new(move |_| gate.recv().unwrap()));
    for (urgent, name) in [(false, "piece"), (true, "urgent piece")] {
        let to = to.clone();
        let run =
            move |turn: Turn<'_, ()>| to.send((name, matches!(turn, Turn::Work(..)))).unwrap();
        pool.handle().submit_piece(urgent, Box::new(run));
    }
    pool.pause(false);
    go.send(()).unwrap();
    let names: Vec<_> = (0..5)
        .map(|_| from.recv_timeout(FOREVER).unwrap())
        .collect();
    let order = ["urgent piece", "urged", "piece", "normal", "hurried"];
    assert_eq!(names, order.map(|name| (name, true)));
    assert!(pool.wait_idle(FOREVER));
    assert_eq!(pool.depth(), Depth::default());
}

#[test]
fn delays_are_kept() {
    let pool = pool(2);
    let (to, from) = mpsc::channel();
    let begun = Instant::now();
    report(&pool, Duration::from_millis(150), "later", &to);
    report(&pool, Duration::from_millis(30), "sooner", &to);
    assert_eq!(pool.depth().delayed, 2);
    assert_eq!(from.recv_timeout(FOREVER).unwrap().0, "sooner");
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(from.recv_timeout(FOREVER).unwrap().0, "later");
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_full_pool_makes_callers_wait_but_not_for_ever() {
    let pool = pool(1);
    assert!(pool.admit(Duration::ZERO));
    let mut held: Vec<_> = (0..4).map(|_| pool.handle().pend(1)).collect();
    let begun = Instant::now();
    assert!(!pool.admit(Duration::from_millis(40)));
    assert!(begun.elapsed() >= Duration::from_millis(40));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            held.pop();
        });
        assert!(pool.admit(FOREVER));
    });
    drop(held);
    let heavy = pool.handle().pend(1000);
    assert!(!pool.admit(Duration::ZERO), "weight counts too");
    drop(heavy);
    assert!(pool.admit(Duration::ZERO));
}

#[test]
fn shutdown_tells_everyone() {
    let pool = pool(2);
    let (to, from) = mpsc::channel();
    pool.pause(true);
    report(&pool, Duration::ZERO, "ready", &to);
    report(&pool, FOREVER, "delayed", &to);
    let piece_to = to.clone();
    pool.handle().submit_piece(
        false,
        Box::new(move |turn| {
            let Turn::Work((), handle) = turn else {
                panic!("begun before the end")
            };
            while !handle.stopping() {
                std::thread::yield_now();
            }
            let to = piece_to.clone();
            let last = move |turn: Turn<'_, ()>| {
                to.send(("last", matches!(turn, Turn::Work(..)))).unwrap();
            };
            handle.submit_piece(false, Box::new(last));
        }),
    );
    std::thread::sleep(Duration::from_millis(30));
    pool.shutdown();
    let mut told: Vec<_> = from.try_iter().collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [("delayed", false), ("last", false), ("ready", false)]
    );
    let ticket = pool.handle().ticket();
    assert!(
        pool.handle()
            .submit(ticket, Instant::now(), Box::new(|_| ()))
            .is_some()
    );
    assert!(pool.wait_idle(Duration::ZERO));
}

#[test]
fn busy_time_is_counted() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let pool = pool(2);
    for _ in 0..4 {
        pool.handle().submit_piece(
            false,
            Box::new(|_| {
                std::thread::sleep(Duration::from_millis(20));
                RUNS.fetch_add(1, Ordering::Relaxed);
            }),
        );
    }
    pool.shutdown();
    let busy = pool.busy();
    assert_eq!(busy.len(), 2);
    let runs = u32::try_from(RUNS.load(Ordering::Relaxed)).unwrap();
    assert!(busy.iter().sum::<Duration>() >= Duration::from_millis(20) * runs);
}
