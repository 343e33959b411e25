// SPDX-License-Identifier: MIT OR Apache-2.0
//! What machines of their own cost the cases: floor, cold boot, save, restore, and how many short cases
//! fit into a floor, each as an ordinary run plays them, every oracle on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{median, millis, range, save_anew};
use crate::home::Home;
use crate::image;
use crate::judge::judge;
use crate::kernel::Request;
use crate::machine::floor;
use crate::outcome::bad_input;
use crate::plan::{Plan, PlannedCase};
use crate::progress::Progress;
use crate::record::{Origin, Phases, Record};
use crate::run::{self, Interrupt, Run, Settings};
use crate::scratch::Scratch;

/// The scenario that is counted.
pub const SHORT: &str = "bench/short*";

/// What was measured; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Machines {
    /// Version of this form.
    pub format: u32,
    /// The kernel.
    pub kernel: String,
    /// How QEMU executed.
    pub accelerator: String,
    /// Processors of the host.
    pub cpus: usize,
    /// Cases at the same time.
    pub jobs: usize,
    /// QEMU's whole life around a kernel whose init powers off.
    pub floor_ms: Vec<u64>,
    /// From starting QEMU to the first answer, when it boots.
    pub cold_ms: Vec<u64>,
    /// Making a saved machine: booting, saving, finding its holes, publishing it.
    pub save_ms: Vec<u64>,
    /// From copying the pmem to the first answer of a copy, alone on the machine.
    pub restore_ms: Vec<u64>,
    /// A restore by a floor, both as medians.
    pub restore_by_floor: f64,
    /// Bytes of disk that a saved machine takes.
    pub saved_bytes: u64,
    /// Short cases, by file system.
    pub short: BTreeMap<String, Short>,
    /// The most memory a QEMU had in use (VmHWM), in KiB.
    pub qemu_peak_kib: u64,
    /// The most memory this process had in use (VmHWM), in KiB.
    pub host_peak_kib: u64,
    /// Memory of this process (VmRSS) after each batch, in KiB: it must not grow.
    pub host_after_batch_kib: Vec<u64>,
}

/// Short cases on one file system.
#[derive(Clone, Debug, Serialize)]
pub struct Short {
    /// How many were played.
    pub cases: usize,
    /// For how long, in milliseconds.
    pub took_ms: u64,
    /// Cases a minute.
    pub per_minute: f64,
    /// Cases in the time of one floor.
    pub per_floor: f64,
    /// Medians of where a case's time went, in milliseconds.
    pub phases_ms: BTreeMap<String, u64>,
}

/// What a restore may cost, as a part of a floor.
const RESTORE_GOAL: f64 = 1.0 / 8.0;
/// Short cases in a floor, two at a time, by file system.
const SHORT_GOALS: [(&str, f64); 2] = [("ext4", 5.0), ("xfs", 3.3)];
/// Cases of a batch: memory is looked at between two.
const BATCH: usize = 50;

/// What to measure, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Floors, cold boots, saves and restores.
    pub rounds: u32,
    /// Short cases on each file system.
    pub cases: usize,
}

