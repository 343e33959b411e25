// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is seen of a run while it goes on: bars on a terminal, plain lines elsewhere, a stream of
//! events for programs.
//!
//! Whoever does something tells it here as an [`Event`] and asks nothing; only this module knows who
//! looks.

mod bars;
mod board;
mod expected;
mod plain;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write as _, stderr, stdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bars::Bars;
pub use expected::Expected;
use plain::Plain;
use stream::Stream;

use crate::events::Event;

/// How often clocks move although nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// Where progress goes: to standard error, so that standard output stays a command's result; a stream
/// of events is a result. Clones show in the same place.
#[derive(Clone)]
pub struct Progress {
    view: Arc<Mutex<View>>,
}

enum View {
    Quiet,
    Plain(Plain),
    Terminal(Bars),
    Stream(Stream),
}

impl Progress {
    /// Bars on a terminal, plain lines elsewhere; `quiet` shows neither.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        // A terminal that can only print is as good as a file.
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        Self::of(if quiet {
            View::Quiet
        } else if stderr().is_terminal() && !is_dumb {
            View::Terminal(Bars::on_stderr(print))
        } else {
            View::Plain(Plain::default())
        })
    }

    /// Every event as a line of JSON on standard output, and nothing on standard error.
    #[must_use]
    pub fn json_stream() -> Self {
        Self::of(View::Stream(Stream::to(Box::new(stdout()))))
    }

    fn of(view: View) -> Self {
        let has_clock = matches!(view, View::Plain(_) | View::Terminal(_));
        let progress = Self { view: Arc::new(Mutex::new(view)) };
        if has_clock {
            let view = Arc::downgrade(&progress.view);
            // Without the thread clocks stand still; nothing else hangs on it.
            let _ = thread::Builder::new().name("progress".into()).spawn(move || {
                loop {
                    thread::sleep(TICK);
                    let Some(view) = view.upgrade() else { return };
                    lock(&view).tick(Instant::now());
                }
            });
        }
        progress
    }

    /// Tells what happened.
    pub fn tell(&self, event: &Event) {
        lock(&self.view).hear(event, Instant::now());
    }

    /// Tells a line. It is shown when quiet as well: what is worth a line of its own is worth reading.
    pub fn say(&self, line: impl AsRef<str>) {
        self.tell(&Event::Message { text: line.as_ref().to_owned() });
    }

    /// Begins a stage. Without `total` it counts and shows the time, and promises no end.
    #[must_use]
    pub fn bar(&self, stage: impl Into<String>, total: Option<u64>) -> Bar {
        let stage = stage.into();
        self.tell(&Event::StageStarted { stage: stage.clone(), total });
        Bar { progress: self.clone(), stage, total, count: AtomicU64::new(0), text: String::new() }
    }

    /// Shows what was held back, because the process ends at once. Never waits.
    pub fn give_up(&self) {
        if let Ok(mut view) = self.view.try_lock()
            && let View::Plain(plain) = &mut *view
        {
            plain.rest().iter().for_each(|line| print(line));
        }
    }
}

/// What is shown must not depend on whether some thread panicked.
fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    fn hear(&mut self, event: &Event, now: Instant) {
        match self {
            Self::Quiet => {
                if let Event::Message { text } = event {
                    print(text);
                }
            }
            Self::Plain(plain) => plain.hear(event, now).iter().for_each(|line| print(line)),
            Self::Terminal(bars) => bars.hear(event, now),
            Self::Stream(stream) => stream.hear(event, now),
        }
    }

    fn tick(&mut self, now: Instant) {
        match self {
            Self::Quiet | Self::Stream(_) => {}
            Self::Plain(plain) => plain.tick(now).iter().for_each(|line| print(line)),
            Self::Terminal(bars) => bars.tick(now),
        }
    }
}

/// Prints a line to standard error, whole. A reader that has seen enough (`2>&1 | head`) is no error.
pub fn print(line: &str) {
    let _ = anstream::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// One thing that takes many steps. Dropped without [`Bar::finish`], it vanishes: something went wrong,
/// and the error says what.
pub struct Bar {
    progress: Progress,
    stage: String,
    total: Option<u64>,
    count: AtomicU64,
    text: String,
}

impl Bar {
    /// One more is done; `what` is what it was about.
    pub fn step(&self, what: &str) {
        let done = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let (stage, what) = (self.stage.clone(), what.to_owned());
        self.progress.tell(&Event::StageDoing { stage, done, total: self.total, what });
    }

    /// How many steps were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends it and leaves `text` in its place; an empty text leaves nothing.
    pub fn finish(mut self, text: &str) {
        text.clone_into(&mut self.text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let (stage, text) = (self.stage.clone(), std::mem::take(&mut self.text));
        self.progress.tell(&Event::StageEnded { stage, done: self.count(), text });
    }
}
