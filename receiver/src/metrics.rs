//! Figures for Prometheus, all beginning with `prepub_receiver_`, and those of the predecessor that
//! mean the same. docs/metrics.md lists them.

use store::figures::{Counter, Counters, Figures};

use crate::refusal;
use crate::vault::Why;

/// Counters that only go up. One a name; some by a label.
#[derive(Debug)]
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
    figures: Figures,
}

/// Counters by a word of ours, of which there are few.
#[derive(Debug)]
pub struct Labelled(Counters<1>);

impl Labelled {
    /// One more.
    pub fn one(&self, word: &'static str) {
        self.0.add([word], 1);
    }

    /// How many of a word.
    #[must_use]
    pub fn get(&self, word: &str) -> u64 {
        self.0.get([word])
    }
}

/// By each of these words, from 0 on: what was never seen has a rate, too.
fn labelled(
    figures: &mut Figures,
    (name, help): (&str, &str),
    label: &'static str,
    words: impl IntoIterator<Item = &'static str>,
) -> Labelled {
    let counters = figures.counters(name, help, [label]);
    words.into_iter().for_each(|word| counters.add([word], 0));
    Labelled(counters)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut figures = Figures::default();
        figures.version("prepub_receiver_build", env!("CARGO_PKG_VERSION"));
        let of = &mut figures;
        let mut counter =
            |name: &str, help: &str| of.counter(&format!("prepub_receiver_{name}"), help);
        let mut metrics = Self {
            announcements: counter("announcements", "announcements answered"),
            names: counter("names", "names announced"),
            absent: counter("absent", "announced names that were absent"),
            bundles: counter("bundles", "bundles taken, whole or in part"),
            objects: counter("objects", "objects kept"),
            bytes: counter("bytes", "bytes of objects kept"),
            present: counter("present", "objects sent that were there already"),
            strangers: counter("strangers", "connections that were not let in"),
            published: counter("published", "publications heard of"),
            expired: counter("expired", "transactions expired"),
            objects_expired: counter("objects_expired", "objects removed"),
            objects_spared: counter(
                "objects_spared",
                "objects of expired transactions that others need",
            ),
            doubts: counter(
                "doubts",
                "times that nothing was removed for lack of certainty",
            ),
            pull_failures: counter(
                "pull_failures",
                "times a publisher could not be asked for work",
            ),
            messages: counter("messages", "messages over a broker for this site"),
            messages_refused: counter(
                "messages_refused",
                "messages over a broker that did not count",
            ),
            objects_refused: labelled(
                &mut figures,
                ("prepub_receiver_objects_refused", "objects not taken"),
                "code",
                Why::ALL.map(Why::word),
            ),
            refusals: labelled(
                &mut figures,
                ("prepub_receiver_refusals", "requests refused"),
                "code",
                refusal::CODES,
            ),
            snapshots: labelled(
                &mut figures,
                ("prepub_receiver_snapshots", "snapshots run"),
                "end",
                ["done", "failed"],
            ),
            figures: Figures::default(),
        };
        predecessor(&mut figures, &metrics);
        metrics.figures = figures;
        metrics
    }
}

/// The predecessor's names, where they mean the same.
fn predecessor(figures: &mut Figures, metrics: &Metrics) {
    for (name, counter) in [("objects", &metrics.objects), ("bytes", &metrics.bytes)] {
        let help = format!("cvmfs-prepub's name for what prepub_receiver_{name}_total says");
        figures.also(&format!("cvmfs_receiver_{name}_received"), &help, counter);
    }
}

impl Metrics {
    /// Prometheus' text form, with the figures of a moment.
    #[must_use]
    pub fn text(&self, mut moment: Figures) -> String {
        let refused: u64 = Why::ALL
            .iter()
            .map(|why| self.objects_refused.get(why.word()))
            .sum();
        let pulled = [
            ("fetched", self.objects.get()),
            ("skipped", self.present.get()),
            ("failed", refused),
        ];
        moment.total(
            "cvmfs_receiver_pull_objects",
            "cvmfs-prepub's name for what prepub_receiver_objects_total and its like say",
            ["result"],
            pulled.map(|(result, n)| ([result.to_owned()], n)),
        );
        self.figures.text() + &moment.text()
    }
}
