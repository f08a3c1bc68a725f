//! A repository as `cvmfs_server` lays it out, below a directory of the test's own: what prepub reads,
//! holds and leaves there.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

struct World {
    sandbox: Sandbox,
    root: PathBuf,
}

impl World {
    /// An empty repository, published once, and mounted.
    fn new() -> Option<Self> {
        if skip_unless(can_mount(), "/dev/fuse") {
            return None;
        }
        let maker = Sandbox::new();
        maker.ok(["mkfs", REPO]);
        let sandbox = Sandbox::new();
        let root = sandbox.dir.path().join("root");
        let storage = root.join("srv/cvmfs").join(REPO);
        let (etc, spool) = (root.join("etc/cvmfs"), root.join("var/spool/cvmfs"));
        let conf_dir = etc.join("repositories.d").join(REPO);
        for dir in [&storage, &etc, &spool, &conf_dir] {
            fs::create_dir_all(dir.parent().unwrap()).unwrap();
        }
        fs::create_dir(&conf_dir).unwrap();
        fs::rename(maker.storage(), &storage).unwrap();
        fs::rename(maker.state().join("keys"), etc.join("keys")).unwrap();
        fs::create_dir_all(spool.parent().unwrap()).unwrap();
        fs::rename(maker.state().join("spool"), &spool).unwrap();
        let conf = fs::read_to_string(maker.server_conf()).unwrap();
        let place = storage.display();
        let conf = format!("{conf}CVMFS_UPSTREAM_STORAGE=local,{place}/data/txn,{place}\n");
        fs::write(conf_dir.join("server.conf"), conf).unwrap();
        let key = etc.join(format!("keys/{REPO}.pub"));
        let client = format!("CVMFS_PUBLIC_KEY={}\n", key.display());
        fs::write(conf_dir.join("client.conf"), client).unwrap();
        fs::write(
            spool.join(REPO).join("client.local"),
            "CVMFS_ROOT_HASH=0\nOTHER=kept\n",
        )
        .unwrap();
        let mut world = Self { sandbox, root };
        world.configure(&format!("[repository.\"{REPO}\"]\n"));
        world.sandbox.mount();
        Some(world)
    }

    fn configure(&self, repository: &str) {
        self.sandbox.configure(&format!(
            "cvmfs_root = {:?}\n[stage]\nsettle = \"10ms\"\n{repository}",
            self.root
        ));
    }

    fn spool(&self) -> PathBuf {
        self.root.join("var/spool/cvmfs").join(REPO)
    }

    /// Refused for now; and done as soon as nothing is in the way.
    #[track_caller]
    fn refused_until(&self, name: &str, why: &str, out_of_the_way: impl FnOnce()) {
        write(&self.sandbox.root().join(name), b"x");
        let said = self.sandbox.fails(4, ["commit", REPO]);
        assert!(said.contains(why), "{said}");
        out_of_the_way();
        let done = self.sandbox.json(["commit", REPO]);
        assert_eq!(done["files"], 1, "{done}");
        assert_eq!(
            names(&self.spool()),
            [
                "client.local",
                "is_collecting.lock",
                "is_publishing.lock",
                "reflog.chksum"
            ]
        );
    }
}

fn names(dir: &std::path::Path) -> Vec<String> {
    super::names_in(dir)
}

#[test]
fn what_is_published_is_pinned_and_recorded() {
    let Some(world) = World::new() else {
        return;
    };
    write(&world.sandbox.root().join("a"), b"a");
    let done = world.sandbox.json(["commit", REPO]);
    let pinned = fs::read_to_string(world.spool().join("client.local")).unwrap();
    let root = done["root_hash"].as_str().unwrap();
    assert_eq!(pinned, format!("OTHER=kept\nCVMFS_ROOT_HASH={root}\n"));
    let checked = world.sandbox.json(["check", REPO, "--data"]);
    assert_eq!(checked["healthy"], true, "{checked}");
    let status = world.sandbox.json(["status", REPO]);
    assert_eq!(
        status["repositories"][0]["published_revision"],
        done["revision"]
    );
    let said = world.sandbox.fails(1, ["rmfs", REPO, "--force"]);
    assert!(said.contains("cvmfs_server rmfs"), "{said}");
}

#[test]
fn whatever_cvmfs_server_holds_is_respected_and_the_stage_is_kept() {
    let Some(world) = World::new() else {
        return;
    };
    let transaction = world.spool().join("in_transaction.lock");
    fs::write(&transaction, b"").unwrap();
    world.refused_until("a", "has a transaction", || {
        fs::remove_file(&transaction).unwrap()
    });

    let checkout = world.spool().join("checkout");
    fs::write(&checkout, b"v1 0123 branch\n").unwrap();
    world.refused_until("b", "checked out", || fs::remove_file(&checkout).unwrap());

    for (name, file, why) in [
        ("c", "is_publishing.lock", "publication is under way"),
        ("d", "is_collecting.lock", "garbage collection"),
    ] {
        let path = world.spool().join(file);
        let held = File::create(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        // as they let go of it: the name goes first
        world.refused_until(name, why, || {
            fs::remove_file(&path).unwrap();
            drop(held);
        });
    }
}

#[test]
fn only_what_is_named_is_served() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.sandbox.unmount();
    world.configure("");
    for verb in ["check", "resign"] {
        let said = world.sandbox.fails(2, [verb, REPO]);
        assert!(
            said.contains("cvmfs_server made one of that name"),
            "{said}"
        );
    }
    let said = world.sandbox.fails(1, ["doctor", REPO]);
    assert!(said.contains("[repository."), "{said}");
    world.configure(&format!(
        "[repository.\"{REPO}\"]\npublisher = \"stratum0\"\n"
    ));
    let said = world.sandbox.fails(2, ["mkfs", REPO]);
    assert!(said.contains("already"), "{said}");
    let transaction = world.spool().join("in_transaction.lock");
    fs::write(&transaction, b"").unwrap();
    let said = world.sandbox.ok(["doctor", REPO]);
    assert!(
        said.contains("has a transaction open") && said.contains("cvmfs_server abort"),
        "{said}"
    );
}
