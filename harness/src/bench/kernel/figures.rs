// SPDX-License-Identifier: MIT OR Apache-2.0
//! From what the machines counted to figures that can be trusted, or that say that they cannot. Pure.

use std::fmt;

use serde::Serialize;

use crate::bench::median;

/// What others pay for a kernel, in instructions of the guest.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// Version of this form.
    pub format: u32,
    /// The kernel that was measured.
    pub kernel: String,
    /// What it was measured against.
    pub against: String,
    /// Machines of each of the two, every one booted for itself.
    pub machines: u32,
    /// Rounds on each machine.
    pub rounds: u32,
    /// Repetitions in a round.
    pub times: u32,
    /// What each operation came to.
    pub figures: Vec<Figure>,
}

/// What one operation costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is done with.
    pub about: String,
    /// The operation.
    pub what: String,
    /// Instructions of one, on each machine of the base: the median of its rounds.
    pub against: Vec<u64>,
    /// The same of the kernel that was measured.
    pub kernel: Vec<u64>,
    /// How far machines of one kernel are apart: the most by the least, of the kernel where that is more.
    pub control: Option<f64>,
    /// The kernel by its base, both as medians of their machines.
    pub ratio: Option<f64>,
    /// Why there is no ratio.
    pub why: Option<String>,
}

/// How far the kernel may be from its base, and machines of one kernel from each other.
const GOAL: f64 = 1.03;

/// Of a round's repetitions the part with the most instructions that is left out, in percent: those into which
/// a timer tick or a kernel thread got. A cost that only so few repetitions have is left out with them.
const LEFT_OUT_PERCENT: usize = 2;

/// One operation in one round of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// Of each repetition.
    pub(super) instructions: Vec<u64>,
    /// How long the processor had nothing to do in the whole round: the clock went on then without
    /// instructions, and nobody knows in which operation.
    pub(super) idle_ns: u64,
}

/// One operation on the machines of both kernels: rounds by machine.
pub(super) struct Counted {
    pub(super) about: String,
    pub(super) what: String,
    pub(super) against: Vec<Vec<Round>>,
    pub(super) kernel: Vec<Vec<Round>>,
}

/// The mean of a round's repetitions, but for those that are left out. No median: one repetition in some may
/// well take another way through an allocator, and what that costs is to count.
fn of_round(repetitions: &[u64]) -> u64 {
    let mut sorted = repetitions.to_vec();
    sorted.sort_unstable();
    let left_out = (sorted.len() * LEFT_OUT_PERCENT).div_ceil(100);
    let kept = &sorted[..sorted.len() - left_out.min(sorted.len() - 1)];
    kept.iter().sum::<u64>() / kept.len() as u64
}

/// The median of a machine's rounds; `None` when it was idle in most of them.
fn of_machine(rounds: &[Round]) -> Option<u64> {
    let busy = rounds.iter().filter(|round| round.idle_ns == 0 && !round.instructions.is_empty());
    let busy: Vec<u64> = busy.map(|round| of_round(&round.instructions)).collect();
    (busy.len() * 2 > rounds.len()).then(|| median(&busy))
}

/// How far machines of one kernel are apart: the most by the least.
fn spread(values: &[u64]) -> f64 {
    let (least, most) = (values.iter().min().unwrap_or(&0), values.iter().max().unwrap_or(&0));
    *most as f64 / (*least).max(1) as f64
}

impl Figure {
    /// What an operation came to on all machines.
    pub(super) fn of(counted: Counted) -> Self {
        let Counted { about, what, against, kernel } = counted;
        let side = |machines: &[Vec<Round>]| -> Option<Vec<u64>> {
            machines.iter().map(|rounds| of_machine(rounds)).collect()
        };
        let Some((against, kernel)) = side(&against).zip(side(&kernel)) else {
            let why = Some("the processor had nothing to do in most rounds".to_owned());
            return Self {
                about,
                what,
                against: Vec::new(),
                kernel: Vec::new(),
                control: None,
                ratio: None,
                why,
            };
        };
        let control = spread(&against).max(spread(&kernel));
        let is_steady = control <= GOAL;
        let ratio = is_steady.then(|| median(&kernel) as f64 / median(&against).max(1) as f64);
        let why = (!is_steady).then(|| "machines of one kernel differ by more than the goal".to_owned());
        Self { about, what, against, kernel, control: Some(control), ratio, why }
    }

