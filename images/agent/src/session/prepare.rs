// SPDX-License-Identifier: MIT OR Apache-2.0
//! Before the first step: files that are written, synced and shown to be DAX, actors, the mark in
//! the kernel log, the base line of the oracles.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use holdfast_protocol::{
    ActorSetup, FileFact, FileSetup, HandlerRun, Oracles, Outcome, Place, Setup, pattern_byte,
};
use nix::errno::Errno;

use super::cast::Heard;
use super::{Before, Session};
use crate::boot;
use crate::ops::files::read_range;
use crate::ops::{difference, pattern};
use crate::sys::{self, Mapping};
use crate::wire::{Answer, Call, DeclaredFile, Part, handler_step};

/// How long an actor may take to be ready; a debug kernel under emulation needs seconds.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(60);

/// How much is written at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

impl Session {
    /// Makes everything ready for the first step; ends the actors again when something is missing.
    pub(super) fn prepare(&mut self, setup: Setup) -> Result<Vec<FileFact>, String> {
        if !self.awake {
            return Err("this guest was not woken".to_owned());
        }
        if self.before.is_some() {
            return Err("this guest is already prepared".to_owned());
        }
        let prepared = self.try_prepare(setup);
        if prepared.is_err() {
            self.end_actors(&self.progress.within(ACTOR_TIMEOUT));
            self.cast.players.clear();
        }
        prepared
    }

    fn try_prepare(&mut self, setup: Setup) -> Result<Vec<FileFact>, String> {
        let Setup { case, files, actors, sysctl, again, provider } = setup;
        self.link = self.stage.rdma.iter().find(|link| link.provider == provider).cloned();
        self.forget_leaks();
        for (name, value) in &sysctl {
            self.set_sysctl(name, value)?;
        }
        let mut facts = Vec::new();
        for (name, file) in &files {
            let declared = self.declare(name, file)?;
            if again {
                facts.extend(find_file(name, file, &declared)?);
            } else if !file.absent {
                facts.push(make_file(name, file, &declared)?);
            }
            self.files.insert(name.clone(), declared);
        }
        for (name, actor) in &actors {
            for (handler, setup) in &actor.on_signal {
                let step = |run: &HandlerRun| (handler_step(handler, &run.id), (name.clone(), run.op.clone()));
                self.handled.extend(setup.run.iter().map(step));
            }
        }
        let told = actors.clone();
        let (unborn, actors) = actors.into_iter().partition(|(_, actor)| actor.forked);
        self.unborn = unborn;
        let (threads, actors): (BTreeMap<_, _>, BTreeMap<_, _>) =
            actors.into_iter().partition(|(_, actor)| actor.thread_of.is_some());
        self.start_actors(actors)?;
        for (name, of) in threads.iter().filter_map(|(name, actor)| Some((name, actor.thread_of.as_ref()?))) {
            self.start_thread(name, of)?;
        }
        self.tell_handlers(&told)?;
        // The kernel log escapes what is not ASCII, and the mark would not be found again.
        let case: String = case.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
        let mark = format!("holdfast: case {case} begins at {} ms", crate::clock::now_ms());
        let mut before = Oracles::default();
        if self.stage.in_guest {
            let eyes = self.eyes.as_mut().map_err(|why| why.clone())?;
            eyes.mark_log(&mark)?;
            if again {
                eyes.rewind_log()?;
            }
            eyes.clear_warn_once()?;
            before.pins_before = eyes.pins()?;
            before.taint.0 = eyes.taint()?;
        }
        // What file systems say when they come back belongs to the case.
        let mark = if again { boot::MARK.to_owned() } else { mark };
        self.before = Some(Before { oracles: before, mark });
        Ok(facts)
    }

    fn start_thread(&mut self, name: &str, of: &str) -> Result<(), String> {
        self.cast.divide(name, of).map_err(|error| format!("actor {name}: {error}"))?;
        match self.cast.hear(name, &self.progress.within(ACTOR_TIMEOUT)) {
            Heard::Answer(Answer { outcome: Outcome::Returned(tid), .. }) => {
                self.cast.is_thread(name, i32::try_from(tid).unwrap_or_default());
                Ok(())
            }
            other => Err(format!("actor {name} is no thread of {of}: {other:?}")),
        }
    }

    /// Tells handlers ahead what their operations need to know of other actors: afterwards nobody can ask.
    fn tell_handlers(&mut self, actors: &BTreeMap<String, ActorSetup>) -> Result<(), String> {
        for (name, actor) in actors.iter().filter(|(_, actor)| !actor.forked) {
            for (handler, setup) in &actor.on_signal {
                for run in &setup.run {
                    self.link_for(name, &run.op)?;
                    let step = handler_step(handler, &run.id);
                    let aid = self.aid(&run.op).map_err(|why| format!("handler step {step}: {why}"))?;
                    // Until it has taken it, a signal that came would find nothing.
                    let tag = format!("aid for {step}");
                    self.ask(name, &Call::Aid { tag: tag.clone(), step, aid }, &tag, ACTOR_TIMEOUT)?;
                }
            }
        }
        Ok(())
    }

