// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a plan to a kernel in the store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::make::{self, Make};
use super::plan::{BaseConfig, Input, Plan};
use super::series;
use super::slot::{OBJECTS, Slot, State, Wanted};
use super::store::{self, Built, Manifest, PatchNote};
use super::{Options, config, files, kconfig, selftests, slot, source, tree};
use crate::home::Home;
use crate::progress::Progress;
use crate::scratch::{self, Scratch};

/// Room for a cold build: the tree's folders, objects and links of them; debug information takes most.
const COLD_MIB: u64 = 4_000;
/// Room for a build in a slot that is there.
const WARM_MIB: u64 = 1_000;
/// Steps of a cold build of our fragments on 6.12, counted.
const COLD_STEPS: u64 = 2_115;

/// What make and the compilers said.
const LOG: &str = "build.log";

/// Builds the plan's kernel, unless another process does so while we wait for it.
pub(super) fn build(
    home: &Home,
    plan: &Plan,
    options: &Options,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Built> {
    let cache = &home.cache;
    let name = &plan.name;
    let _kernel = scratch::lock_and_say(
        cache,
        &format!("kernel-{}", plan.key),
        &format!("builds {name}"),
        progress,
        cancel,
    )?;
    if let Some(built) = store::find(cache, &plan.key) {
        return Ok(built);
    }
    let what = format!("uses the work folder of {name}");
    let lock = scratch::lock_and_say(cache, &Slot::lock_name(&plan.slot), &what, progress, cancel)?;
    let slot = Slot::open(cache, &plan.slot, lock);
    let room = if slot.objects().is_dir() { WARM_MIB } else { COLD_MIB };
    scratch::check_space(cache, room, "building a kernel")?;

    let begun = Instant::now();
    let version = fill(cache, plan, &slot, progress)?;
    let jobs = options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let tree = slot.tree();
    let make = Make { tree: &tree, objects: OBJECTS, jobs, cancel };
    slot.begin_build(&plan.config_id)?;
    // An interrupted build left objects behind: then nobody knows how many are missing.
    let is_cold = !slot.objects().join(".config").exists();
    let job = Job { cache, plan, slot: &slot, make: &make, progress, is_cold };
    configure(&job)?;
    let work = Scratch::new(cache, "log")?;
    let log = work.path().join(LOG);
    let steps = compile(&job, &log)?;
    let selftests = selftests::compile(&plan.selftests, &make, work.path(), progress)?;
    slot.end_build(true)?;

    let objects = slot.objects();
    let release_path = objects.join("include/config/kernel.release");
    let release = fs::read_to_string(&release_path)
        .with_context(|| format!("{} cannot be read", release_path.display()))?;
    let manifest = Manifest {
        name: plan.name.clone(),
        key: plan.key.clone(),
        release: release.trim().to_owned(),
        source: plan.source.clone(),
        version,
        tested: plan.tested.clone(),
        contract: plan.contract.clone(),
        patches: plan
            .patches
            .iter()
            .map(|patch| PatchNote { name: patch.name.clone(), subject: patch.subject.clone() })
            .collect(),
        requests: plan.requests(),
        lacks: BTreeSet::new(),
        modules: Vec::new(),
        arguments: String::new(),
        compiler: plan.compiler.clone(),
        selftests,
        steps,
        build_s: begun.elapsed().as_secs_f64(),
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let kernel = products(cache, &objects, work.path(), &manifest)?;
    store::publish(cache, kernel, manifest)
}

/// What is kept of a build: `work` holds its log and its programs.
fn products(cache: &Path, objects: &Path, work: &Path, manifest: &Manifest) -> Result<Scratch> {
    let kernel = Scratch::new(cache, "kernel")?;
    let copy = |from: PathBuf, name: &Path| {
        fs::copy(&from, kernel.path().join(name))
            .with_context(|| format!("{} cannot be copied", from.display()))
    };
    for (from, name) in [
        (objects.join("arch/x86/boot/bzImage"), "bzImage"),
        (objects.join("vmlinux"), "vmlinux"),
        (objects.join(".config"), "config"),
        (work.join(LOG), LOG),
    ] {
        copy(from, Path::new(name))?;
    }
    fs::create_dir(kernel.path().join(selftests::FOLDER))?;
    for program in manifest.selftests.iter().filter(|program| program.sha256.is_some()) {
        let name = Path::new(selftests::FOLDER).join(&program.name);
        copy(work.join(&name), &name)?;
    }
    Ok(kernel)
}

/// What the steps of one build share.
struct Job<'a> {
    cache: &'a Path,
    plan: &'a Plan,
    slot: &'a Slot,
    make: &'a Make<'a>,
    progress: &'a Progress,
    is_cold: bool,
}

/// Brings source and series into the slot; gives the source's point release.
fn fill(cache: &Path, plan: &Plan, slot: &Slot, progress: &Progress) -> Result<String> {
    let mut unpacked = None;
    let (root, listed): (PathBuf, _) = match &plan.input {
        Input::Cached(pristine) => (pristine.tree(), pristine.files()?),
        Input::Now { tree, files } => (tree.clone(), files.clone()),
        Input::Commit { tree, commit } => {
            let work = unpacked.insert(Scratch::new(cache, "commit")?);
            let root = work.path().join("tree");
            source::archive(tree, commit, &root)?;
            files::age(&root)?;
            let listed = files::scan(&root)?;
            tree::check_is_kernel(&listed, &plan.source)?;
            (root, listed)
        }
    };
    let makefile = fs::read_to_string(root.join("Makefile")).unwrap_or_default();
    let version =
        source::release_of(&makefile).with_context(|| format!("{}: no kernel's Makefile", plan.source))?;
    if let Some(tested) = plan.tested.as_ref().filter(|tested| **tested != version) {
        progress.say(format!("{}: built from {} ({version}); tried on {tested}", plan.name, plan.source));
    } else {
        progress.say(format!("{}: source is {} ({version})", plan.name, plan.source));
    }
    let applied = match plan.patches.is_empty() {
        true => None,
        false => {
            Some(series::apply(cache, &root, &plan.patches).with_context(|| format!("kernel {}", plan.name))?)
        }
    };
    let (wanted_files, patched) = match &applied {
        Some(applied) => applied.onto(listed)?,
        None => (listed, Default::default()),
    };
    let wanted = Wanted {
        files: wanted_files,
        root: &root,
        may_link: !matches!(plan.input, Input::Now { .. }),
        patched,
        patched_root: applied.as_ref().map(series::Applied::root),
    };
    let synced = slot.sync(cache, &wanted, &plan.config_id)?;
    slot.set_state(&State { owner: plan.name.clone(), origin: plan.origin.clone(), ..slot.state() })?;
    if let Some(relative) = &synced.cloned_from {
        progress.say(format!("{}: objects cloned from {relative}, {} files differ", plan.name, synced.changed));
    }
    Ok(version)
}

/// Resolves base and fragments, checks each request, and writes `.config` only when it is another
/// one, so that make stays incremental.
fn configure(job: &Job<'_>) -> Result<()> {
    let Job { cache, plan, slot, make, .. } = job;
    let objects = slot.objects();
    fs::create_dir_all(&objects)?;
    let work = Scratch::new(cache, "config")?;
    let path = work.path().join("config");
    let path_text = path.to_string_lossy();
    let variables = [("KCONFIG_CONFIG", &*path_text)];
    match &plan.base {
        BaseConfig::Target(base) => make.quick(&variables, base.target())?,
        BaseConfig::File(text) => fs::write(&path, text)?,
    }
    let base = fs::read_to_string(&path)?;
    fs::write(&path, format!("{base}\n{}", plan.fragments))?;
    make.quick(&variables, "olddefconfig")?;
    let resolved = fs::read_to_string(&path)?;
    let dropped = config::dropped(&plan.asked, &resolved);
    if !dropped.is_empty() {
        slot.end_build(false)?;
        let reasons: Vec<String> =
            dropped.iter().map(|dropped| kconfig::explain(&slot.tree(), dropped, &resolved)).collect();
        bail!("kernel {}: the configuration does not honour\n  {}", plan.name, reasons.join("\n  "));
    }
    let current = objects.join(".config");
    if fs::read_to_string(&current).ok().as_deref() != Some(&resolved) {
        fs::write(&current, &resolved).with_context(|| format!("{} cannot be written", current.display()))?;
    }
    Ok(())
}

fn compile(job: &Job<'_>, log: &Path) -> Result<u64> {
    let Job { cache, plan, slot, make, progress, is_cold } = job;
    let counts = cache.join("steps").join(&plan.config_id);
    let counted = fs::read_to_string(&counts).ok().and_then(|text| text.trim().parse().ok());
    let bar = progress.bar(plan.name.clone(), is_cold.then(|| counted.unwrap_or(COLD_STEPS)));
    let begun = Instant::now();
    let ended = make.build("bzImage", log, &bar)?;
    if !ended.is_success {
        let failed = cache.join("failed");
        scratch::create_dir(&failed)?;
        let kept = failed.join(format!("{}.log", plan.name));
        fs::copy(log, &kept).with_context(|| format!("{} cannot be written", kept.display()))?;
        let errors = make::errors_in(log);
        slot.end_build(false)?;
        bail!("kernel {} does not build:\n{errors}\nthe whole log: {}", plan.name, kept.display());
    }
    bar.finish(&format!("built: {} steps in {:.0} s", ended.steps, begun.elapsed().as_secs_f64()));
    if *is_cold {
        // Only the next bar's estimate hangs on it.
        let _ = scratch::create_dir(&cache.join("steps"))
            .and_then(|()| slot::replace(&counts, ended.steps.to_string().as_bytes()));
    }
    Ok(ended.steps)
}
