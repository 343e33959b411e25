// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waits that are measured in what a machine was able to do, not in wall time alone.
//!
//! A machine that waits for a processor (the second number of `/proc/PID/task/TID/schedstat`: time on a run
//! queue), whose host is itself made to wait (`steal` of `/proc/stat`, proc(5)), or that is stopped, does
//! nothing; that time is not counted. Nor is the time in which this process did not run. The guest counts
//! its own waits in the same way and sees what no host can; this is for guests that do not answer at all.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often a wait looks at the machine.
const TICK: Duration = Duration::from_millis(250);
/// A machine that gets less of a processor than one part in this many is not waited for any longer.
const SLOWEST: u32 = 40;
/// Unit of `/proc/stat`: USER_HZ is 100 on x86.
const STEAL_UNIT: Duration = Duration::from_millis(10);

/// Returns when the machine could have used `patience`; at once when it is gone.
pub(super) async fn run_out(pid: Option<u32>, patience: Duration) {
    let Some(pid) = pid else { return sleep(patience).await };
    let mut left = patience;
    let mut before = (Instant::now(), Lost::of(pid));
    while !left.is_zero() {
        sleep(left.min(TICK)).await;
        let now = (Instant::now(), Lost::of(pid));
        left = left.saturating_sub(used(now.0 - before.0, before.1, now.1));
        before = now;
    }
}

/// What a machine could not use, as running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    /// Its busiest threads were ready to run and did not.
    queued: Duration,
    /// The host's processors were taken away.
    stolen: Duration,
    /// It is stopped by a signal or a debugger.
    stopped: bool,
}

impl Lost {
    /// What `/proc` says now; nothing lost where it says nothing.
    fn of(pid: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let queued = tasks.filter_map(|task| queued(&fs::read_to_string(task.path().join("schedstat")).ok()?));
        let stolen = fs::read_to_string("/proc/stat").ok().and_then(|text| stolen(&text));
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        Self {
            queued: queued.sum(),
            stolen: stolen.unwrap_or_default(),
            stopped: state.is_some_and(|text| is_stopped(&text)),
        }
    }
}

fn queued(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// The mean over all processors.
fn stolen(stat: &str) -> Option<Duration> {
    let ticks: u32 = stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    let cpus = stat.lines().skip(1).filter(|line| line.starts_with("cpu")).count();
    Some(STEAL_UNIT * ticks / u32::try_from(cpus).ok()?.max(1))
}

fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// How much of the elapsed time the machine could use.
fn used(elapsed: Duration, before: Lost, now: Lost) -> Duration {
    let lost = if before.stopped && now.stopped {
        elapsed
    } else {
        now.queued.saturating_sub(before.queued) + now.stolen.saturating_sub(before.stolen)
    };
    // A tick that took much longer than it should: we did not run either.
    let ran = elapsed.min(TICK * 2);
    ran.saturating_sub(lost).max(elapsed / SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_what_could_be_used_counts() {
        let none = Lost::default();
        let check =
            |elapsed, before, now, want| assert_eq!(used(ms(elapsed), before, now), ms(want), "{now:?}");
        check(250, none, none, 250);
        check(250, none, Lost { queued: ms(200), ..none }, 50);
        check(250, Lost { queued: ms(900), ..none }, Lost { queued: ms(1000), ..none }, 150);
        check(250, none, Lost { stolen: ms(100), queued: ms(100), ..none }, 50);
        let stopped = Lost { stopped: true, ..none };
        check(400, stopped, stopped, 10);
        check(400, none, stopped, 400);
        check(400, none, Lost { queued: ms(5000), ..none }, 10);
        // This process was suspended for a while.
        check(60_000, none, none, 1500);
        check(10_000, none, none, 500);
    }

    #[test]
    fn the_files_of_proc_are_understood() {
        assert_eq!(queued("123 4000000 5\n"), Some(ms(4)));
        assert_eq!(queued(""), None);
        let stat = "cpu  1 2 3 4 5 6 7 40 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1\nintr 1 2\n";
        assert_eq!(stolen(stat), Some(ms(200)));
        assert!(is_stopped("12 (a) T b) T 1 2"));
        assert!(!is_stopped("12 (a) T b) S 1 2"));
        assert_ne!(Lost::of(std::process::id()), Lost { stopped: true, ..Lost::default() });
    }
}
