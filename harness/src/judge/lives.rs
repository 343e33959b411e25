// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that lost their power: what had to come back, and did or did not.

use super::StepStatus;
use crate::plan::PlannedStep;
use crate::record::{Life, Record};

/// What must come of a power cut.
pub(super) const EXPECTED: &str = "it boots, finds its file systems and mounts them";

fn life<'r>(step: &PlannedStep, record: &'r Record) -> Option<&'r Life> {
    record.lives.iter().find(|life| life.step == step.id)
}

/// How long it took from the cut to the answer, in milliseconds of the host.
pub(super) fn took_ms(step: &PlannedStep, record: &Record) -> u64 {
    life(step, record).map_or(0, |life| life.took_ms)
}

/// Whether the machine came back with what it had, and what it said.
pub(super) fn came_back(step: &PlannedStep, record: &Record) -> (StepStatus, String) {
    let Some(life) = life(step, record) else { return (StepStatus::NotRun, "never reached".to_owned()) };
    let pmem = &life.hello.pmem;
    let bad = pmem.iter().find(|one| !one.trouble.is_empty()).map(|one| one.trouble.clone());
    // What is made anew comes back clean whatever was there.
    let anew = || pmem.iter().find(|one| !one.found).map(|one| format!("{:?} was made anew", one.place));
    let lacks = || (pmem.len() < record.hello.as_ref()?.pmem.len()).then(|| "an NVDIMM is missing".to_owned());
    let not_dax = || {
        let file = life.files.iter().find(|file| !(file.statx_dax && file.map_sync))?;
        Some(format!("file `{}` cannot be opened, or is not DAX any more", file.name))
    };
    match bad.or_else(anew).or_else(lacks).or_else(not_dax) {
        Some(why) => (StepStatus::NotAsExpected, why),
        None => (StepStatus::AsExpected, "so".to_owned()),
    }
}

/// True if the machine did not have its file systems back after its last power cut: nothing was played on it then, and
/// no oracle asked.
pub(super) fn is_lost(record: &Record) -> bool {
    let last = record.lives.last();
    last.is_some_and(|life| life.hello.pmem.iter().any(|one| !one.trouble.is_empty()))
}
