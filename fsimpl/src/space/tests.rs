use super::*;

const MIB: u64 = 1 << 20;
/// Levels: reserve 8, journal 4, floor 8, low 16, target 24 MiB.
const TOTAL: u64 = 64 * MIB;

/// A filesystem of 64 MiB that says what it is told to, and one tenant.
struct Disk {
    available: Arc<AtomicU64>,
    space: Arc<Space>,
    tenant: Arc<Fake>,
    dir: tempfile::TempDir,
}

#[derive(Default)]
struct Fake {
    available: Arc<AtomicU64>,
    droppable: AtomicU64,
    excess: AtomicU64,
    caches_dropped: AtomicU64,
    told: AtomicU64,
    working: AtomicBool,
}

impl Tenant for Fake {
    fn excess(&self) -> u64 {
        self.excess.load(Ordering::SeqCst)
    }

    fn drop_raw(&self, bytes: u64) -> u64 {
        let had = self.droppable.load(Ordering::SeqCst);
        let given = had.min(bytes);
        self.droppable.store(had - given, Ordering::SeqCst);
        self.available.fetch_add(given, Ordering::SeqCst);
        self.excess.store(0, Ordering::SeqCst);
        given
    }

    fn drop_caches(&self) {
        self.caches_dropped.fetch_add(1, Ordering::SeqCst);
    }

    fn is_making_room(&self) -> bool {
        self.working.load(Ordering::SeqCst)
    }

    fn room_came(&self) {
        self.told.fetch_add(1, Ordering::SeqCst);
    }
}

impl Disk {
    fn with(available: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let available = Arc::new(AtomicU64::new(available));
        let told = Arc::clone(&available);
        let probe = move |_: &Path| {
            Ok(Free {
                total: TOTAL,
                available: told.load(Ordering::SeqCst),
            })
        };
        let space = Space::with_probe(dir.path(), Box::new(probe)).unwrap();
        let tenant = Arc::new(Fake {
            available: Arc::clone(&available),
            ..Fake::default()
        });
        let weak: Weak<Fake> = Arc::downgrade(&tenant);
        space.add_tenant(weak);
        Self {
            available,
            space,
            tenant,
            dir,
        }
    }

    fn set(&self, available: u64) {
        self.available.store(available, Ordering::SeqCst);
        self.space.allowance.store(0, Ordering::SeqCst);
    }

    fn has_reserve(&self) -> bool {
        self.dir.path().join(".reserve").exists()
    }
}

#[test]
fn writers_are_refused_before_the_disk_is_full() {
    let disk = Disk::with(60 * MIB);
    disk.space.claim(MIB).unwrap();
    disk.set(9 * MIB);
    disk.space.claim(MIB).unwrap();
    disk.set(9 * MIB - 1);
    let refused = disk.space.claim(MIB);
    assert!(matches!(refused, Err(FsError::NoSpace)));
    let report = disk.space.report().unwrap();
    assert_eq!((report.refused_below, report.reserve_missing), (8 * MIB, 0));
    assert!(!report.is_full());
    disk.set(8 * MIB - 1);
    assert!(disk.space.report().unwrap().is_full());
}

#[test]
fn the_free_space_is_not_asked_for_at_each_write() {
    let disk = Disk::with(60 * MIB);
    disk.space.claim(1).unwrap();
    // what was granted is a part of what is kept free
    disk.available.store(8 * MIB, Ordering::SeqCst);
    disk.space.claim(2 * MIB).unwrap();
    assert!(disk.space.claim(1).is_err());
}

