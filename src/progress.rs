//! Progress as people see it: bars on a terminal, a plain line now and then elsewhere.
//!
//! Everything goes to stderr; stdout is for results.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::api::{Progress, Step, Watch};

/// Between two plain lines of one step.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// A step that ends sooner shows no bar: it would only flicker.
const BAR_DELAY: Duration = Duration::from_millis(150);

/// Shows progress on stderr.
pub struct Display {
    kind: Kind,
}

enum Kind {
    Quiet,
    Plain(Mutex<HashMap<(Step, Option<String>), Instant>>),
    Bars(Mutex<Bars>),
}

#[derive(Default)]
struct Bars {
    current: Option<(Step, ProgressBar, Instant)>,
    /// One for each Stratum 1 that is being warmed.
    sites: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
}

impl Display {
    /// Bars if stderr is a terminal, plain lines if not, nothing if `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let kind = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Quiet,
            (false, true) => Kind::Bars(Mutex::default()),
            (false, false) => Kind::Plain(Mutex::default()),
        };
        Self { kind }
    }

    /// Takes the bars off the screen.
    pub fn finish(&self) {
        if let Kind::Bars(bars) = &self.kind {
            bars.lock().clear();
        }
    }
}

/// What is being done, in a word.
#[must_use]
pub fn title(step: Step) -> &'static str {
    match step {
        Step::Recover => "recovering",
        Step::Seal => "sealing",
        Step::Store => "storing",
        Step::Warm => "warming",
        Step::Catalogs => "writing catalogs",
        Step::Submit => "publishing",
        Step::Check => "checking",
    }
}

fn title_of(progress: &Progress) -> Cow<'static, str> {
    let title = title(progress.step);
    match &progress.site {
        Some(site) => format!("{title} {site}").into(),
        None => title.into(),
    }
}

/// One plain line, without its end.
pub fn line(progress: &Progress) -> String {
    let unit = serde_json::to_value(progress.unit).unwrap_or_default();
    let unit = unit.as_str().unwrap_or_default();
    let title = title_of(progress);
    match progress.total {
        0 => format!("{title}: {} {unit}", progress.done),
        total => format!("{title}: {} of {total} {unit}", progress.done),
    }
}

impl Watch for Display {
    fn progress(&self, progress: Progress) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Plain(said) => {
                let now = Instant::now();
                let mut said = said.lock();
                // the first line of a step comes after the interval too: short steps are silent
                let key = (progress.step, progress.site.clone());
                let last = said.entry(key).or_insert(now);
                if now.duration_since(*last) >= PLAIN_INTERVAL {
                    *last = now;
                    say(&line(&progress));
                }
            }
            Kind::Bars(bars) => bars.lock().show(&progress),
        }
    }

    fn note(&self, text: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Plain(_) => say(text),
            Kind::Bars(bars) => {
                let bars = bars.lock();
                match (&bars.current, &bars.sites) {
                    (_, Some((all, _))) => all.suspend(|| say(text)),
                    (Some((_, bar, _)), None) => bar.suspend(|| say(text)),
                    (None, None) => say(text),
                }
            }
        }
    }
}

impl Bars {
    fn clear(&mut self) {
        if let Some((_, bar, _)) = self.current.take() {
            bar.finish_and_clear();
        }
        if let Some((all, _)) = self.sites.take() {
            let _ = all.clear();
        }
    }

    /// One bar a site, all at once.
    fn show_site(&mut self, site: &str, progress: &Progress) {
        if let Some((_, bar, _)) = self.current.take() {
            bar.finish_and_clear();
        }
        let (all, bars) = self.sites.get_or_insert_default();
        let bar = bars.entry(site.to_owned()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style(true));
            bar.set_message(title_of(progress));
            bar
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }

    fn show(&mut self, progress: &Progress) {
        if let Some(site) = &progress.site {
            return self.show_site(site, progress);
        }
        if let Some((all, _)) = self.sites.take() {
            let _ = all.clear();
        }
        if self
            .current
            .as_ref()
            .is_none_or(|(step, ..)| *step != progress.step)
        {
            if let Some((_, bar, _)) = self.current.take() {
                bar.finish_and_clear();
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            self.current = Some((progress.step, bar, Instant::now()));
        }
        let Some((step, bar, began)) = &mut self.current else {
            return;
        };
        if bar.is_hidden() && began.elapsed() >= BAR_DELAY {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let known = progress.total > 0;
        bar.set_style(style(known));
        bar.set_message(title(*step));
        if known {
            bar.set_length(progress.total);
        }
        bar.set_position(progress.done);
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = match known {
        true => "{msg:>22} [{bar:30}] {human_pos}/{human_len} {eta}",
        false => "{msg:>22} {spinner} {human_pos}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn say(text: &str) {
    // nobody is told if stderr is closed, and nothing else suffers
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Unit;

    #[test]
    fn lines() {
        let progress = Progress {
            step: Step::Seal,
            done: 3,
            total: 10,
            unit: Unit::Files,
            site: None,
        };
        assert_eq!(line(&progress), "sealing: 3 of 10 files");
        assert_eq!(
            line(&Progress {
                total: 0,
                ..progress.clone()
            }),
            "sealing: 3 files"
        );
        let of_a_site = Progress {
            step: Step::Warm,
            site: Some("cern".into()),
            ..progress
        };
        assert_eq!(line(&of_a_site), "warming cern: 3 of 10 files");
    }
}
