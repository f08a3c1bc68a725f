//! Telling the kernel what changed behind its back, from a thread of its own.
//!
//! An invalidation may wait for a request that waits for the tree's lock, so it is only queued by
//! those who hold it.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use formats::Name;
use parking_lot::Mutex;

use crate::types::{Ino, Notifier};

enum Notice {
    Inode(Ino),
    Entry(Ino, Name),
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
        let thread = std::thread::Builder::new()
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
            Notice::Inode(ino) => notifier.inval_inode(ino),
            Notice::Entry(parent, name) => notifier.inval_entry(parent, name.as_bytes()),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }
}