#[test]
fn the_reserve_goes_when_journals_need_it_and_comes_again() {
    let disk = Disk::with(60 * MIB);
    assert!(disk.has_reserve());
    disk.set(4 * MIB - 1);
    disk.space.look();
    assert_eq!(disk.space.reserve.missing(), 0, "nobody needs it");
    disk.space.before_recording(1);
    assert_eq!(disk.space.reserve.missing(), 2 * MIB, "a part of it");
    while disk.space.let_reserve_go() > 0 {}
    assert!(!disk.has_reserve());
    // its space is not for writers
    disk.set(4 * MIB - 1 + 8 * MIB);
    assert!(disk.space.claim(1).is_err());
    assert_eq!(disk.space.report().unwrap().refused_below, 16 * MIB);
    disk.space.look();
    assert!(!disk.has_reserve());
    disk.set(16 * MIB);
    disk.space.look();
    assert!(disk.has_reserve());
}

#[test]
fn room_is_asked_for_up_to_the_target() {
    let disk = Disk::with(60 * MIB);
    disk.tenant.droppable.store(100 * MIB, Ordering::SeqCst);
    disk.set(16 * MIB);
    assert_eq!(disk.space.look(), 0, "enough is left");
    disk.set(16 * MIB - 1);
    assert_eq!(disk.space.look(), 8 * MIB + 1);
    assert_eq!(disk.available.load(Ordering::SeqCst), 24 * MIB);
    assert_eq!(disk.tenant.caches_dropped.load(Ordering::SeqCst), 0);
    // a limit of the tenant's own holds on an empty disk, too
    disk.set(60 * MIB);
    disk.tenant.excess.store(3 * MIB, Ordering::SeqCst);
    assert_eq!(disk.space.look(), 3 * MIB);
}

#[test]
fn caches_go_before_writers_are_refused() {
    let disk = Disk::with(60 * MIB);
    disk.tenant.droppable.store(MIB, Ordering::SeqCst);
    disk.set(7 * MIB + 1);
    disk.space.look();
    assert_eq!(disk.tenant.caches_dropped.load(Ordering::SeqCst), 0);
    disk.set(7 * MIB);
    disk.space.look();
    assert_eq!(disk.tenant.caches_dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn who_failed_for_want_of_room_hears_when_there_is_some() {
    let disk = Disk::with(60 * MIB);
    disk.set(0);
    disk.space.was_full();
    disk.space.look();
    assert_eq!(disk.tenant.told.load(Ordering::SeqCst), 0);
    disk.set(60 * MIB);
    disk.space.look();
    disk.space.look();
    assert_eq!(disk.tenant.told.load(Ordering::SeqCst), 1, "once");
}

#[test]
fn waiting_makes_sense_as_long_as_somebody_makes_room() {
    let disk = Disk::with(60 * MIB);
    let since = disk.space.looks();
    assert!(disk.space.may_come(since), "nobody has looked yet");
    disk.space.look();
    disk.space.look();
    assert!(!disk.space.may_come(since), "nothing came of it");
    disk.tenant.working.store(true, Ordering::SeqCst);
    assert!(disk.space.may_come(since));
    // one has waited for nothing: the others need not
    disk.space.did_not_come();
    assert!(!disk.space.may_come(since));
    disk.set(10 * MIB);
    disk.tenant.droppable.store(MIB, Ordering::SeqCst);
    disk.space.look();
    assert!(disk.space.may_come(since), "some came");
    disk.space.did_not_come();
    disk.set(60 * MIB);
    disk.space.claim(1).unwrap();
    assert!(disk.space.may_come(since), "there is plenty");
}

/// The thread is no burden where each file that is sealed lets it look again.
#[test]
fn looking_takes_a_part_of_the_time() {
    let ms = Duration::from_millis;
    assert_eq!(
        pause_after(ms(300), 1 << 30, false),
        GATHER,
        "there is room"
    );
    assert_eq!(pause_after(ms(1), 1, true), GATHER);
    assert_eq!(pause_after(ms(100), 1, true), ms(400));
    assert_eq!(pause_after(ms(1), 0, false), GATHER_IN_VAIN);
    assert_eq!(pause_after(ms(100), 0, true), ms(400));
    assert_eq!(pause_after(ms(9000), 0, true), PAUSE_MAX);
}
