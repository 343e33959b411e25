// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals by their standard names, the real-time ones as `SIGRTMIN+1`.

use nix::sys::signal::Signal;

use crate::sys::sigrtmin;

/// The number of a signal.
#[must_use]
pub(crate) fn number(name: &str) -> Option<i32> {
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        let above = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        return (0..=64 - sigrtmin()).contains(&above).then(|| sigrtmin() + above);
    }
    name.parse::<Signal>().ok().map(|signal| signal as i32)
}

/// The name of a signal.
#[must_use]
pub(crate) fn name(number: i32) -> String {
    if let Ok(signal) = Signal::try_from(number) {
        return signal.as_str().to_owned();
    }
    match number - sigrtmin() {
        0 => "SIGRTMIN".to_owned(),
        above @ 1.. => format!("SIGRTMIN+{above}"),
        _ => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        for text in ["SIGKILL", "SIGIO", "SIGUSR1", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMIN+30"] {
            assert_eq!(name(number(text).unwrap()), text);
        }
        assert_eq!(number("SIGKILL"), Some(9));
    }

    #[test]
    fn what_is_no_signal_has_no_number() {
        for text in ["", "KILL", "SIGNOT", "SIGRTMIN-1", "SIGRTMIN+31", "SIGRTMIN1"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
