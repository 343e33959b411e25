// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking for damage: whenever blocks are taken from a file while a memory region on it is alive, another
//! file is given them, and the region is used. What a device reaches then is nobody's guess any more.
//!
//! Nobody asks for it: the session knows which region is on which file, compares the file's extents after
//! each step that may have moved blocks, and reports what it found with the oracles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::op::{Fallocate, RdmaRead, RdmaWrite, RegMr};
use holdfast_protocol::{Access, DamageFact, FallocateMode, Handle, Op, Outcome, Place, Victim};

use super::Session;
use crate::survey::{Extent, Found, Survey, Taken, lost, within};
use crate::wire::{Aid, Call, More, Part};

/// The process that looks at files and makes new ones. No actor's name holds a blank.
const SURVEYOR: &str = "the surveyor";
/// How long one of its answers, or a transfer, may take: filling a file system takes a second.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is written into the victim, and what the device writes: neither is a pattern of any scenario.
const OWN: u8 = 0xa5;
const FOREIGN: u8 = 0x5a;
/// How much of the victim's blocks is written, transferred and compared.
const SHOWN: u64 = 64 << 10;
const KIB: u64 = 1 << 10;

/// What the session knows of files, mappings and regions.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Declared files by the step that opened them.
    opened: BTreeMap<String, String>,
    /// Of each mapping its file and the range of it, in bytes.
    maps: BTreeMap<String, (String, u64, u64)>,
    /// Regions on files, by the step that made them.
    regions: BTreeMap<String, Pinned>,
    /// Declared files whose name is gone.
    unlinked: BTreeSet<String>,
    /// Actors that have a queue pair with each other, in both orders.
    pairs: BTreeSet<(String, String)>,
    /// What was found so far.
    found: Vec<DamageFact>,
}

impl Ledger {
    /// True if an operation may take blocks from a file. Nobody looks at others: XFS answers FIEMAP of a file
    /// only when no truncate of it waits for pins, which it does with the lock that xfs_vn_fiemap() wants.
    fn may_lose(&self, op: &Op, file: &str) -> bool {
        let of_fd = |fd: &Option<Handle>| match fd.as_ref().map(|fd| self.opened.get(fd.id())) {
            Some(Some(opened)) => opened == file,
            // Passed on or inherited, it may be any.
            Some(None) => true,
            None => false,
        };
        match op {
            Op::Truncate(op) => op.file.as_deref() == Some(file) || of_fd(&op.fd),
            Op::Fallocate(op) => op.file.as_deref() == Some(file) || of_fd(&op.fd),
            Op::Cut(op) => op.file == file,
            _ if lets_go(op) => self.unlinked.contains(file),
            _ => true,
        }
    }
}

/// A region on a file.
#[derive(Clone, Debug)]
struct Pinned {
    file: String,
    owner: String,
    /// What a peer may do through it.
    access: Vec<Access>,
    /// Where the region begins in the file, in bytes.
    at: u64,
    /// Its blocks when it was made.
    extents: Vec<Extent>,
}

impl Session {
    /// What was found; asked once, at the end.
    pub(super) fn damage(&mut self) -> Vec<DamageFact> {
        std::mem::take(&mut self.ledger.found)
    }

    /// Notes that a step has succeeded, and looks for damage where it may have done some.
    pub(super) fn after_success(&mut self, step: &str, actor: &str, op: &Op) {
        match op {
            Op::Open(op) => drop(self.ledger.opened.insert(step.to_owned(), op.file.clone())),
            Op::Mmap(op) => {
                let file = op.fd.as_ref().and_then(|fd| self.ledger.opened.get(fd.id()));
                if let Some(file) = file {
                    let map = (file.clone(), op.at_kib * KIB, op.len_kib * KIB);
                    self.ledger.maps.insert(step.to_owned(), map);
                }
            }
            Op::RegMr(op) => self.remember(step, actor, op),
            Op::Unlink(op) => drop(self.ledger.unlinked.insert(op.file.clone())),
            Op::Rename(op) => drop(self.ledger.unlinked.insert(op.to.clone())),
            Op::DeregMr(op) => drop(self.ledger.regions.remove(op.mr.id())),
            _ => {}
        }
        let looks = !self.ledger.regions.is_empty()
            && (moves_blocks(op) || (lets_go(op) && !self.ledger.unlinked.is_empty()));
        if looks {
            self.forget_the_dead();
            let shown = |region: &&String| {
                self.ledger.found.iter().any(|fact| fact.region == **region && fact.victim.is_some())
            };
            let meant = |pinned: &Pinned| self.ledger.may_lose(op, &pinned.file);
            let regions = self.ledger.regions.iter().filter(|(region, pinned)| !shown(region) && meant(pinned));
            let regions: Vec<String> = regions.map(|(region, _)| region.clone()).collect();
            for region in regions {
                if let Some(fact) = self.look(step, &region) {
                    self.ledger.found.push(fact);
                }
            }
        }
    }