/// Measures. `plan` holds the short cases of one kernel.
///
/// # Errors
/// When something does not boot, when a case was not played on a copy, or when it did not pass.
pub fn machines(
    home: &Home,
    plan: &Plan,
    request: &Request,
    settings: &Settings,
    amount: Amount,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Machines> {
    let shorts: Vec<&PlannedCase> =
        plan.cases.iter().filter(|case| case.id.starts_with("bench/short")).collect();
    ensure!(!shorts.is_empty(), bad_input("the kernel's contract rules the short cases out"));
    let scratch = Scratch::new(&home.cache, "bench")?;
    let settings = Settings { results: Some(scratch.path().join("runs")), ..settings.clone() };
    let requests = [(plan.kernels[0].name.clone(), request.clone())].into();
    let bench = Bench { home, plan, requests: &requests, settings: &settings, progress, interrupt };
    let floor_image = image::Parts::collect(home, image::FLOOR, settings.offline)?.with(home, &[], &[])?;
    let (machine, _) = run::machine_of(home, request, &settings, progress, interrupt)?;
    let mut floor_ms = Vec::new();
    let mut floors = |progress: &Progress| -> Result<()> {
        let bar = progress.bar("floors", Some(u64::from(amount.rounds)));
        for _ in 0..amount.rounds {
            floor_ms.push(millis(floor(&machine, &floor_image.path)?));
            bar.step("floor");
            bench.go_on()?;
        }
        bar.finish("");
        Ok(())
    };
    floors(progress)?;
    let rounds = amount.rounds as usize;
    let alone = |cold| Settings { jobs: 1, cold, ..settings.clone() };
    let ready =
        |samples: &[Sample]| samples.iter().map(|sample| sample.phases.machine_ms).collect::<Vec<u64>>();
    let cold_ms = ready(&bench.play(shorts[0], rounds, &alone(true))?.0);
    let (save_ms, saved_bytes) = bench.saves(amount.rounds)?;
    let mut all = bench.play(shorts[0], rounds, &alone(false))?.0;
    let restore_ms = ready(&all);
    let mut short = BTreeMap::new();
    let mut host_after_batch_kib = Vec::new();
    for case in shorts {
        let (mut took_ms, mut played) = (0, Vec::new());
        while played.len() < amount.cases {
            let (records, took) = bench.play(case, BATCH.min(amount.cases - played.len()), &settings)?;
            took_ms += took;
            played.extend(records);
            host_after_batch_kib.push(memory_kib("VmRSS:"));
        }
        floors(progress)?;
        let fs = if case.id.contains("xfs") { "xfs" } else { "ext4" };
        short.insert(fs.to_owned(), Short::of(&played, took_ms));
        all.extend(played);
    }
    let floor_median = median(&floor_ms).max(1) as f64;
    for short in short.values_mut() {
        short.per_floor = short.cases as f64 * floor_median / short.took_ms.max(1) as f64;
    }
    Ok(Machines {
        format: 1,
        kernel: plan.kernels[0].name.clone(),
        accelerator: machine.accelerator.kind.name().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        jobs: settings.jobs,
        restore_by_floor: median(&restore_ms) as f64 / floor_median,
        floor_ms,
        cold_ms,
        save_ms,
        restore_ms,
        saved_bytes,
        short,
        qemu_peak_kib: all.iter().map(|sample| sample.qemu_peak_kib).max().unwrap_or(0),
        host_peak_kib: memory_kib("VmHWM:"),
        host_after_batch_kib,
    })
}

/// What is kept of a case: this process's memory is measured, too.
struct Sample {
    phases: Phases,
    took_ms: u64,
    qemu_peak_kib: u64,
}

impl Sample {
    fn of(record: &Record) -> Self {
        Self { phases: record.phases, took_ms: record.took_ms, qemu_peak_kib: record.qemu_peak_kib }
    }
}

struct Bench<'a> {
    home: &'a Home,
    plan: &'a Plan,
    requests: &'a run::Requests,
    settings: &'a Settings,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

impl Bench<'_> {
    fn go_on(&self) -> Result<()> {
        self.interrupt.check()
    }

    /// An ordinary run of one case, so many times; its records, and how long the cases took.
    fn play(&self, case: &PlannedCase, times: usize, settings: &Settings) -> Result<(Vec<Sample>, u64)> {
        let cases = (0..times).map(|nr| PlannedCase { id: format!("{} {nr}", case.id), ..case.clone() });
        let plan = &Plan { cases: cases.collect(), ..self.plan.clone() };
        let Self { home, requests, progress, interrupt, .. } = *self;
        let (results, folder) = run::run(Run { home, plan, requests, settings, progress, interrupt })?;
        self.go_on()?;
        let (plan, records) = run::stored(&folder)?;
        let origin = if settings.cold { Origin::Cold } else { Origin::Restored };
        for (case, record) in plan.cases.iter().zip(&records) {
            let judged = judge(case, &plan.contracts[&case.contract], record);
            ensure!(judged.green, "{} is not a pass: {:?}", case.id, judged.verdict);
            ensure!(record.machine == origin, "{} was {:?}: {}", case.id, record.machine, record.cold_because);
        }
        fs::remove_dir_all(&folder)?;
        let samples = records.iter().map(Sample::of).collect();
        Ok((samples, (results.playing_s * 1000.0) as u64))
    }

    /// Machines saved into a cache of their own; how long that took, and the size of one.
    fn saves(&self, rounds: u32) -> Result<(Vec<u64>, u64)> {
        let Self { home, requests, settings, progress, interrupt, .. } = *self;
        let (machine, built) =
            run::machine_of(home, &requests[&self.plan.kernels[0].name], settings, progress, interrupt)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut times, mut bytes) = (Vec::new(), 0);
        let bar = progress.bar("saves", Some(u64::from(rounds)));
        for _ in 0..rounds {
            self.go_on()?;
            let cache = Scratch::new(&home.cache, "bench-save")?;
            let begun = Instant::now();
            let saved = runtime.block_on(save_anew(home, &cache, &machine, &built, interrupt))?;
            times.push(millis(begun.elapsed()));
            bytes = saved.disk_bytes();
            bar.step("save");
        }
        bar.finish("");
        Ok((times, bytes))
    }
}

