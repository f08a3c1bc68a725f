//! A replica whose storage is a bucket.

use std::fs;
use std::sync::Arc;

use formats::manifest::{Manifest, SignedManifest};
use formats::{Algorithm, Content, Hash, Kind, ReflogWriter, S3Conf};
use store::{ObjectStore, S3Store};

use crate::support::made;
use crate::support::s3::S3Server;
use crate::support::world::World;
use crate::support::{REPO, object, objects};

struct Bucket {
    world: World,
    store: Arc<S3Store>,
    _server: S3Server,
}

/// Found through the replica's own `server.conf`, as `cvmfs_server add-replica -s` leaves it.
fn bucket() -> Bucket {
    let mut world = World::new();
    let server = S3Server::start(&world.path("bucket"));
    let conf = server.conf("");
    let s3_conf = world.path("s3.conf");
    fs::write(&s3_conf, &conf).unwrap();
    let etc = world.path("root/etc/cvmfs/repositories.d").join(REPO);
    fs::create_dir_all(&etc).unwrap();
    let tmp = world.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let text = format!(
        "CVMFS_REPOSITORY_NAME={REPO}\nCVMFS_REPOSITORY_TYPE=stratum1\nCVMFS_SPOOL_DIR={}\nCVMFS_UPSTREAM_STORAGE=S3,{},cvmfs/{REPO}@{}\n",
        world.path("spool").display(),
        tmp.display(),
        s3_conf.display()
    );
    fs::write(etc.join("server.conf"), text).unwrap();
    world.section = String::new();
    world.more = format!("cvmfs_root = {:?}\n", world.path("root").to_str().unwrap());
    let conf = S3Conf::parse(conf.as_bytes()).unwrap();
    let store = S3Store::open(conf, &format!("cvmfs/{REPO}"), tmp).unwrap();
    Bucket {
        world,
        store: Arc::new(store),
        _server: server,
    }
}

impl Bucket {
    fn there(&self, objects: &[crate::support::Object]) -> usize {
        let there = |it: &&crate::support::Object| match store::verify(&*self.store, &it.0.name) {
            Ok(_) => true,
            Err(e) if e.is_not_found() => false,
            Err(e) => panic!("{e}"),
        };
        objects.iter().filter(there).count()
    }
}

#[test]
fn objects_come_into_a_bucket() {
    let bucket = bucket();
    let receiver = bucket.world.start();
    let mut caller = bucket.world.call(receiver.at());
    let mut all = objects(0..60);
    all.push(object(1000, 300_000));
    let missing = caller.announce("t", &all);
    assert_eq!((missing.room, missing.absent.count()), (None, 61));
    let mut damaged = all.clone();
    damaged[3].1[0] ^= 1;
    let outcome = caller.send("t", &missing.session, &damaged);
    assert_eq!((outcome.kept, outcome.refused.len()), (60, 1));
    assert_eq!(bucket.there(&all), 60);
    caller.push("t", &all);
    assert_eq!(bucket.there(&all), 61);
    receiver.end();
}

/// A bucket does not tell when a catalog came, so all that a revision leads to is read.
#[test]
fn what_a_bucket_s_revisions_need_stays() {
    let bucket = bucket();
    let receiver = bucket.world.start();
    let mut caller = bucket.world.call(receiver.at());
    let all: Vec<_> = (1..5).map(|n| object(n, 100)).collect();
    caller.push("lost", &all);
    let file = made::regular(1, Content::Whole(all[2].0.name.hash));
    let rows = [made::dir(""), made::row("/f", Kind::Regular(file))];
    let root = made::catalog(&*bucket.store, "", &rows, |_| {});
    let manifest = Manifest::new(REPO, root.hash, root.size);
    let body = manifest.body();
    let signed = SignedManifest {
        manifest,
        body_hash: Hash::of(Algorithm::Sha1, &body),
        body,
        signature: b"nobody looks at it".to_vec(),
    };
    let reflog = bucket.world.path("reflog");
    ReflogWriter::create(&reflog, REPO)
        .unwrap()
        .finish()
        .unwrap();
    let reflog = fs::read(&reflog).unwrap();
    bucket.store.write_root(".cvmfsreflog", &reflog).unwrap();
    let published = signed.to_bytes().unwrap();
    bucket
        .store
        .write_root(".cvmfspublished", &published)
        .unwrap();
    caller.give_up("lost");
    receiver.site.sweep();
    assert_eq!(bucket.there(&all), 1);
    assert_eq!(bucket.there(&all[2..3]), 1);
    receiver.end();
}
