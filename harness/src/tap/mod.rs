// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program says of its own tests, as TAP or KTAP (Documentation/dev-tools/ktap.rst): text in, results
//! out. Pure.
//!
//! Tests are nested by indentation. A line that is none of the format's is somebody's talk; it goes with the
//! result that follows. Whatever does not fit together (a number out of turn, fewer results than planned, a
//! suite without a result) is told as a fault and hides no result.

mod line;
mod tree;

use serde::{Deserialize, Serialize};

/// Everything a program said of its tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its tests.
    pub tests: Tests,
    /// What does not fit together.
    pub faults: Vec<Fault>,
    /// Why it gave up (`Bail out!`).
    pub bailed_out: Option<String>,
    /// Why it skipped everything (`1..0 # SKIP why`).
    pub skipped: Option<String>,
}

/// Something that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The line of the text, from 1 on; behind the last one for what is missing at the end.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The tests of one level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// How many were announced (`1..N`).
    pub plan: Option<u64>,
    /// Those that were told of.
    pub list: Vec<Test>,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its number, where it has one.
    pub number: Option<u64>,
    /// Its name; of a kselftest that says what it runs before (`# [RUN] what`), that and what the result says.
    pub name: String,
    /// What came of it.
    pub status: Status,
    /// Why it was skipped or is known not to work.
    pub reason: String,
    /// What was said since the result before, on the same level.
    pub log: Vec<String>,
    /// Its own tests.
    pub tests: Option<Tests>,
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// `ok`.
    Ok,
    /// `not ok`.
    NotOk,
    /// Not run, as it says itself (SKIP).
    Skipped,
    /// Known not to work: it may come out either way (TODO, XFAIL, XPASS).
    Known,
    /// It began and has no result: the program ended within it, or what it said is lost.
    Lost,
    /// It says ok, has a place for tests of its own, and ran none of them.
    Empty,
}

/// How many tests came to what; a test that has tests of its own is counted by them, unless they count for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`Status::Ok`].
    pub ok: u64,
    /// [`Status::NotOk`].
    pub not_ok: u64,
    /// [`Status::Skipped`].
    pub skipped: u64,
    /// [`Status::Known`].
    pub known: u64,
    /// [`Status::Lost`], and those that were announced and not told of.
    pub lost: u64,
}

impl Counts {
    /// All that were told of or announced.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { ok, not_ok, skipped, known, lost } = *self;
        [ok, not_ok, skipped, known, lost].into_iter().fold(0, u64::saturating_add)
    }

    fn and(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            not_ok: self.not_ok + other.not_ok,
            skipped: self.skipped + other.skipped,
            known: self.known + other.known,
            // What is announced can be any number.
            lost: self.lost.saturating_add(other.lost),
        }
    }
}

/// Reads what a program has said. Any text has a reading; one without a result is an empty one.
#[must_use]
pub fn read(text: &str) -> Report {
    tree::read(text)
}

impl Report {
    /// Every test that has none of its own, and those that are not ok although all of theirs are, each with the
    /// names above it: `suite/case`.
    #[must_use]
    pub fn results(&self) -> Vec<(String, &Test)> {
        let mut found = Vec::new();
        self.tests.results("", &mut found);
        found
    }

    /// How many tests came to what.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tests.counts()
    }
}

impl Tests {
    /// How many were announced and not told of.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.plan.unwrap_or(0).saturating_sub(self.list.len() as u64)
    }

    fn results<'a>(&'a self, above: &str, found: &mut Vec<(String, &'a Test)>) {
        for test in &self.list {
            let path = format!("{above}{}", test.name);
            let before = found.len();
            if let Some(tests) = &test.tests {
                tests.results(&format!("{path}/"), found);
            }
            let below = &found[before..];
            let is_bad = |status| matches!(status, Status::NotOk | Status::Lost);
            if below.is_empty() || (is_bad(test.status) && !below.iter().any(|(_, one)| is_bad(one.status))) {
                found.push((path, test));
            }
        }
    }

    fn counts(&self) -> Counts {
        let lost = Counts { lost: self.missing(), ..Counts::default() };
        self.list.iter().fold(lost, |sum, test| sum.and(test.counts()))
    }
}

impl Test {
    fn counts(&self) -> Counts {
        let none = Counts::default();
        let below = self.tests.as_ref().map_or(none, Tests::counts);
        if below != none {
            return below;
        }
        match self.status {
            Status::Ok => Counts { ok: 1, ..none },
            Status::NotOk => Counts { not_ok: 1, ..none },
            Status::Skipped => Counts { skipped: 1, ..none },
            Status::Known => Counts { known: 1, ..none },
            Status::Lost => Counts { lost: 1, ..none },
            Status::Empty => none,
        }
    }
}