    /// Regions end with their context too: when it is closed, or when the last process that has it is gone.
    fn forget_the_dead(&mut self) {
        let (Ok(eyes), Some((device, _))) = (&self.eyes, &self.stage.rdma) else { return };
        let keys = &self.regions;
        let alive =
            |region: &str| keys.get(region).is_none_or(|public| eyes.may_have_region(device, public.rkey));
        self.ledger.regions.retain(|region, _| alive(region));
    }

    /// Two actors have a queue pair with each other.
    pub(super) fn connected(&mut self, one: &str, other: &str) {
        self.ledger.pairs.insert((one.to_owned(), other.to_owned()));
        self.ledger.pairs.insert((other.to_owned(), one.to_owned()));
    }

    /// A region was made: where its blocks are.
    fn remember(&mut self, step: &str, actor: &str, op: &RegMr) {
        let Some((file, at, len)) = self.ledger.maps.get(op.map.id()).cloned() else { return };
        let Some(declared) = self.files.get(&file).filter(|file| file.on != Place::Devdax) else { return };
        let path = declared.path.clone();
        let extents = match self.survey(Survey::Extents(path)) {
            Ok((_, found)) => within(&found.extents, at, len),
            Err(why) => return self.ledger.found.push(blind(step, step, why)),
        };
        let (owner, access) = (actor.to_owned(), op.access.clone());
        let pinned = Pinned { file, owner, access, at, extents };
        self.ledger.regions.insert(step.to_owned(), pinned);
    }

    /// Looks whether a region's blocks can be another file's by now, and what it reaches then.
    fn look(&mut self, after: &str, region: &str) -> Option<DamageFact> {
        let pinned = self.ledger.regions.get(region)?.clone();
        let path = self.files.get(&pinned.file)?.path.clone();
        let mut now = match self.survey(Survey::Extents(path.clone())) {
            Ok((_, found)) => found,
            Err(why) => return Some(blind(after, region, why)),
        };
        // Whatever has its name by now is not the file.
        if self.ledger.unlinked.contains(&pinned.file) {
            now = Found::default();
        }
        let gone = lost(&pinned.extents, &now.extents);
        if gone.is_empty() {
            return None;
        }
        let lost_kib = gone.iter().map(|extent| extent.len).sum::<u64>() / KIB;
        let mut fact = DamageFact { lost_kib, ..blind(after, region, String::new()) };
        let folder = path.parent().map(PathBuf::from).unwrap_or_default();
        match self.show(&pinned, region, &folder, gone, &mut fact) {
            Ok(()) => {}
            Err(why) => fact.trouble = why,
        }
        let _ = self.survey(Survey::Clear(folder));
        // An unlinked file that still has its blocks gives none of them to anybody: nothing happened.
        (now.there || fact.taken_kib > 0).then_some(fact)
    }

    fn show(
        &mut self,
        pinned: &Pinned,
        region: &str,
        folder: &Path,
        gone: Vec<Extent>,
        fact: &mut DamageFact,
    ) -> Result<(), String> {
        let (_, found) = self.survey(Survey::Take { folder: folder.to_owned(), wanted: gone })?;
        fact.taken_kib = found.taken.iter().map(|taken| taken.of.len).sum::<u64>() / KIB;
        let Some(Taken { file, offset, of }) = found.taken.into_iter().max_by_key(|taken| taken.of.len) else {
            return Err("no new file was given any of the blocks".to_owned());
        };
        // What the region does not allow ends in an error that the queue pair does not survive.
        let may = |access| pinned.access.contains(&access);
        if !may(Access::REMOTE_READ) && !may(Access::REMOTE_WRITE) {
            return Err("the region allows neither remote reads nor remote writes".to_owned());
        }
        let len = of.len.min(SHOWN);
        let at = of.logical - pinned.at;
        let write = Survey::Write { file: file.clone(), offset, len, seed: OWN, at };
        self.survey(write)?;
        let peer = self.peer_of(&pinned.owner).ok_or("no idle actor is connected with the region's owner")?;
        let mr = Handle::try_from(format!("${region}"))?;
        let (at_kib, len_kib) = (at / KIB, len / KIB);
        let read = Op::RdmaRead(RdmaRead { mr: mr.clone(), at_kib, len_kib, pattern: OWN });
        let read = may(Access::REMOTE_READ).then(|| self.transfer(&peer, region, read)).transpose()?;
        let write = Op::RdmaWrite(RdmaWrite { mr, at_kib, len_kib, pattern: FOREIGN });
        // After an error of the read the queue pair flushes a write, which shows nothing.
        let intact = !matches!(read, Some(Outcome::Completion(_)));
        let write =
            (intact && may(Access::REMOTE_WRITE)).then(|| self.transfer(&peer, region, write)).transpose()?;
        let compare = Survey::Compare { file: file.clone(), offset, len, seed: OWN, at };
        let (bytes, _) = self.survey(compare)?;
        let file = file.display().to_string();
        fact.victim = Some(Victim { file, offset, region_offset: at, read, write, bytes });
        Ok(())
    }