impl Short {
    fn of(samples: &[Sample], took_ms: u64) -> Self {
        let phase = |of: fn(&Sample) -> u64| median(&samples.iter().map(of).collect::<Vec<u64>>());
        let phases = [
            ("1 restore", phase(|sample| sample.phases.machine_ms)),
            ("2 prepare", phase(|sample| sample.phases.prepare_ms)),
            ("3 ops", phase(|sample| sample.phases.steps_ms)),
            ("4 oracles in the guest", phase(|sample| sample.phases.oracles_ms)),
            ("5 stop", phase(|sample| sample.phases.stop_ms)),
            ("6 file system checks", phase(|sample| sample.phases.fsck_ms)),
            ("whole case", phase(|sample| sample.took_ms)),
        ];
        Self {
            cases: samples.len(),
            took_ms,
            per_minute: samples.len() as f64 * 60_000.0 / took_ms.max(1) as f64,
            per_floor: 0.0,
            phases_ms: phases.map(|(name, ms)| (name.to_owned(), ms)).into(),
        }
    }
}

/// A line of `/proc/self/status`, in KiB.
fn memory_kib(name: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} under {}, {} processors, {} cases at a time; milliseconds",
            self.kernel, self.accelerator, self.cpus, self.jobs
        )?;
        writeln!(f, "                            median  range")?;
        let mut line =
            |name: &str, values: &[u64]| writeln!(f, "{name:26}{:8}  {}", median(values), range(values));
        line("floor", &self.floor_ms)?;
        line("cold boot to first answer", &self.cold_ms)?;
        line("save, boot included", &self.save_ms)?;
        line("restore to first answer", &self.restore_ms)?;
        writeln!(
            f,
            "a restore is 1/{:.1} of a floor (goal: at most 1/{:.0})",
            1.0 / self.restore_by_floor.max(f64::EPSILON),
            1.0 / RESTORE_GOAL
        )?;
        for (fs, short) in &self.short {
            let goal = SHORT_GOALS.iter().find(|(name, _)| name == fs).map_or(0.0, |(_, goal)| *goal);
            writeln!(
                f,
                "short cases on {fs}: {} in {:.1} s, {:.0} a minute, {:.2} a floor (goal: at least {goal}, two at a time)",
                short.cases,
                short.took_ms as f64 / 1000.0,
                short.per_minute,
                short.per_floor
            )?;
            for (phase, ms) in &short.phases_ms {
                writeln!(f, "  {phase:24}{ms:8}")?;
            }
        }
        let mib = |kib: u64| kib as f64 / 1024.0;
        writeln!(f, "a saved machine takes {} MiB of disk", self.saved_bytes >> 20)?;
        writeln!(f, "QEMU's peak memory: {:.0} MiB (goal: under 400)", mib(self.qemu_peak_kib))?;
        let batches: Vec<String> =
            self.host_after_batch_kib.iter().map(|kib| format!("{:.0}", mib(*kib))).collect();
        write!(
            f,
            "this process's peak memory: {:.0} MiB (goal: under 150); after each batch: {}",
            mib(self.host_peak_kib),
            batches.join(" ")
        )
    }
}
