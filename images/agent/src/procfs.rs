// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `/proc` says: where a task waits, the kernel's command line, its configuration.

use std::fs;
use std::io::Read;

use holdfast_protocol::ConfigMismatch;

/// Where a task is, by `/proc/PID`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// State letter of `stat`; `?` when the task is gone.
    pub(crate) state: String,
    /// `wchan`.
    pub(crate) wchan: String,
    /// `stack`, a function a line, without the address column.
    pub(crate) stack: Vec<String>,
}

/// Looks a task up. What cannot be read stays empty.
#[must_use]
pub(crate) fn whereabouts(pid: i32) -> Whereabouts {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    Whereabouts {
        state: state_letter(&read("stat")).unwrap_or("?").to_owned(),
        wchan: read("wchan").trim().to_owned(),
        stack: read("stack").lines().map(|line| stack_function(line).to_owned()).collect(),
    }
}

/// The third field of `/proc/PID/stat`; the second, the name, may hold blanks and parentheses.
fn state_letter(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().next()
}

/// `[<0>] do_truncate+0x1/0x2` without its address column.
fn stack_function(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, function)| function).trim()
}

/// The children of a process, and for each whether it still lives: one that has ended may not have been waited
/// for.
#[must_use]
pub(crate) fn children(pid: i32) -> Vec<(i32, bool)> {
    let is_child = |entry: fs::DirEntry| {
        let child: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        (parent(&stat)? == pid).then(|| (child, !matches!(state_letter(&stat), Some("Z" | "X"))))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(is_child).collect()
}

/// The fourth field of `/proc/PID/stat`.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Every process but those of this program and the kernel's own threads, which have none.
#[must_use]
pub(crate) fn others() -> Vec<i32> {
    let Ok(own) = fs::read_link("/proc/self/exe") else { return Vec::new() };
    let is_other = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let program = fs::read_link(entry.path().join("exe")).ok()?;
        (program != own).then_some(pid)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(is_other).collect()
}

/// The words of the kernel's command line.
#[must_use]
pub(crate) fn command_line() -> Vec<String> {
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

/// How long all processors together have had nothing to do since the boot, in nanoseconds, by
/// `/proc/timer_list`: elsewhere it is told in hundredths of a second. `None` where the kernel does not tell.
#[must_use]
pub(crate) fn idle_ns() -> Option<u64> {
    idle_of(&fs::read_to_string("/proc/timer_list").ok()?)
}

/// kernel/time/timer_list.c print_cpu(): a line each for idle_sleeptime and iowait_sleeptime, of which
/// kernel/time/tick-sched.c tick_nohz_stop_idle() adds to one or the other.
fn idle_of(timer_list: &str) -> Option<u64> {
    let sleep = |line: &str| {
        let (name, time) = line.trim().split_once(':')?;
        let is_sleep = matches!(name.trim(), ".idle_sleeptime" | ".iowait_sleeptime");
        is_sleep.then(|| time.split_whitespace().next()?.parse::<u64>().ok()).flatten()
    };
    timer_list.lines().filter_map(sleep).reduce(|all, one| all + one)
}

/// `/proc/sys/kernel/random/boot_id`; empty when it cannot be read.
#[must_use]
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The options of the running kernel that are not as requested.
///
/// # Errors
/// When `/proc/config.gz` cannot be read.
pub(crate) fn config_mismatches(requests: &[(String, String)]) -> Result<Vec<ConfigMismatch>, String> {
    let packed = fs::read("/proc/config.gz").map_err(|error| format!("/proc/config.gz: {error}"))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .map_err(|error| format!("/proc/config.gz: {error}"))?;
    Ok(compare_config(&text, requests))
}

fn compare_config(config: &str, requests: &[(String, String)]) -> Vec<ConfigMismatch> {
    let value = |option: &str| {
        let found = config
            .lines()
            .find_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
        found.unwrap_or("n").to_owned()
    };
    let wrong = |(option, want): &(String, String)| {
        let got = value(option);
        (got != *want).then(|| ConfigMismatch { option: option.clone(), want: want.clone(), got })
    };
    requests.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_behind_any_name() {
        assert_eq!(state_letter("12 (a) b)) D 1 12"), Some("D"));
        assert_eq!(parent("12 (a) b)) D 1 12"), Some(1));
        assert_eq!(state_letter(""), None);
    }

    #[test]
    fn a_stack_line_loses_its_address() {
        assert_eq!(stack_function("[<0>] ext4_break_layouts+0x9a/0xd0"), "ext4_break_layouts+0x9a/0xd0");
        assert_eq!(stack_function("plain"), "plain");
    }

    #[test]
    fn idle_time_is_that_of_all_processors_whatever_they_waited_for() {
        let cpu = |idle: u64, iowait: u64| {
            format!(
                "cpu: 0\n clock 0:\n  .base:       00000000\n  .nohz           : 1\n  .idle_entrytime : 99 nsecs\n  \
                 .idle_sleeptime : {idle} nsecs\n  .iowait_sleeptime: {iowait} nsecs\n"
            )
        };
        assert_eq!(idle_of(&(cpu(1_000_000_007, 20) + &cpu(300, 4000))), Some(1_000_004_327));
        assert_eq!(idle_of("cpu: 0\n  .nohz           : 0\n"), None);
    }

    #[test]
    fn this_process_is_somewhere() {
        assert_eq!(whereabouts(std::process::id().cast_signed()).state.len(), 1);
        assert_eq!(whereabouts(i32::MAX).state, "?");
    }

    #[test]
    fn an_absent_option_is_n_and_no_prefix_matches() {
        let config = "CONFIG_DAX=y\nCONFIG_DAX_X=m\n# CONFIG_BTT is not set\nCONFIG_NR_CPUS=8\n";
        let ask = |option: &str, want: &str| compare_config(config, &[(option.to_owned(), want.to_owned())]);
        assert!(ask("DAX", "y").is_empty());
        assert!(ask("BTT", "n").is_empty());
        assert!(ask("NR_CPUS", "8").is_empty());
        let wrong = ask("DA", "y");
        assert_eq!((wrong[0].option.as_str(), wrong[0].got.as_str()), ("DA", "n"));
    }
}
