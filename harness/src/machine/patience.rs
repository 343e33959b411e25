// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waits that are measured in what a machine was able to do, not in wall time alone.
//!
//! A machine that waits for a processor (the second number of `/proc/PID/task/TID/schedstat`: time on a run
//! queue), whose host is itself made to wait (`steal` of `/proc/stat`, proc(5)), or that is stopped, does
//! nothing; that time is not counted. The guest counts its own waits in the same way. It sees what no host
//! can, but it cannot tell a busy kernel from a host that lets it wait; so what it says is believed as far
//! as it is seen here, too.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often a wait looks at the machine.
const TICK: Duration = Duration::from_millis(50);
/// A machine that gets less of a processor than one part in this many is not waited for any longer.
const SLOWEST: u32 = 40;
/// Unit of `/proc/stat`: USER_HZ is 100 on x86.
const STEAL_UNIT: Duration = Duration::from_millis(10);

/// Watches what a machine loses, from its start on.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pid: Option<u32>,
    /// Nobody is ever late.
    endless: bool,
    at: Instant,
    seen: Seen,
    lost: Duration,
}

impl Watch {
    /// Begins now.
    pub(super) fn new(pid: Option<u32>) -> Self {
        Self {
            pid,
            endless: false,
            at: Instant::now(),
            seen: pid.map(Seen::of).unwrap_or_default(),
            lost: Duration::ZERO,
        }
    }

    /// A debugger holds the machine for as long as it likes.
    pub(super) fn endless(self, endless: bool) -> Self {
        Self { endless, ..self }
    }

    pub(super) const fn is_endless(&self) -> bool {
        self.endless
    }

    /// What the machine could not use so far. Looks at it anew.
    pub(super) fn lost(&mut self) -> Duration {
        let (at, seen) = (Instant::now(), self.pid.map(Seen::of).unwrap_or_default());
        let elapsed = at - self.at;
        self.lost += elapsed - used(elapsed, self.seen, seen);
        (self.at, self.seen) = (at, seen);
        self.lost
    }

    /// Returns when the machine could have used `patience`.
    pub(super) async fn run_out(&mut self, patience: Duration) {
        // Most answers come before anybody need look.
        let (begun, before) = (Instant::now(), self.lost);
        let mut left = patience;
        while self.endless || !left.is_zero() {
            sleep(if self.endless { TICK } else { left.min(TICK) }).await;
            let lost = self.lost().saturating_sub(before);
            left = patience.saturating_sub(begun.elapsed().saturating_sub(lost));
        }
    }
}

/// What `/proc` says of a machine, as running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Of all its threads the one that was ready to run and did not for longest.
    queued: Duration,
    /// The host's processors were taken away.
    stolen: Duration,
    /// It is stopped by a signal or a debugger.
    stopped: bool,
}

impl Seen {
    /// What `/proc` says now; nothing lost where it says nothing.
    fn of(pid: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let queued = tasks.filter_map(|task| queued(&fs::read_to_string(task.path().join("schedstat")).ok()?));
        let stolen = fs::read_to_string("/proc/stat").ok().and_then(|text| stolen(&text));
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        Self {
            queued: queued.max().unwrap_or_default(),
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
fn used(elapsed: Duration, before: Seen, now: Seen) -> Duration {
    let lost = if before.stopped && now.stopped {
        elapsed
    } else {
        now.queued.saturating_sub(before.queued) + now.stolen.saturating_sub(before.stolen)
    };
    elapsed.saturating_sub(lost).max(elapsed / SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_what_could_be_used_counts() {
        let none = Seen::default();
        let check =
            |elapsed, before, now, want| assert_eq!(used(ms(elapsed), before, now), ms(want), "{now:?}");
        check(250, none, none, 250);
        check(250, none, Seen { queued: ms(200), ..none }, 50);
        check(250, Seen { queued: ms(900), ..none }, Seen { queued: ms(1000), ..none }, 150);
        check(250, none, Seen { stolen: ms(100), queued: ms(100), ..none }, 50);
        let stopped = Seen { stopped: true, ..none };
        check(400, stopped, stopped, 10);
        check(400, none, stopped, 400);
        check(400, none, Seen { queued: ms(5000), ..none }, 10);
    }

    #[test]
    fn a_stopped_process_loses_its_time_and_a_waiting_one_does_not() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let mut watch = Watch::new(Some(child.id()));
        std::thread::sleep(ms(200));
        let idle = watch.lost();
        assert!(idle < ms(100), "{idle:?}");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        std::thread::sleep(ms(20));
        watch.lost();
        std::thread::sleep(ms(300));
        let stopped = watch.lost() - idle;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stopped > ms(250), "{stopped:?}");
    }

    #[test]
    fn the_files_of_proc_are_understood() {
        assert_eq!(queued("123 4000000 5\n"), Some(ms(4)));
        assert_eq!(queued(""), None);
        let stat = "cpu  1 2 3 4 5 6 7 40 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1\nintr 1 2\n";
        assert_eq!(stolen(stat), Some(ms(200)));
        assert!(is_stopped("12 (a) T b) T 1 2"));
        assert!(!is_stopped("12 (a) T b) S 1 2"));
        assert!(!Seen::of(std::process::id()).stopped);
    }
}