    /// An actor that is connected with the region's owner and not in a step.
    fn peer_of(&mut self, owner: &str) -> Option<String> {
        let peers: Vec<String> =
            self.ledger.pairs.iter().filter(|(_, to)| to == owner).map(|(from, _)| from.clone()).collect();
        peers.into_iter().find(|peer| self.absent(peer).is_none())
    }

    fn transfer(&mut self, peer: &str, region: &str, op: Op) -> Result<Outcome, String> {
        let tag = format!("{region} / damage");
        let aid = Aid { region: self.regions.get(region).cloned(), ..Aid::default() };
        Ok(self.ask(peer, &Call::Do { tag: tag.clone(), op, aid }, &tag, TIMEOUT)?.outcome)
    }

    fn survey(&mut self, what: Survey) -> Result<(Outcome, Found), String> {
        if !self.cast.players.contains_key(SURVEYOR) {
            let part = Part {
                name: SURVEYOR.to_owned(),
                setup: holdfast_protocol::ActorSetup::default(),
                files: BTreeMap::new(),
                places: BTreeMap::new(),
                rdma: None,
            };
            self.cast.start(part)?;
        }
        let (tag, asked) = ("a survey".to_owned(), format!("{what:?}"));
        let answer = self.ask(SURVEYOR, &Call::Survey { tag: tag.clone(), what }, &tag, TIMEOUT)?;
        match answer.more {
            More::Found(found) => match answer.outcome {
                Outcome::Errno(errno) => Err(format!("{asked} failed with errno {errno}")),
                outcome => Ok((outcome, found)),
            },
            _ => Err("the surveyor found nothing to say".to_owned()),
        }
    }
}

/// A look that showed nothing, and why.
fn blind(after: &str, region: &str, trouble: String) -> DamageFact {
    let (after, region) = (after.to_owned(), region.to_owned());
    DamageFact { after, region, lost_kib: 0, taken_kib: 0, victim: None, trouble }
}

/// Takes blocks from a file, or gives it others.
fn moves_blocks(op: &Op) -> bool {
    match op {
        Op::Truncate(_) | Op::Cut(_) | Op::Unlink(_) | Op::Rename(_) => true,
        Op::Clone(_) | Op::Dedupe(_) | Op::ExchangeRange(_) => true,
        Op::Fallocate(Fallocate { mode, .. }) => mode.iter().any(|mode| *mode != FallocateMode::KEEP_SIZE),
        _ => false,
    }
}

/// May be what an unlinked file's blocks waited for.
fn lets_go(op: &Op) -> bool {
    matches!(op, Op::Close(_) | Op::Munmap(_) | Op::Exit(_) | Op::Kill(_))
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::op::{Close, Rename, Truncate};

    use super::*;

    #[test]
    fn only_what_may_have_lost_blocks_is_looked_at() {
        let handle = |id: &str| Handle::try_from(format!("${id}")).unwrap();
        let mut ledger = Ledger::default();
        ledger.opened.insert("fd".to_owned(), "data".to_owned());
        ledger.unlinked.insert("gone".to_owned());
        let by_name = Op::from(Truncate { file: Some("data".to_owned()), fd: None, size_kib: 0 });
        let by_fd = |id: &str| Op::from(Truncate { file: None, fd: Some(handle(id)), size_kib: 0 });
        let close = Op::from(Close { fd: handle("fd") });
        let rename = Op::from(Rename { file: "new".to_owned(), to: "data".to_owned() });
        let looked_at = |op: &Op| ["data", "other", "gone"].map(|file| ledger.may_lose(op, file));
        assert_eq!(looked_at(&by_name), [true, false, false]);
        assert_eq!(looked_at(&by_fd("fd")), [true, false, false]);
        assert_eq!(looked_at(&by_fd("received")), [true; 3]);
        assert_eq!(looked_at(&close), [false, false, true]);
        assert_eq!(looked_at(&rename), [true; 3]);
    }
}
