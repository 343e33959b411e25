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

/// The words of the kernel's command line.
#[must_use]
pub(crate) fn command_line() -> Vec<String> {
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    text.split_whitespace().map(ToOwned::to_owned).collect()
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
        assert_eq!(state_letter(""), None);
    }

    #[test]
    fn a_stack_line_loses_its_address() {
        assert_eq!(stack_function("[<0>] ext4_break_layouts+0x9a/0xd0"), "ext4_break_layouts+0x9a/0xd0");
        assert_eq!(stack_function("plain"), "plain");
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
