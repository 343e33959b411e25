// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cases of a kernel are played on: a machine, and a saved one to copy where that can be had.
//!
//! Nothing here can fail a run: without a saved machine the same cases boot theirs, and the reason is said
//! once.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::kernel::Built;
use crate::machine::saved::{self, Found};
use crate::machine::{Machine, Saved};
use crate::outcome::Interrupted;
use crate::record::{Origin, Record};
use crate::run::Run;
use crate::scratch;

/// What a kernel's cases are played on.
#[derive(Debug)]
pub struct Ground {
    /// The machine.
    pub machine: Machine,
    /// Its kernel.
    pub built: Built,
    saved: Option<Saved>,
    /// Why there is nothing to copy; empty when nobody wants a copy.
    why_cold: String,
    /// A copy did not come up; nobody tries again.
    failed: Cell<bool>,
    /// Why a case was booted was said.
    said: Cell<bool>,
}

/// By kernel and number of processors; the reason when the kernel could not be built.
pub type Grounds = BTreeMap<(String, u32), Result<Ground, String>>;

impl Ground {
    fn new(machine: Machine, built: Built, saved: Result<Saved, String>) -> Self {
        let (saved, why_cold) = match saved {
            Ok(saved) => (Some(saved), String::new()),
            Err(why) => (None, why),
        };
        Self { machine, built, saved, why_cold, failed: Cell::new(false), said: Cell::new(false) }
    }

    /// What to copy, or why there is nothing.
    ///
    /// # Errors
    /// The reason in words; empty when nobody wants a copy.
    pub fn saved(&self) -> Result<&Saved, &str> {
        match &self.saved {
            Some(saved) if !self.failed.get() => Ok(saved),
            Some(_) => Err("a copy of the saved machine did not come up before"),
            None => Err(&self.why_cold),
        }
    }

    /// Learns from a played case whether copies come up; says what a person should know, once.
    pub fn heed(&self, record: &Record) -> Option<String> {
        let saved = self.saved.as_ref()?;
        if record.machine != Origin::Cold {
            return None;
        }
        let (name, why) = (&self.built.manifest.name, &record.cold_because);
        if record.copy_failed && !self.failed.replace(true) {
            saved.discard();
            self.said.set(true);
            return Some(format!("the saved machine of {name} is thrown away, the cases boot theirs: {why}"));
        }
        // Not the saved machine's fault: no room for a copy, no process to be had.
        (!self.said.replace(true)).then(|| format!("a case on {name} boots its machine: {why}"))
    }
}

/// Finds or makes the saved machines of all kernels that have cases to play, one after the other.
///
/// # Errors
/// When the user ended the run.
pub fn grounds(
    of: Run<'_>,
    machines: &BTreeMap<String, Result<(Machine, Built), String>>,
    runtime: &Runtime,
) -> Result<Grounds> {
    let Run { plan, settings, .. } = of;
    let mut grounds = BTreeMap::new();
    let playable = plan.cases.iter().filter(|case| case.excluded.is_none());
    let wanted: BTreeSet<(&str, u32)> = playable.map(|case| (case.kernel.as_str(), case.cpus)).collect();
    for (name, cpus) in wanted {
        let ground = match &machines[name] {
            Err(why) => Err(why.clone()),
            Ok((machine, built)) => {
                let (machine, built) = (Machine { cpus, ..machine.clone() }, built.clone());
                let saved = if settings.cold {
                    Err(String::new())
                } else {
                    or_say(of, name, saved_machine(of, &machine, &built, runtime))?
                };
                Ok(Ground::new(machine, built, saved))
            }
        };
        grounds.insert((name.to_owned(), cpus), ground);
    }
    Ok(grounds)
}

/// The machine, or why there is none, which is said.
fn or_say(of: Run<'_>, name: &str, found: Result<Saved>) -> Result<Result<Saved, String>> {
    match found {
        Ok(saved) => Ok(Ok(saved)),
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            of.progress.say(format!("the cases on {name} boot their machines, none can be saved: {error:#}"));
            Ok(Err(format!("no machine can be saved: {error:#}")))
        }
    }
}

fn saved_machine(of: Run<'_>, machine: &Machine, built: &Built, runtime: &Runtime) -> Result<Saved> {
    let Run { home, progress, interrupt, .. } = of;
    let name = &built.manifest.name;
    let found = saved::find(home, machine, |lock| {
        let what = format!("saves the machine of {name}");
        scratch::lock_and_say(&home.cache, lock, &what, progress, interrupt.flag())
    })?;
    let site = match found {
        Found::Good(saved) => return Ok(*saved),
        Found::None(site) => site,
        Found::Bad(site, why) => {
            progress.say(format!("the saved machine of {name} is thrown away and made again: {why}"));
            site
        }
    };
    let bar = progress.bar(format!("saving the machine of {name}"), None);
    let (requests, links) = (&built.manifest.requests, built.manifest.providers());
    let saved = runtime.block_on(saved::make(home, site, machine, requests, &links, interrupt.wish()));
    bar.finish("");
    match saved {
        Err(_) if interrupt.flag().load(Ordering::Relaxed) => Err(Interrupted.into()),
        other => other,
    }
}
