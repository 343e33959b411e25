// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the cases of a run may take, by what they took in earlier runs, and how long all that is
//! left of them will take together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::outcome::Kind;
use crate::plan::scenario_id;
use crate::runs::{self, RESULTS};

/// Earlier runs that are looked at: enough to outvote one that the host was busy in.
const RUNS: usize = 5;
/// A case where nothing at all is known, in milliseconds: two to three seconds without KVM
/// (docs/performance.md).
const UNKNOWN_MS: u64 = 3_000;

/// What cases took in earlier runs.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By kernel and case, in milliseconds.
    took_ms: BTreeMap<(String, String), u64>,
}

/// The part of `results.json` this is about; the rest may be of any form.
#[derive(Deserialize)]
struct Took {
    cases: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: String,
    kernel: String,
    verdict: Ended,
    took_ms: u64,
}

#[derive(Deserialize)]
struct Ended {
    kind: Kind,
}

impl Expected {
    /// From the newest runs in these folders; one that cannot be read is as good as none.
    #[must_use]
    pub fn from_runs(folders: &[&Path]) -> Self {
        let mut all: Vec<PathBuf> = folders.iter().flat_map(|folder| runs::list(folder)).collect();
        // Runs are named by their time.
        all.sort_by(|a, b| b.file_name().cmp(&a.file_name()));
        all.dedup();
        let read = |run: PathBuf| -> Option<Took> {
            serde_json::from_slice(&std::fs::read(run.join(RESULTS)).ok()?).ok()
        };
        Self::learn(all.into_iter().filter_map(read).take(RUNS))
    }

    /// The median of what each case took, repeats included.
    fn learn(runs: impl Iterator<Item = Took>) -> Self {
        let mut all: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for row in runs.flat_map(|run| run.cases) {
            // A row that was cut short or never played says nothing of how long it takes.
            if !matches!(row.verdict.kind, Kind::NotRun | Kind::NotApplicable | Kind::Infra) && row.took_ms > 0
            {
                let id = scenario_id(&row.id).to_owned();
                all.entry((row.kernel, id)).or_default().push(row.took_ms);
            }
        }
        let median = |mut values: Vec<u64>| {
            values.sort_unstable();
            values[values.len() / 2]
        };
        Self { took_ms: all.into_iter().map(|(row, values)| (row, median(values))).collect() }
    }

    /// What to expect of each (kernel, case), in milliseconds; of one that is not known as much as of the
    /// others on average.
    #[must_use]
    pub fn of<'a>(&self, rows: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u64> {
        let known: Vec<Option<u64>> = rows
            .map(|(kernel, id)| self.took_ms.get(&(kernel.to_owned(), scenario_id(id).to_owned())).copied())
            .collect();
        let count = known.iter().flatten().count() as u64;
        let mean = known.iter().flatten().sum::<u64>().checked_div(count).unwrap_or(UNKNOWN_MS);
        known.into_iter().map(|one| one.unwrap_or(mean)).collect()
    }
}

/// How long the rest will take, in milliseconds, when `jobs` go on at once: the work shared out, but
/// no less than the longest of them, which cannot be shared.
pub(super) fn left_ms(rest_ms: &[u64], jobs: usize) -> u64 {
    let shared = rest_ms.iter().sum::<u64>().div_ceil(jobs.max(1) as u64);
    shared.max(rest_ms.iter().copied().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(rows: &[(&str, &str, &str, u64)]) -> Took {
        let cases = rows.iter().map(|(kernel, id, kind, took_ms)| {
            serde_json::json!({"id": id, "kernel": kernel, "verdict": {"kind": kind}, "took_ms": took_ms})
        });
        serde_json::from_value(serde_json::json!({"format": 7, "cases": cases.collect::<Vec<_>>()})).unwrap()
    }

    #[test]
    fn the_median_counts_and_the_unknown_is_average() {
        let runs = [
            run(&[("k", "a", "pass", 1_000), ("k", "b[fs=xfs]", "fail", 5_000)]),
            run(&[("k", "a#2", "pass", 1_100), ("k", "a", "not-run", 1), ("k", "a#2", "not-run", 2)]),
            run(&[("k", "a", "pass", 90_000), ("other", "a", "pass", 7)]),
        ];
        let expected = Expected::learn(runs.into_iter());
        let of = |rows: &[(&'static str, &'static str)]| expected.of(rows.iter().copied());
        assert_eq!(of(&[("k", "a"), ("k", "b[fs=xfs]"), ("k", "c")]), [1_100, 5_000, 3_050]);
        assert_eq!(of(&[("k", "a#1"), ("k", "a#9")]), [1_100, 1_100]);
        assert_eq!(of(&[("new", "a"), ("k", "c")]), [UNKNOWN_MS, UNKNOWN_MS]);
        assert_eq!(of(&[]), [] as [u64; 0]);
    }

    #[test]
    fn only_the_newest_runs_with_results_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for nr in 0..RUNS as u64 + 4 {
            let run = folder.path().join(format!("2026-{nr}"));
            std::fs::create_dir(&run).unwrap();
            std::fs::write(run.join(".lock"), "").unwrap();
            let row =
                serde_json::json!({"id": "a", "kernel": "k", "verdict": {"kind": "pass"}, "took_ms": nr + 1});
            let text = serde_json::json!({"cases": [row]}).to_string();
            // The newest died, another was stored by something else.
            match nr {
                8 => {}
                7 => std::fs::write(run.join(RESULTS), "{").unwrap(),
                _ => std::fs::write(run.join(RESULTS), text).unwrap(),
            }
        }
        let expected = Expected::from_runs(&[folder.path(), Path::new("/no/such/folder"), folder.path()]);
        // 2 to 6 are read.
        assert_eq!(expected.of([("k", "a")].into_iter()), [5]);
    }

    proptest! {
        #[test]
        fn what_is_left_shrinks_with_jobs_and_with_every_end(
            mut rest in prop::collection::vec(0u64..100_000, 0..20),
            jobs in 1usize..16,
        ) {
            let left = left_ms(&rest, jobs);
            prop_assert!(left <= rest.iter().sum());
            prop_assert!(left >= rest.iter().copied().max().unwrap_or(0));
            prop_assert!(left * jobs as u64 >= rest.iter().sum());
            prop_assert!(left_ms(&rest, jobs + 1) <= left);
            prop_assert_eq!(left_ms(&rest, 1), rest.iter().sum::<u64>());
            rest.pop();
            prop_assert!(left_ms(&rest, jobs) <= left);
        }
    }
}
