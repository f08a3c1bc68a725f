//! Figures for Prometheus, all beginning with `prepub_receiver_`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Counters that only go up. One a name; some by a label.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Announcements that were answered.
    pub announcements: Counter,
    /// Names in those.
    pub names: Counter,
    /// Of those, absent.
    pub absent: Counter,
    /// Bundles that were taken, whole or in part.
    pub bundles: Counter,
    /// Objects that came and are there.
    pub objects: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Objects that came, and were there.
    pub present: Counter,
    /// Objects that were not taken, by reason.
    pub objects_refused: Labelled,
    /// Requests that were refused, by reason.
    pub refusals: Labelled,
    /// Connections that were not let in.
    pub strangers: Counter,
    /// Publications that were told of.
    pub published: Counter,
    /// Transactions whose objects were removed.
    pub expired: Counter,
    /// Objects that were removed.
    pub objects_expired: Counter,
    /// Objects of such transactions that stay, since others need them.
    pub objects_spared: Counter,
    /// Times that nothing was removed because it could not be told what is needed.
    pub doubts: Counter,
    /// Snapshots that were run, by how they ended.
    pub snapshots: Labelled,
    /// Times that a publisher could not be reached for work.
    pub pull_failures: Counter,
    /// Messages over a broker that were for us.
    pub messages: Counter,
    /// Messages over a broker that did not count.
    pub messages_refused: Counter,
}

/// A number that goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// By so many.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// By one.
    pub fn one(&self) {
        self.add(1);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by a word of ours, of which there are few.
#[derive(Debug, Default)]
pub struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    /// One more.
    pub fn one(&self, word: &'static str) {
        *self.0.lock().entry(word).or_default() += 1;
    }

    /// How many of a word.
    #[must_use]
    pub fn get(&self, word: &str) -> u64 {
        self.0.lock().get(word).copied().unwrap_or(0)
    }
}

/// A figure of the moment: its name, what it says, its labels, its value.
pub type Gauge = (&'static str, &'static str, String, u64);

impl Metrics {
    /// Prometheus' text form.
    #[must_use]
    pub fn render(&self, gauges: &[Gauge]) -> String {
        let mut out = String::new();
        let counters: [(&str, &str, &Counter); 16] = [
            (
                "announcements_total",
                "announcements answered",
                &self.announcements,
            ),
            ("names_total", "names announced", &self.names),
            (
                "absent_total",
                "announced names that were absent",
                &self.absent,
            ),
            (
                "bundles_total",
                "bundles taken, whole or in part",
                &self.bundles,
            ),
            ("objects_total", "objects kept", &self.objects),
            ("bytes_total", "bytes of objects kept", &self.bytes),
            (
                "present_total",
                "objects sent that were there already",
                &self.present,
            ),
            (
                "strangers_total",
                "connections that were not let in",
                &self.strangers,
            ),
            ("published_total", "publications heard of", &self.published),
            ("expired_total", "transactions expired", &self.expired),
            (
                "objects_expired_total",
                "objects removed",
                &self.objects_expired,
            ),
            (
                "objects_spared_total",
                "objects of expired transactions that others need",
                &self.objects_spared,
            ),
            (
                "doubts_total",
                "times that nothing was removed for lack of certainty",
                &self.doubts,
            ),
            (
                "pull_failures_total",
                "times a publisher could not be asked for work",
                &self.pull_failures,
            ),
            (
                "messages_total",
                "messages over a broker that were for this site",
                &self.messages,
            ),
            (
                "messages_refused_total",
                "messages over a broker that did not count",
                &self.messages_refused,
            ),
        ];
        for (name, help, counter) in counters {
            head(&mut out, name, help, "counter");
            let _ = writeln!(out, "prepub_receiver_{name} {}", counter.get());
        }
        for (name, help, label, all) in [
            (
                "objects_refused_total",
                "objects not taken",
                "code",
                &self.objects_refused,
            ),
            ("refusals_total", "requests refused", "code", &self.refusals),
            ("snapshots_total", "snapshots run", "end", &self.snapshots),
        ] {
            head(&mut out, name, help, "counter");
            for (word, n) in all.0.lock().iter() {
                let _ = writeln!(out, "prepub_receiver_{name}{{{label}=\"{word}\"}} {n}");
            }
        }
        let mut last = "";
        for (name, help, labels, value) in gauges {
            if *name != last {
                head(&mut out, name, help, "gauge");
                last = name;
            }
            let _ = writeln!(out, "prepub_receiver_{name}{labels} {value}");
        }
        out
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP prepub_receiver_{name} {help}");
    let _ = writeln!(out, "# TYPE prepub_receiver_{name} {kind}");
}
