// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many cases go on at once when nobody says it: one a core, as far as memory reaches. A guest
//! that the host has no memory for is killed in the middle of its case.

/// What one case takes, in MiB: a guest of 512 MiB, and what QEMU, its translation buffers and the page
/// cache of the guest's pmem take beside it.
pub const CASE_MEMORY_MIB: u64 = 800;

/// How many, and why not one a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Cases at the same time, at least 1.
    pub count: usize,
    /// What memory has to do with it, as a line for the user.
    pub why: Option<String>,
}

impl Jobs {
    /// What fits on this machine now.
    #[must_use]
    pub fn usual() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        bounded(cores, available_mib())
    }
}

/// One case a core, bounded by the memory that is free; unknown memory bounds nothing.
#[must_use]
pub fn bounded(cores: usize, available_mib: Option<u64>) -> Jobs {
    let fit = |mib: u64| usize::try_from(mib / CASE_MEMORY_MIB).unwrap_or(usize::MAX).max(1);
    match available_mib {
        Some(mib) if fit(mib) < cores => {
            let count = fit(mib);
            let at_a_time = if count == 1 { "one case".to_owned() } else { format!("{count} cases") };
            let why = format!(
                "{at_a_time} at a time on {cores} cores: {mib} MiB of memory are free, a case takes {CASE_MEMORY_MIB} (--jobs overrides)"
            );
            Jobs { count, why: Some(why) }
        }
        _ => Jobs { count: cores.max(1), why: None },
    }
}

/// Memory that can be had without swapping, in MiB: MemAvailable of `/proc/meminfo`.
#[must_use]
pub fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_cores_and_says_so() {
        let check = |cores, mib, count, bound| {
            let jobs = bounded(cores, mib);
            assert_eq!((jobs.count, jobs.why.is_some()), (count, bound), "{cores} cores, {mib:?} MiB");
        };
        check(8, Some(64_000), 8, false);
        check(8, Some(6_400), 8, false);
        check(8, Some(6_399), 7, true);
        check(8, Some(100), 1, true);
        check(1, Some(100), 1, false);
        check(4, None, 4, false);
        check(0, None, 1, false);
        let why = bounded(8, Some(900)).why.unwrap();
        assert!(why.starts_with("one case at a time on 8 cores: 900 MiB"), "{why}");
        assert_eq!(why.lines().count(), 1);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available_mib().is_some_and(|mib| mib > 16));
    }
}
