// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of errnos, signals and completion statuses, as kernel people write them.

use holdfast_protocol::COMPLETION_STATUSES;
use nix::errno::Errno;
use nix::sys::signal::Signal;

/// Statuses of a failed work completion, without their `IBV_WC_` (ibv_poll_cq(3)).
pub(super) fn completion_errors() -> impl Iterator<Item = &'static str> {
    COMPLETION_STATUSES.into_iter().filter(|status| *status != "SUCCESS")
}

/// Name of an errno; its number where it has none.
#[must_use]
pub fn errno_name(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("errno {number}"),
        known => format!("{known:?}"),
    }
}

/// Number of an errno by its name; the aliases of errno(3) included.
#[must_use]
pub(super) fn errno_number(name: &str) -> Option<i32> {
    let name = match name {
        "ENOTSUP" => "EOPNOTSUPP",
        "EWOULDBLOCK" => "EAGAIN",
        "EDEADLOCK" => "EDEADLK",
        other => other,
    };
    errnos().find(|(_, known)| known == name).map(|(number, _)| number)
}

/// All errnos Linux gives to user space.
pub(super) fn errnos() -> impl Iterator<Item = (i32, String)> {
    (1..=133)
        .filter(|number| Errno::from_raw(*number) != Errno::UnknownErrno)
        .map(|number| (number, errno_name(number)))
}

/// True for a standard signal name, `SIGRTMIN+n` and `SIGRTMAX-n` included.
#[must_use]
pub(super) fn is_signal(name: &str) -> bool {
    let real_time =
        |prefix| name.strip_prefix(prefix).is_some_and(|n: &str| n.parse::<u8>().is_ok_and(|n| n <= 30));
    name.parse::<Signal>().is_ok()
        || matches!(name, "SIGRTMIN" | "SIGRTMAX")
        || real_time("SIGRTMIN+")
        || real_time("SIGRTMAX-")
}

/// All standard signal names without the real-time ones.
pub(super) fn signals() -> impl Iterator<Item = &'static str> {
    Signal::iterator().map(Signal::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(errno_number("ETXTBSY"), Some(26));
        assert_eq!(errno_name(95), "EOPNOTSUPP");
        assert_eq!(errno_number("ENOTSUP"), Some(95));
        assert_eq!(errno_number("ENOSUCH"), None);
        assert_eq!(errno_number("UnknownErrno"), None);
        for (number, name) in errnos() {
            assert_eq!(errno_number(&name), Some(number));
        }
    }

    #[test]
    fn signals_by_standard_name() {
        assert!(is_signal("SIGIO") && is_signal("SIGRTMIN+1") && is_signal("SIGUSR1"));
        assert!(!is_signal("SIGRTMIN+x") && !is_signal("IO") && !is_signal("SIGRTMIN+99"));
    }
}
