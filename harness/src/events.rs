// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in a run, as values: the only seam between a run and whoever shows it.
//!
//! A terminal's bars, a log's lines and a program's stream are all made from these and from nothing
//! else, so that none of them can show what the others do not know. `docs/results.md` describes the
//! stream; fields may be added under the same format number.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::judge::{CaseResult, Verdict};
use crate::outcome::Exit;
use crate::plan::{Plan, PlannedCase};
use crate::progress::Expected;
use crate::record::Origin;
use crate::report::Results;
use crate::runs::RESULTS;

/// Version of the events' form.
pub const FORMAT: u32 = 1;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run has a folder and begins; its kernels are built before the first case starts.
    RunStarted {
        /// Version of the events' form.
        format: u32,
        /// The run's folder.
        folder: String,
        /// Cases at the same time.
        jobs: usize,
        /// Every case that is to be played, in the order of the plan.
        cases: Vec<Row>,
    },
    /// A line worth reading.
    Message {
        /// The line; rarely more than one.
        text: String,
    },
    /// Something of many steps begins that is no case: a kernel's build, a series of measurements.
    StageStarted {
        /// What: a kernel's name, for instance. No two of the same name go on at once.
        stage: String,
        /// Steps expected, if that is known.
        total: Option<u64>,
    },
    /// One more step of it is done.
    StageDoing {
        /// As in [`StageStarted`](Self::StageStarted).
        stage: String,
        /// Steps done. May exceed `total`, which is taken from an earlier time.
        done: u64,
        /// Steps expected.
        total: Option<u64>,
        /// What the step was about: the object that was compiled, for instance.
        what: String,
    },
    /// It ended. When it failed, the run's error says why.
    StageEnded {
        /// As in [`StageStarted`](Self::StageStarted).
        stage: String,
        /// Steps done.
        done: u64,
        /// What is to be said of it; empty when it failed or there is nothing to say.
        text: String,
    },
    /// A case gets its machine.
    CaseStarted {
        /// Place of the row in `plan.json` and `results.json`, from 0.
        nr: usize,
        /// The case.
        id: String,
        /// The kernel.
        kernel: String,
    },
    /// What a case does now.
    CaseDoing {
        /// As in [`CaseStarted`](Self::CaseStarted).
        nr: usize,
        /// `restore` or `boot`, `preparation`, a step's id and what it does, `the standing oracles`, `the
        /// checkers of the file systems`.
        what: String,
    },
    /// A case has its own verdict: exactly one for every planned case, also for those that were never
    /// started. A kernel whose control did not pass has no green row in the results all the same.
    CaseEnded {
        /// As in [`CaseStarted`](Self::CaseStarted).
        nr: usize,
        /// The case.
        id: String,
        /// The kernel.
        kernel: String,
        /// The verdict.
        verdict: Verdict,
        /// It is exactly the verdict that was expected.
        green: bool,
        /// How its machine came to be.
        machine: Origin,
        /// The whole case, in milliseconds of the host; 0 when it was not started.
        took_ms: u64,
    },
    /// The last event of a run.
    RunEnded {
        /// The exit code of the command.
        exit: u8,
        /// `results.json`, when there are results.
        results: Option<String>,
        /// The whole run, in seconds.
        took_s: f64,
        /// Why there are none.
        error: Option<String>,
    },
}

/// A case that is to be played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Place of the row in `plan.json` and `results.json`, from 0.
    pub nr: usize,
    /// The case.
    pub id: String,
    /// The kernel.
    pub kernel: String,
    /// How long it may take by what earlier runs took, in milliseconds.
    pub expected_ms: u64,
}

impl Event {
    /// The beginning of a run.
    #[must_use]
    pub fn run_started(plan: &Plan, folder: &Path, jobs: usize, expected: &Expected) -> Self {
        let playable = || plan.cases.iter().enumerate().filter(|(_, case)| case.excluded.is_none());
        let expected_ms = expected.of(playable().map(|(_, case)| (&*case.kernel, &*case.id)));
        let row = |((nr, case), expected_ms): ((usize, &PlannedCase), u64)| Row {
            nr,
            id: case.id.clone(),
            kernel: case.kernel.clone(),
            expected_ms,
        };
        Self::RunStarted {
            format: FORMAT,
            folder: folder.display().to_string(),
            jobs,
            cases: playable().zip(expected_ms).map(row).collect(),
        }
    }

    /// The beginning of a case.
    #[must_use]
    pub fn case_started(nr: usize, case: &PlannedCase) -> Self {
        Self::CaseStarted { nr, id: case.id.clone(), kernel: case.kernel.clone() }
    }

    /// The end of a case.
    #[must_use]
    pub fn case_ended(nr: usize, result: CaseResult) -> Self {
        let CaseResult { id, kernel, verdict, green, machine, took_ms, .. } = result;
        Self::CaseEnded { nr, id, kernel, verdict, green, machine, took_ms }
    }

    /// The end of a run in `folder`, `took_s` seconds after its beginning.
    #[must_use]
    pub fn run_ended(ended: &anyhow::Result<Results>, folder: &Path, took_s: f64) -> Self {
        let (exit, results, error) = match ended {
            Ok(results) => (results.exit, Some(folder.join(RESULTS).display().to_string()), None),
            Err(error) => (Exit::of_error(error).code(), None, Some(format!("{error:#}"))),
        };
        Self::RunEnded { exit, results, took_s, error }
    }
}