    fn set_sysctl(&self, name: &str, value: &str) -> Result<(), String> {
        let sound = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        if !self.stage.in_guest {
            return Err(format!("sysctl {name}: this is no guest"));
        }
        if !name.split('.').all(sound) {
            return Err(format!("sysctl {name}: not a name like fs.lease-break-time"));
        }
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| format!("sysctl {name} = {value}: {error}"))
    }

    /// Where a file is, or is to be.
    fn declare(&self, name: &str, setup: &FileSetup) -> Result<DeclaredFile, String> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(format!("file {name:?}: not a plain file name"));
        }
        let place = self.stage.places.get(&setup.on);
        let place =
            place.ok_or_else(|| format!("file {name}: this machine has no {:?} that is ready", setup.on))?;
        let path = if setup.on == Place::Devdax { place.clone() } else { place.join(name) };
        Ok(DeclaredFile { path, on: setup.on })
    }

    /// Starts all actors, then waits for all of them: their start-up overlaps.
    fn start_actors(&mut self, actors: BTreeMap<String, ActorSetup>) -> Result<(), String> {
        let files = self.files.clone();
        let rdma = self.link.clone();
        let device = |place: &Place| self.stage.devices.get(place).cloned();
        let places: BTreeMap<_, _> =
            self.stage.places.iter().map(|(place, path)| (*place, (path.clone(), device(place)))).collect();
        let part = |name: &str, setup: &ActorSetup| Part {
            name: name.to_owned(),
            setup: setup.clone(),
            files: files.clone(),
            places: places.clone(),
            programs: self.stage.programs.clone(),
            rdma: rdma.clone(),
        };
        for (name, setup) in &actors {
            self.cast.start(part(name, setup))?;
        }
        let limit = self.progress.within(ACTOR_TIMEOUT);
        for (name, setup) in &actors {
            loop {
                match self.cast.hear(name, &limit) {
                    Heard::Answer(Answer { outcome: Outcome::NotIssued { why }, .. }) => {
                        return Err(format!("actor {name}: {why}"));
                    }
                    Heard::Answer(_) => break,
                    // A spare one that was dying when it was taken: another in its place.
                    Heard::Gone(_) if self.cast.players.get(name).is_some_and(|player| player.was_spare) => {
                        self.cast.start(part(name, setup))?;
                    }
                    Heard::Gone(end) => return Err(format!("actor {name} ended at once: {:?}", end.outcome)),
                    Heard::Silence => return Err(format!("actor {name} is not ready after {ACTOR_TIMEOUT:?}")),
                }
            }
        }
        Ok(())
    }
}

/// Makes a declared file and looks at what it became.
fn make_file(name: &str, setup: &FileSetup, declared: &DeclaredFile) -> Result<FileFact, String> {
    let path = &declared.path;
    let len = usize::try_from(setup.size_kib).ok().and_then(|kib| kib.checked_mul(1024));
    let len = len.ok_or_else(|| format!("file {name}: {} KiB are too many", setup.size_kib))?;
    let trouble = |errno: Errno| format!("file {name} ({}): {errno}", path.display());
    let file = fill(path, setup.on, len, setup.pattern)
        .map_err(|error| format!("file {name} ({}): {error}", path.display()))?;
    let found = read_range(&file, setup.on, 0, len).map_err(trouble)?;
    Ok(FileFact {
        name: name.to_owned(),
        on: setup.on,
        statx_dax: setup.on == Place::Devdax || sys::statx_dax(&file).map_err(trouble)?,
        map_sync: setup.on == Place::Devdax || map_sync(&file),
        filled: found.len() == len && difference(setup.pattern, 0, &found).is_none(),
    })
}

/// Looks at what has become of a declared file; nothing where there is none any more.
fn find_file(name: &str, setup: &FileSetup, declared: &DeclaredFile) -> Result<Option<FileFact>, String> {
    let path = &declared.path;
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A file system that came back damaged is the kernel's affair, not the agent's.
        Err(_) => {
            let (name, on) = (name.to_owned(), setup.on);
            return Ok(Some(FileFact { name, on, statx_dax: false, map_sync: false, filled: false }));
        }
        Ok(file) => file,
    };
    let trouble = |errno: Errno| format!("file {name} ({}): {errno}", path.display());
    let is_device = setup.on == Place::Devdax;
    Ok(Some(FileFact {
        name: name.to_owned(),
        on: setup.on,
        statx_dax: is_device || sys::statx_dax(&file).map_err(trouble)?,
        map_sync: is_device || map_sync(&file),
        // What it holds is for the scenario to say.
        filled: true,
    }))
}

/// Writes a pattern over the whole length, so that no extent stays unwritten, and syncs it.
fn fill(path: &Path, on: Place, len: usize, seed: u8) -> std::io::Result<File> {
    if on == Place::Devdax {
        let device = OpenOptions::new().read(true).write(true).open(path)?;
        let map = Mapping::new(len, libc::MAP_SHARED, Some(device.as_fd()), 0)?;
        let _ = map.store(0, len, |at| pattern_byte(seed, at));
        map.unmap()?;
        return Ok(device);
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    for at in (0..len).step_by(CHUNK_BYTES) {
        file.write_all(&pattern(seed, at as u64, CHUNK_BYTES.min(len - at)))?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Whether a MAP_SYNC mapping of the file can be made: on real DAX only.
fn map_sync(file: &File) -> bool {
    let flags = libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC;
    Mapping::new(4096, flags, Some(file.as_fd()), 0).is_ok_and(|map| map.unmap().is_ok())
}
