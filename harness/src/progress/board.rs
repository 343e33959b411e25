// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes on now, by the events so far, and how it reads. Pure: the time is an argument, so that
//! what a person sees in a long run can be tested in no time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::expected::left_ms;
use crate::events::Event;
use crate::judge::Verdict;
use crate::outcome::Kind;
use crate::report::word;

/// Signs in a gauge.
const GAUGE: u64 = 12;
/// What is shown of the reason for a verdict; all of it is in the report.
const REASON_CHARS: usize = 160;

/// What goes on.
#[derive(Debug, Default)]
pub(super) struct Board {
    stages: BTreeMap<String, Stage>,
    jobs: usize,
    planned: usize,
    ended: usize,
    not_green: usize,
    /// Expected times of the cases that did not start yet, in milliseconds.
    waiting: BTreeMap<usize, u64>,
    running: BTreeMap<usize, Running>,
    /// When the first case started.
    pub(super) playing_since: Option<Instant>,
}

#[derive(Debug)]
struct Stage {
    begun: Instant,
    done: u64,
    total: Option<u64>,
    what: String,
}

#[derive(Debug)]
struct Running {
    name: String,
    what: String,
    begun: Instant,
    expected_ms: u64,
}

/// What a line is about; a line keeps its place while that goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Run,
    Stage(String),
    Case(usize),
}

impl Board {
    /// Takes an event in.
    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        match event {
            Event::RunStarted { jobs, cases, .. } => {
                let waiting = cases.iter().map(|row| (row.nr, row.expected_ms)).collect();
                *self = Self { jobs: *jobs, planned: cases.len(), waiting, ..Self::default() };
            }
            Event::Message { .. } => {}
            Event::StageStarted { stage, total } => {
                let begun = Stage { begun: now, done: 0, total: *total, what: String::new() };
                self.stages.insert(stage.clone(), begun);
            }
            Event::StageDoing { stage, done, what, .. } => {
                if let Some(stage) = self.stages.get_mut(stage) {
                    // Steps are counted by several threads and may be told out of order.
                    stage.done = stage.done.max(*done);
                    stage.what.clone_from(what);
                }
            }
            Event::StageEnded { stage, .. } => {
                self.stages.remove(stage);
            }
            Event::CaseStarted { nr, id, kernel } => {
                self.playing_since.get_or_insert(now);
                let expected_ms = self.waiting.remove(nr).unwrap_or(0);
                let name = format!("{id} on {kernel}");
                let running = Running { name, what: String::new(), begun: now, expected_ms };
                self.running.insert(*nr, running);
            }
            Event::CaseDoing { nr, what } => {
                if let Some(running) = self.running.get_mut(nr) {
                    running.what.clone_from(what);
                }
            }
            Event::CaseEnded { nr, green, verdict, .. } => {
                self.waiting.remove(nr);
                self.running.remove(nr);
                self.ended += 1;
                self.not_green += usize::from(!green && verdict.kind != Kind::NotRun);
            }
            Event::RunEnded { .. } => *self = Self::default(),
        }
    }

    /// The case has its machine now.
    pub(super) fn is_running(&self, nr: usize) -> bool {
        self.running.contains_key(&nr)
    }

    /// A line for all that goes on, the whole first: of a small terminal the last lines are left out.
    pub(super) fn lines(&self, now: Instant) -> Vec<(Subject, String)> {
        let gauge_of_all = gauge(self.ended as u64, self.planned as u64);
        let overall = self.count(&gauge_of_all, now).map(|line| (Subject::Run, line));
        let stages = self.stages.iter().map(|(name, stage)| {
            let gauge = stage.total.map(|total| gauge(stage.done, total)).unwrap_or_default();
            (Subject::Stage(name.clone()), stage_line(name, stage, &gauge, now))
        });
        let cases = self.running.iter().map(|(nr, case)| {
            let seconds = since(case.begun, now).as_secs();
            let doing = if case.what.is_empty() { String::new() } else { format!(": {}", case.what) };
            (Subject::Case(*nr), format!("{seconds:3} s  {}{doing}", case.name))
        });
        overall.into_iter().chain(stages).chain(cases).collect()
    }

    /// How far the cases are; nothing before the first and after the last. The number comes first, so
    /// that a narrow terminal shows it.
    pub(super) fn count(&self, gauge: &str, now: Instant) -> Option<String> {
        self.playing_since?;
        let (ended, planned) = (self.ended, self.planned);
        if ended >= planned {
            return None;
        }
        let not_green = match self.not_green {
            0 => String::new(),
            count => format!(", {count} not as expected"),
        };
        let running = self.running.values().map(|case| {
            let passed_ms = u64::try_from(since(case.begun, now).as_millis()).unwrap_or(u64::MAX);
            case.expected_ms.saturating_sub(passed_ms)
        });
        let rest: Vec<u64> = self.waiting.values().copied().chain(running).collect();
        let left = span(left_ms(&rest, self.jobs).div_ceil(1000));
        Some(format!("{ended}/{planned} cases{gauge}, about {left} to go{not_green}"))
    }

    /// How far each of the stages is that began before `before`.
    pub(super) fn stage_lines(&self, before: Instant, now: Instant) -> Vec<String> {
        let begun = self.stages.iter().filter(|(_, stage)| stage.begun <= before);
        begun.map(|(name, stage)| stage_line(name, stage, "", now)).collect()
    }
}

/// The clocks of two threads may differ by a moment.
fn since(begun: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(begun)
}

/// The rate is that of the whole time so far.
fn stage_line(name: &str, stage: &Stage, gauge: &str, now: Instant) -> String {
    let Stage { done, what, .. } = stage;
    let seconds = since(stage.begun, now).as_secs();
    let what = if what.is_empty() { String::new() } else { format!(": {what}") };
    // A total taken from an earlier build can be too low; 1700/1686 would look like a fault.
    match stage.total.filter(|&total| total >= *done && *done > 0) {
        Some(total) => {
            let left = span(seconds * (total - done) / done);
            format!("{name} {done}/{total}{gauge}, {}, about {left} to go{what}", span(seconds))
        }
        None => format!("{name} {done}{gauge}, {}{what}", span(seconds)),
    }
}

fn gauge(done: u64, total: u64) -> String {
    let full = (GAUGE * done.min(total)).checked_div(total).unwrap_or(0);
    let signs = |sign: &str, count: u64| sign.repeat(usize::try_from(count).unwrap_or(0));
    format!(" [{}{}]", signs("#", full), signs("-", GAUGE - full))
}

/// `40 s`, `3 min`: what is estimated is not told to the second when it is long.
fn span(seconds: u64) -> String {
    if seconds < 100 { format!("{} s", seconds.max(1)) } else { format!("{} min", (seconds + 30) / 60) }
}

/// The line of a case that ended: verdict, case, kernel, seconds, and why it is not as expected.
pub(super) fn case_line(id: &str, kernel: &str, verdict: &Verdict, green: bool, took_ms: u64) -> String {
    let (style, word) = word(verdict.kind, green);
    let seconds = took_ms as f64 / 1000.0;
    let mut line = format!("{style}{word:12}{style:#}  {id} on {kernel}  {seconds:.1} s");
    let step = verdict.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
    let why = verdict.title.as_ref().or(verdict.got.as_ref());
    if let Some(why) = why.and_then(|why| why.trim().lines().next()).filter(|_| !green) {
        let why: String = format!("{step}{why}").chars().take(REASON_CHARS).collect();
        line += &format!("  ({why})");
    }
    line
}
