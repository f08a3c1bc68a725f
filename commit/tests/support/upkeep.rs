//! What is done to a repository beside publishing.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use commit::home::KeyFile;
use commit::{NewRepository, Publisher, Stratum0};
use formats::object::Compression;

use super::repo::Repo;

impl Repo {
    /// An hour passes.
    pub fn later(&self) {
        self.advance(Duration::from_secs(3600));
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.clock.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// The publisher of a new process, with a cache of its own.
    pub fn reopened(&self) -> Stratum0 {
        let cache = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        Stratum0::open(self.publisher.home().clone(), &cache).unwrap()
    }

    /// Puts other keys in the place of all four.
    pub fn replace_keys(&self) {
        let home = self.publisher.home();
        let ring = formats::trust::generate_keys(&home.name, UNIX_EPOCH).unwrap();
        for (key, bytes) in [
            (KeyFile::MasterKey, ring.master_key),
            (KeyFile::Public, ring.public),
            (KeyFile::Key, ring.key),
            (KeyFile::Certificate, ring.certificate),
        ] {
            let file = home.key_file(key);
            let _ = fs::remove_file(&file);
            fs::write(file, bytes).unwrap();
        }
    }

    /// Makes a repository of the same name, after this one was removed.
    pub fn mkfs_again(&self) {
        let wanted = NewRepository {
            name: self.publisher.name().to_owned(),
            storage: None,
            keys: None,
            algorithm: formats::hash::Algorithm::Shake128,
            compression: Compression::Zlib,
            uid: 0,
            gid: 0,
            url: String::new(),
            settings: Vec::new(),
        };
        commit::mkfs(self.dir.path(), &wanted, self.now()).unwrap();
        self.reopened().head(self.now()).unwrap();
    }
}
