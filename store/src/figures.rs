//! Figures for Prometheus, as both daemons show them: counters and histograms that last as long as the
//! process, and gauges of a moment. Only this file and `figures/` name the library that writes them.
//!
//! A name is said in full where it is registered, but for the `_total` of a counter, which the
//! library adds. Labels are few and bounded: a repository, a site, or a word of ours.
//! docs/metrics.md lists all of it, and a test holds that against what is served.

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod look;

pub use look::{Look, Seen};

/// What [`Figures::text`] is, as HTTP says it.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Upper bounds of what takes from a tenth of a second to most of an hour, in seconds.
pub const SECONDS: [f64; 9] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3000.0];

type Labels = Vec<(&'static str, String)>;

/// Figures under their names, written in the order in which they were registered.
#[derive(Debug, Default)]
pub struct Figures(Registry);

/// A number that only goes up.
#[derive(Clone, Debug, Default)]
pub struct Counter(counter::Counter);

/// Counters by the values of `N` labels.
#[derive(Clone, Debug)]
pub struct Counters<const N: usize> {
    labels: [&'static str; N],
    family: Family<Labels, counter::Counter>,
}

/// How often something took how long, by the values of `N` labels.
#[derive(Clone, Debug)]
pub struct Histograms<const N: usize> {
    labels: [&'static str; N],
    family: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Figures {
    /// That a program of this name and version runs: `NAME_info`.
    pub fn version(&mut self, name: &str, version: &str) {
        let info = Info::new(vec![("version", version.to_owned())]);
        self.0.register(name, "which program this is", info);
    }

    /// A counter, `NAME_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.also(name, help, &counter);
        counter
    }

    /// A counter under one more name.
    pub fn also(&mut self, name: &str, help: &str, counter: &Counter) {
        self.0.register(name, help, counter.0.clone());
    }

    /// Counters by labels, `NAME_total`.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Counters<N> {
        let family = Family::default();
        self.0.register(name, help, family.clone());
        Counters { labels, family }
    }

    /// Durations in seconds by labels; see [`SECONDS`].
    pub fn seconds<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Histograms<N> {
        let family = Family::new_with_constructor(seconds as fn() -> Histogram);
        self.0.register(name, help, family.clone());
        Histograms { labels, family }
    }

    /// What a figure is at this moment, by labels; without any value there is no such figure.
    pub fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let family = Family::<Labels, Gauge<u64, std::sync::atomic::AtomicU64>>::default();
        for (of, value) in values {
            family.get_or_create(&pairs(labels, of)).set(value);
        }
        self.0.register(name, help, family);
    }

    /// The same for a number that only goes up and is counted elsewhere, `NAME_total`.
    pub fn total<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        values: impl IntoIterator<Item = ([String; N], u64)>,
    ) {
        let family = Family::<Labels, counter::Counter>::default();
        for (of, value) in values {
            family.get_or_create(&pairs(labels, of)).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// All of it, in Prometheus' text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // a String takes whatever is written
        let _ = prometheus_text::encode(&mut text, &self.0);
        text
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn pairs<const N: usize>(labels: [&'static str; N], values: [String; N]) -> Labels {
    labels.into_iter().zip(values).collect()
}

impl Counter {
    /// By so many.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// By one.
    pub fn one(&self) {
        self.add(1);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl<const N: usize> Counters<N> {
    /// By so many; with 0 it is there from now on.
    pub fn add(&self, of: [&str; N], n: u64) {
        self.family
            .get_or_create(&pairs(self.labels, of.map(str::to_owned)))
            .inc_by(n);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self, of: [&str; N]) -> u64 {
        let of = pairs(self.labels, of.map(str::to_owned));
        self.family.get(&of).map_or(0, |counter| counter.get())
    }

    /// It is not shown any more.
    pub fn forget(&self, of: [&str; N]) {
        self.family
            .remove(&pairs(self.labels, of.map(str::to_owned)));
    }
}

impl<const N: usize> Histograms<N> {
    /// It is there from now on.
    pub fn show(&self, of: [&str; N]) {
        drop(
            self.family
                .get_or_create(&pairs(self.labels, of.map(str::to_owned))),
        );
    }

    /// It took so long once more.
    pub fn took(&self, of: [&str; N], seconds: f64) {
        self.family
            .get_or_create(&pairs(self.labels, of.map(str::to_owned)))
            .observe(seconds);
    }

    /// It is not shown any more.
    pub fn forget(&self, of: [&str; N]) {
        self.family
            .remove(&pairs(self.labels, of.map(str::to_owned)));
    }
}

/// The process itself, under the names that Prometheus' own libraries use. What cannot be found out is
/// left out.
pub fn process(figures: &mut Figures) {
    let open = std::fs::read_dir("/proc/self/fd").map(|fds| fds.count() as u64);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let memory = std::fs::read_to_string("/proc/self/statm").ok();
    // the second number is what is resident, in pages
    let pages = memory.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let memory = pages.map(|pages| pages * rustix::param::page_size() as u64);
    for (name, help, value) in [
        ("process_open_fds", "open file descriptors", open.ok()),
        ("process_max_fds", "most open file descriptors", most),
        (
            "process_resident_memory_bytes",
            "memory that is resident",
            memory,
        ),
    ] {
        figures.gauge(name, help, [], value.map(|value| ([], value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_of_all_that_was_registered() {
        let mut figures = Figures::default();
        figures.version("prepub_test_build", "1.2");
        let counter = figures.counter("prepub_test_objects", "objects kept");
        figures.also("old_objects", "the same", &counter);
        let by = figures.counters("prepub_test_refusals", "requests refused", ["code"]);
        let took = figures.seconds("prepub_test_seconds", "how long", ["step"]);
        figures.gauge("prepub_test_room_bytes", "room", [], [([], u64::MAX)]);
        figures.gauge("prepub_test_nothing", "never seen", ["repo"], []);
        counter.add(2);
        by.add(["a\"b"], 3);
        by.add(["gone"], 1);
        by.forget(["gone"]);
        took.took(["freeze"], 2.0);
        let text = figures.text();
        for line in [
            "prepub_test_build_info{version=\"1.2\"} 1",
            "# TYPE prepub_test_objects_total counter",
            "prepub_test_objects_total 2",
            "old_objects_total 2",
            "prepub_test_refusals_total{code=\"a\\\"b\"} 3",
            "prepub_test_seconds_bucket{step=\"freeze\",le=\"1\"} 0",
            "prepub_test_seconds_bucket{step=\"freeze\",le=\"3\"} 1",
            "prepub_test_seconds_count{step=\"freeze\"} 1",
            "prepub_test_room_bytes 18446744073709551615",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
        assert_eq!((by.get(["a\"b"]), by.get(["gone"])), (3, 0));
    }

    #[test]
    fn the_process_has_files_open_and_memory() {
        let mut figures = Figures::default();
        process(&mut figures);
        let text = figures.text();
        for name in [
            "process_open_fds",
            "process_max_fds",
            "process_resident_memory_bytes",
        ] {
            let prefix = format!("{name} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
            let value: u64 = line.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
            assert!(value > 0, "{text}");
        }
    }
}
