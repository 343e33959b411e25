// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person sees while something takes long: bars on a terminal, a line now and then elsewhere.
//!
//! The only file that names indicatif, so that every stage reports in the same way and none of them
//! asks whether somebody looks at a terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar says something when nobody looks at a terminal.
const PLAIN_INTERVAL_S: u64 = 10;
/// How often a terminal's bar moves its clock although nothing was finished.
const TICK: Duration = Duration::from_millis(200);
const COUNTED: &str = "{prefix} {bar:24} {pos}/{len} {per_sec:.dim} eta {eta} {wide_msg:.dim}";
const UNCOUNTED: &str = "{prefix} {spinner} {pos} {elapsed} {wide_msg:.dim}";

/// Where progress goes. Everything is written to standard error, so that standard output stays a
/// command's result. Cheap to share between threads by reference.
pub struct Progress {
    kind: Kind,
}

enum Kind {
    Quiet,
    Plain,
    Terminal(MultiProgress),
}

impl Progress {
    /// Bars on a terminal, plain lines elsewhere; `quiet` shows neither bars nor their plain lines.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Quiet
        } else if stderr().is_terminal() {
            Kind::Terminal(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Kind::Plain
        };
        Self { kind }
    }

    /// Begins a bar. Without `total` it counts and shows the time, and promises no end.
    #[must_use]
    pub fn bar(&self, title: impl Into<Cow<'static, str>>, total: Option<u64>) -> Bar {
        let title = title.into();
        let bar = match &self.kind {
            Kind::Terminal(multi) => {
                let template = if total.is_some() { COUNTED } else { UNCOUNTED };
                let style =
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = multi
                    .add(ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(title.clone()));
                bar.enable_steady_tick(TICK);
                bar
            }
            Kind::Quiet | Kind::Plain => ProgressBar::hidden(),
        };
        let plain = matches!(self.kind, Kind::Plain);
        let now = Instant::now();
        Bar { bar, title, total, plain, begun: now, count: AtomicU64::new(0), said: Mutex::new(now) }
    }

    /// Prints a line without tearing the bars. It is shown when quiet as well: what is worth a line
    /// of its own is worth reading.
    pub fn say(&self, line: impl AsRef<str>) {
        let line = line.as_ref();
        match &self.kind {
            Kind::Terminal(multi) => multi.suspend(|| anstream::eprintln!("{line}")),
            Kind::Quiet | Kind::Plain => anstream::eprintln!("{line}"),
        }
    }
}

/// One thing that takes long. Dropped without [`Bar::finish`], it vanishes: something went wrong,
/// and the error says what.
pub struct Bar {
    bar: ProgressBar,
    title: Cow<'static, str>,
    total: Option<u64>,
    plain: bool,
    begun: Instant,
    count: AtomicU64,
    said: Mutex<Instant>,
}

impl Bar {
    /// One more is done; `what` is what is worked on now.
    pub fn step(&self, what: &str) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.plain {
            // A total taken from an earlier build can be too low; 1700/1686 would look like a fault.
            if self.total.is_some_and(|total| count > total) {
                self.bar.set_length(count);
            }
            self.bar.inc(1);
            self.bar.set_message(what.to_owned());
            return;
        }
        let Ok(mut said) = self.said.lock() else { return };
        if said.elapsed().as_secs() >= PLAIN_INTERVAL_S {
            *said = Instant::now();
            eprintln!("{}", plain_line(&self.title, count, self.total, self.begun.elapsed(), what));
        }
    }

    /// What is worked on now, without counting it.
    pub fn note(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// How many steps were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the bar and leaves `text` in its place; an empty text leaves nothing.
    pub fn finish(self, text: &str) {
        self.bar.finish_and_clear();
        if text.is_empty() {
            return;
        }
        let line = format!("{} {text}", self.title);
        if self.plain {
            eprintln!("{line}");
        } else if !self.bar.is_hidden() {
            // Nothing of the bar may be asked for inside: it is locked meanwhile.
            self.bar.suspend(|| anstream::eprintln!("{line}"));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The line shown in place of a bar; the rate is that of the whole time so far.
fn plain_line(title: &str, count: u64, total: Option<u64>, elapsed: Duration, what: &str) -> String {
    let seconds = elapsed.as_secs();
    match total.filter(|&total| total >= count && count > 0) {
        Some(total) => {
            let left = seconds * (total - count) / count;
            format!("{title} {count}/{total}, {seconds} s, about {left} s to go: {what}")
        }
        None => format!("{title} {count}, {seconds} s: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_estimate_what_is_left() {
        let check = |count, total, expect: &str| {
            assert_eq!(plain_line("kernel", count, total, Duration::from_secs(30), "mm/gup.o"), expect);
        };
        check(100, Some(400), "kernel 100/400, 30 s, about 90 s to go: mm/gup.o");
        check(401, Some(400), "kernel 401, 30 s: mm/gup.o");
        check(0, Some(400), "kernel 0, 30 s: mm/gup.o");
        check(7, None, "kernel 7, 30 s: mm/gup.o");
    }

    #[test]
    fn a_bar_counts_from_several_threads() {
        let progress = Progress::new(true);
        let bar = progress.bar("test", Some(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| bar.step("x")));
            }
        });
        assert_eq!(bar.count(), 100);
        bar.finish("");
    }
}
