//! Telling the kernel what changed behind its back, from a thread of its own.
//!
//! An invalidation may wait for a request that waits for the tree's lock, so it is only queued by
//! those who hold it.

use std::sync::Arc;
use std::time::Duration;

use formats::Name;

use crate::sync::channel::{Receiver, Sender, bounded, unbounded};
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, thread};
use crate::types::{Ino, Notifier};

/// Longest that somebody waits for what was queued to be told: the kernel may wait for a request.
const TOLD_WAIT: Duration = Duration::from_secs(5);

enum Notice {
    Inode(Ino),
    Entry(Ino, Name),
    /// All before it is told once this is dropped.
    Mark(Sender<()>),
}

/// See the module's head.
pub(crate) struct Notices {
    sender: Option<Sender<Notice>>,
    target: Arc<Mutex<Option<Arc<dyn Notifier>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let (sender, receiver) = unbounded();
        let target = Arc::<Mutex<Option<Arc<dyn Notifier>>>>::default();
        let told = Arc::clone(&target);
        let thread = thread::Builder::new()
            .name(format!("notify {name}"))
            .spawn(move || run(&receiver, &told))?;
        Ok(Self {
            sender: Some(sender),
            target,
            thread: Some(thread),
        })
    }

    pub(crate) fn set_target(&self, target: Option<Arc<dyn Notifier>>) {
        *self.target.lock() = target;
    }

    pub(crate) fn inode(&self, ino: Ino) {
        self.push(Notice::Inode(ino));
    }

    pub(crate) fn entry(&self, parent: Ino, name: &Name) {
        self.push(Notice::Entry(parent, name.clone()));
    }

    /// Returns once everything queued until now has been told. Whoever calls holds no lock that a
    /// request may wait for.
    pub(crate) fn wait_told(&self) {
        let (mark, told) = bounded(0);
        self.push(Notice::Mark(mark));
        // nothing is ever sent: it ends with the mark, or for want of patience
        let _ = told.recv_timeout(TOLD_WAIT);
    }

    fn push(&self, notice: Notice) {
        if let Some(sender) = &self.sender {
            // the receiver lives as long as we do
            let _ = sender.send(notice);
        }
    }
}

fn run(receiver: &Receiver<Notice>, target: &Mutex<Option<Arc<dyn Notifier>>>) {
    for notice in receiver {
        let Some(notifier) = target.lock().clone() else {
            continue;
        };
        match notice {
            Notice::Mark(mark) => drop(mark),
            Notice::Inode(ino) => notifier.inval_inode(ino),
            Notice::Entry(parent, name) => notifier.inval_entry(parent, name.as_bytes()),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }
}
