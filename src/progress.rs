//! Progress as people see it: bars on a terminal, a plain line now and then elsewhere.
//!
//! Everything goes to stderr; stdout is for results.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    Plain(Mutex<HashMap<Step, Instant>>),
    Bars(Mutex<Bars>),
}

#[derive(Default)]
struct Bars {
    current: Option<(Step, ProgressBar, Instant)>,
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
        if let Kind::Bars(bars) = &self.kind
            && let Some((_, bar, _)) = bars.lock().current.take()
        {
            bar.finish_and_clear();
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
        Step::Catalogs => "writing catalogs",
        Step::Submit => "publishing",
        Step::Check => "checking",
    }
}

/// One plain line, without its end.
pub fn line(progress: &Progress) -> String {
    let unit = serde_json::to_value(progress.unit).unwrap_or_default();
    let unit = unit.as_str().unwrap_or_default();
    match progress.total {
        0 => format!("{}: {} {unit}", title(progress.step), progress.done),
        total => format!(
            "{}: {} of {total} {unit}",
            title(progress.step),
            progress.done
        ),
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
                let last = said.entry(progress.step).or_insert(now);
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
            Kind::Bars(bars) => match &bars.lock().current {
                Some((_, bar, _)) => bar.suspend(|| say(text)),
                None => say(text),
            },
        }
    }
}

impl Bars {
    fn show(&mut self, progress: &Progress) {
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
        };
        assert_eq!(line(&progress), "sealing: 3 of 10 files");
        assert_eq!(
            line(&Progress {
                total: 0,
                ..progress
            }),
            "sealing: 3 files"
        );
    }
}