    /// What a person should see of it at once.
    fn note(&self) -> String {
        match (&self.why, self.ratio) {
            (Some(why), _) => format!("not measured: {why}"),
            (None, Some(ratio)) if ratio > GOAL => "over the goal".to_owned(),
            (None, _) => String::new(),
        }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, against, machines, rounds, times, figures, .. } = self;
        writeln!(
            f,
            "instructions of the guest for one operation; {machines} machines of each kernel, {rounds} rounds of {times}"
        )?;
        let width = |of: fn(&Figure) -> &str| figures.iter().map(|figure| of(figure).len()).max().unwrap_or(0);
        let (about, what) = (width(|figure| &figure.about), width(|figure| &figure.what));
        let (left, right) = (against.len().max(9), kernel.len().max(9));
        writeln!(f, "{:about$}  {:what$}  {against:>left$}  {kernel:>right$}  ratio  control", "", "")?;
        let count =
            |values: &[u64]| if values.is_empty() { "-".to_owned() } else { median(values).to_string() };
        let by = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        for figure in figures {
            let (base, ours) = (count(&figure.against), count(&figure.kernel));
            let (ratio, control) = (by(figure.ratio), by(figure.control));
            let line = format!(
                "{:about$}  {:what$}  {base:>left$}  {ours:>right$}  {ratio:>5}  {control:>7}  {}",
                figure.about,
                figure.what,
                figure.note()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        let over = figures.iter().filter(|figure| figure.ratio.is_some_and(|ratio| ratio > GOAL)).count();
        let unmeasured = figures.iter().filter(|figure| figure.ratio.is_none()).count();
        write!(
            f,
            "goal: a ratio of at most {GOAL}; of {} figures {over} are over it and {unmeasured} not measured",
            figures.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which every repetition took as much.
    fn round(instructions: u64, idle_ns: u64) -> Round {
        Round { instructions: vec![instructions; 10], idle_ns }
    }

    /// An operation on machines of which each had one steady round.
    fn figure(against: &[u64], kernel: &[u64]) -> Figure {
        let machines = |values: &[u64]| values.iter().map(|value| vec![round(*value, 0)]).collect();
        let (about, what) = ("a file".to_owned(), "truncate".to_owned());
        Figure::of(Counted { about, what, against: machines(against), kernel: machines(kernel) })
    }

    #[test]
    fn what_gets_into_two_of_a_hundred_repetitions_does_not_count() {
        let with = |many: usize, instructions| -> Vec<u64> {
            (0..100).map(|nr| if nr < many { instructions } else { 1000 }).collect()
        };
        assert_eq!(of_round(&with(2, 500_000)), 1000);
        assert_eq!(of_round(&with(3, 99_000)), 2000);
        assert_eq!(of_round(&with(51, 2000)), 1500, "what an operation costs now and then counts");
        assert_eq!(of_round(&[7]), 7);
        assert_eq!(of_round(&[7, 9]), 7);
    }

    #[test]
    fn a_machine_is_worth_its_median_round_and_idle_ones_are_none() {
        let check = |rounds: &[(u64, u64)], want| {
            let rounds: Vec<Round> = rounds.iter().map(|(count, idle_ns)| round(*count, *idle_ns)).collect();
            assert_eq!(of_machine(&rounds), want, "{rounds:?}");
        };
        check(&[(10, 0), (90, 0), (11, 0)], Some(11));
        check(&[(10, 0), (90, 1), (12, 0)], Some(11));
        check(&[(10, 0), (90, 1), (90, 1)], None);
        check(&[(10, 0), (90, 1)], None);
        check(&[], None);
        assert_eq!(of_machine(&[Round { instructions: Vec::new(), idle_ns: 0 }]), None);
    }

    #[test]
    fn a_figure_is_measured_when_machines_of_one_kernel_agree() {
        let check = |against: &[u64], kernel: &[u64], control, ratio: Option<f64>| {
            let figure = figure(against, kernel);
            assert_eq!((figure.control, figure.ratio), (Some(control), ratio), "{figure:?}");
            assert_eq!(figure.why.is_some(), ratio.is_none(), "{figure:?}");
        };
        check(&[1000, 1000], &[1500, 1500], 1.0, Some(1.5));
        check(&[1000, 1030], &[1015, 1015], 1.03, Some(1.0));
        check(&[1000, 1031], &[1000, 1000], 1.031, None);
        check(&[1000, 1000], &[1031, 1000], 1.031, None);
        check(&[1000, 1010, 1020], &[2020, 2020, 2020], 1.02, Some(2.0));
    }

    #[test]
    fn one_idle_machine_is_enough() {
        let machines = |idle_ns| vec![vec![round(10, 0)], vec![round(10, idle_ns)]];
        for (against, kernel) in [(0, 1), (1, 0)] {
            let (against, kernel) = (machines(against), machines(kernel));
            let figure = Figure::of(Counted { about: String::new(), what: String::new(), against, kernel });
            assert_eq!((figure.control, figure.ratio), (None, None));
            assert!(figure.why.is_some_and(|why| why.contains("nothing to do")));
        }
    }

    #[test]
    fn a_person_reads_ratios_and_why_there_is_none() {
        let idle = Counted {
            about: "a pipe".to_owned(),
            what: "read".to_owned(),
            against: vec![vec![round(10, 1)]],
            kernel: vec![vec![round(10, 0)]],
        };
        let named = |about: &str, figure: Figure| Figure { about: about.to_owned(), ..figure };
        let costs = Costs {
            format: 1,
            kernel: "rfc-v9-6.12".to_owned(),
            against: "mainline-6.12".to_owned(),
            machines: 2,
            rounds: 5,
            times: 100,
            figures: vec![
                named("within", figure(&[61_000, 61_100], &[61_400, 61_600])),
                named("over the goal", figure(&[1000, 1001], &[1100, 1101])),
                named("scattered", figure(&[1000, 1100], &[1000, 1000])),
                Figure::of(idle),
            ],
        };
        insta::assert_snapshot!(costs);
    }
}
