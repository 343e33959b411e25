// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the actors did and what the kernel traced, in the order of the guest's clock.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_protocol::Fact;

use crate::plan::{PlannedCase, PlannedStep};
use crate::record::Record;
use crate::scenario::{Action, describe};

/// The time line's file, in the case's folder.
const TIMELINE: &str = "timeline.txt";

/// File of what a life of the machine has traced, as tracefs shows it; counted from 0.
#[must_use]
pub(crate) fn trace_file(life: usize) -> String {
    if life == 0 { "trace.txt".to_owned() } else { format!("trace.{}.txt", life + 1) }
}

/// Writes the time line of a case from its record and the traces in its folder; gives its path.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(case: &PlannedCase, record: &Record, folder: &Path) -> Result<PathBuf> {
    let trace = |life| fs::read_to_string(folder.join(trace_file(life))).unwrap_or_default();
    let traces: Vec<String> = (0..=record.lives.len()).map(trace).collect();
    let path = folder.join(TIMELINE);
    let text = timeline(case, record, &traces);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A line for each step that was issued, one for its return, and the lines of the traces, life by life. Steps are told
/// to the millisecond, in which they stand before what was traced in it.
fn timeline(case: &PlannedCase, record: &Record, traces: &[String]) -> String {
    let is_cut = |step: &PlannedStep| step.action == Action::PowerCut && step.excluded.is_none();
    let lives = case.steps.split(is_cut);
    let cuts = case.steps.iter().filter(|step| is_cut(step));
    let mut text =
        String::from("# seconds since boot, who, what; `>` a step is issued, `<` it has come back\n");
    let mut cuts = cuts.map(|step| step.id.as_str());
    for (nr, steps) in lives.enumerate() {
        let trace = traces.get(nr).map_or("", String::as_str);
        let mut lines: Vec<(u64, String)> = steps.iter().flat_map(|step| of_step(step, record)).collect();
        lines.extend(of_trace(trace));
        // A stable sort: what happens in the same microsecond stays in the order it was told in.
        lines.sort_by_key(|(at_us, _)| *at_us);
        for (at_us, line) in lines {
            let _ = writeln!(text, "{:>6}.{:06}  {line}", at_us / 1_000_000, at_us % 1_000_000);
        }
        if let Some(cut) = cuts.next() {
            let _ = writeln!(text, "# {cut}: the machine loses its power");
        }
    }
    text
}

fn of_step(step: &PlannedStep, record: &Record) -> Vec<(u64, String)> {
    let Some(fact) = record.facts.get(&step.id) else { return Vec::new() };
    let Fact { actor, outcome, at_ms, took_ms, .. } = fact;
    let name = format!("{actor:12} {{}} {} ({})", step.id, step.label());
    let issued = (at_ms * 1000, name.replace("{}", ">"));
    let back = ((at_ms + took_ms) * 1000, format!("{}: {}", name.replace("{}", "<"), describe(outcome)));
    match step.action {
        Action::Start { .. } => vec![issued],
        // Who waits says when it was issued; that stands there already.
        Action::Await { .. } | Action::Still { .. } => vec![back],
        _ => vec![issued, back],
    }
}

/// `holdfast-agent-71 [000] ..... 4.958211: break_lease_noblock: ...`: the time stands before the first `: `.
fn of_trace(trace: &str) -> impl Iterator<Item = (u64, String)> {
    let mut last = 0;
    trace.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).map(move |line| {
        let (head, event) = line.split_once(": ").unwrap_or((line, ""));
        let (task, stamp) = head.rsplit_once(' ').unwrap_or((head, ""));
        // A line without a time, as that of events that were lost, belongs to the one before.
        match micros(stamp) {
            Some(at_us) => {
                last = at_us;
                (
                    at_us,
                    format!("kernel       {event}  [{}]", task.split_whitespace().next().unwrap_or_default()),
                )
            }
            None => (last, format!("kernel       {}", line.trim())),
        }
    })
}

fn micros(stamp: &str) -> Option<u64> {
    let (seconds, fraction) = stamp.split_once('.')?;
    let fraction: u64 = (fraction.len() == 6).then(|| fraction.parse().ok())??;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_trace_has_a_time_and_a_task() {
        let trace = "# tracer: nop\n#\n holdfast-agent-71      [000] .....     4.958211: break_lease_noblock: fl=1 dev=0x3\nCPU:0 [LOST 3 EVENTS]\n";
        let lines: Vec<_> = of_trace(trace).collect();
        let want = [
            (4_958_211, "kernel       break_lease_noblock: fl=1 dev=0x3  [holdfast-agent-71]".to_owned()),
            (4_958_211, "kernel       CPU:0 [LOST 3 EVENTS]".to_owned()),
        ];
        assert_eq!(lines, want);
        assert_eq!(micros("12.5"), None);
    }
}
