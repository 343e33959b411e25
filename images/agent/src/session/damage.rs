// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking for damage: whenever blocks are taken from a file while a memory region on it is alive, another
//! file is given them, and the region is used. What a device reaches then is nobody's guess any more.
//!
//! Nobody asks for it: the session knows which region lies on which file, compares the file's extents after
//! each step that may have moved blocks, and reports what it found with the oracles. Where another declared
//! file has the blocks already, that one is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_protocol::op::{Mmap, RdmaRead, RdmaWrite, RegMr};
use holdfast_protocol::{Access, DamageFact, FallocateMode, Handle, Op, OpenFlag, Outcome, Victim};
use serde_json::Value;

use super::Session;
use crate::survey::{Extent, Found, Inode, Piece, Survey, Taken, lost};
use crate::wire::{Aid, Call, Link, More, Part, RemoteRegion};

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

/// What the session knows of regions.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Parts of regions that lie on files.
    pinned: Vec<Pinned>,
    /// Mappings of no file: nobody need look where their blocks are.
    anonymous: BTreeSet<String>,
    /// A look is going on: what it hears of meanwhile begins no other.
    looking: bool,
    /// Actors that have a queue pair with each other, in both orders.
    pairs: BTreeSet<(String, String)>,
    /// What was found so far.
    found: Vec<DamageFact>,
}

/// A part of a region that lies on a file. It is found by the region's memory, so it does not matter by which
/// descriptor, mapping or process the file came there.
#[derive(Clone, Debug)]
struct Pinned {
    /// The step that made the region.
    region: String,
    owner: String,
    /// What a peer may do through it.
    access: Vec<Access>,
    /// The folder of its file system.
    folder: PathBuf,
    /// Which part of which file, and its blocks when the region was made.
    piece: Piece,
}

impl Pinned {
    /// Where a block of the file is in the region, in bytes.
    const fn in_region(&self, logical: u64) -> u64 {
        self.piece.range_at + (logical - self.piece.file_at)
    }

    fn may(&self, access: Access) -> bool {
        self.access.contains(&access)
    }
}

impl Session {
    /// What was found; asked once, at the end.
    pub(super) fn damage(&mut self) -> Vec<DamageFact> {
        std::mem::take(&mut self.ledger.found)
    }

    /// Notes that a step has succeeded, and looks for damage where it may have done some.
    pub(super) fn after_success(&mut self, step: &str, actor: &str, op: &Op) {
        if let Op::Mmap(Mmap { over: Some(map), .. }) = op {
            self.ledger.anonymous.remove(map.id());
        }
        match op {
            Op::Mmap(op) if op.fd.is_none() => drop(self.ledger.anonymous.insert(step.to_owned())),
            Op::RegMr(op) if self.ledger.anonymous.contains(op.map.id()) => {}
            Op::RegMr(op) => self.remember(step, actor, op),
            Op::DeregMr(op) => self.ledger.pinned.retain(|pinned| pinned.region != op.mr.id()),
            _ => {}
        }
        if !is_harmless(op) {
            self.look_everywhere(step, lets_go(op));
        }
    }

    /// Regions end with their context too: when it is closed, or when the last process that has it is gone.
    fn forget_the_dead(&mut self) {
        let mut pinned = std::mem::take(&mut self.ledger.pinned);
        pinned.retain(|pinned| self.may_live(&pinned.region));
        self.ledger.pinned = pinned;
    }

    /// False where the kernel no longer knows the region.
    fn may_live(&self, region: &str) -> bool {
        let (Ok(eyes), Some(Link { device, .. })) = (&self.eyes, &self.link) else { return true };
        self.regions.get(region).is_none_or(|public| eyes.may_have_region(device, public.rkey))
    }

    /// Files that calls are about which have not returned. XFS answers FIEMAP of a file only when no truncate
    /// of it waits for pins, which it does with the lock that xfs_vn_fiemap() wants.
    fn in_use(&self) -> Vec<Inode> {
        let mut inodes = Vec::new();
        let pending = self.pending.values().map(|pending| (&pending.actor, &pending.op));
        for (actor, op) in pending.chain(self.unfinished.iter().map(|(actor, op)| (actor, op))) {
            let fields = serde_json::to_value(op).unwrap_or_default();
            let fields = fields.as_object().and_then(|map| map.values().next()?.as_object().cloned());
            let pid = self.cast.players.get(actor).map_or(0, super::cast::Player::pid);
            for word in fields.iter().flat_map(|map| map.values()).filter_map(Value::as_str) {
                let by_handle = word.strip_prefix('$').and_then(|id| match self.settled.get(id)?.outcome {
                    Outcome::Returned(fd) => Some(PathBuf::from(format!("/proc/{pid}/fd/{fd}"))),
                    _ => None,
                });
                let path = by_handle.or_else(|| self.files.get(word).map(|file| file.path.clone()));
                inodes.extend(path.and_then(|path| Inode::of(&path)));
            }
        }
        inodes
    }

    /// Looks at every region that nothing was shown of yet. At one whose file has no name any more, when
    /// its last reference may have gone: whether it still has its blocks can be told only by who gets them.
    pub(super) fn look_everywhere(&mut self, after: &str, nameless_too: bool) {
        if self.ledger.pinned.is_empty() || std::mem::replace(&mut self.ledger.looking, true) {
            return;
        }
        self.forget_the_dead();
        let in_use = self.in_use();
        for pinned in self.ledger.pinned.clone() {
            let of = pinned.piece.of;
            let shown = |fact: &DamageFact| fact.region == pinned.region && fact.victim.is_some();
            if self.ledger.found.iter().any(shown) || in_use.contains(&of) {
                continue;
            }
            let has_name = self.files.values().any(|file| Inode::of(&file.path) == Some(of));
            if (has_name || nameless_too)
                && let Some(fact) = self.look(after, &pinned, &in_use)
            {
                self.ledger.found.push(fact);
            }
        }
        self.ledger.looking = false;
    }

    /// Two actors have a queue pair with each other.
    pub(super) fn connected(&mut self, one: &str, other: &str) {
        self.ledger.pairs.insert((one.to_owned(), other.to_owned()));
        self.ledger.pairs.insert((other.to_owned(), one.to_owned()));
    }

    /// A region was made: on which files it lies, and where their blocks are.
    fn remember(&mut self, step: &str, actor: &str, op: &RegMr) {
        let pid = self.cast.players.get(actor).map_or(0, super::cast::Player::pid);
        let Some(RemoteRegion { address, len, .. }) = self.regions.get(step).cloned() else { return };
        let in_use = self.in_use();
        let pieces = match self.survey(Survey::Mapped { pid, address, len, in_use }) {
            Ok((_, found)) => found.pieces,
            Err(why) => return self.ledger.found.push(blind(step, step, why)),
        };
        for piece in pieces {
            let lies_here = |path: &&PathBuf| fs::metadata(path).is_ok_and(|meta| meta.dev() == piece.of.dev);
            let Some(folder) = self.stage.places.values().find(lies_here).cloned() else { continue };
            let (region, owner, access) = (step.to_owned(), actor.to_owned(), op.access.clone());
            self.ledger.pinned.push(Pinned { region, owner, access, folder, piece });
        }
    }

    /// Looks whether a region's blocks are, or can be, another file's by now, and what it reaches then.
    fn look(&mut self, after: &str, pinned: &Pinned, in_use: &[Inode]) -> Option<DamageFact> {
        let free = |path: &PathBuf| Inode::of(path).is_some_and(|of| !in_use.contains(&of));
        let paths: Vec<PathBuf> = self.files.values().map(|file| file.path.clone()).filter(free).collect();
        let (of, wanted) = (pinned.piece.of, pinned.piece.extents.clone());
        let looked = self.survey(Survey::Extents { of, paths: paths.clone() }).and_then(|(_, now)| {
            let owners = Survey::Owners { of, paths, wanted };
            self.survey(owners).map(|(_, owners)| (now, owners.taken))
        });
        let (now, owners) = match looked {
            Ok(looked) => looked,
            Err(why) => return Some(blind(after, &pinned.region, why)),
        };
        let gone = lost(&pinned.piece.extents, &now.extents);
        if gone.is_empty() && owners.is_empty() {
            return None;
        }
        let lost_kib = gone.iter().map(|extent| extent.len).sum::<u64>() / KIB;
        let mut fact = DamageFact { lost_kib, ..blind(after, &pinned.region, String::new()) };
        let shown = match owners.is_empty() {
            true => self.show(pinned, gone, &mut fact),
            false => self.show_owned(pinned, owners, &mut fact),
        };
        if let Err(why) = shown {
            fact.trouble = why;
        }
        let _ = self.survey(Survey::Clear(pinned.folder.clone()));
        // An unlinked file that still has its blocks gives none of them to anybody: nothing happened.
        (now.there || fact.taken_kib > 0).then_some(fact)
    }

    /// What a region reaches of blocks that a new file is given.
    fn show(&mut self, pinned: &Pinned, gone: Vec<Extent>, fact: &mut DamageFact) -> Result<(), String> {
        let (_, found) = self.survey(Survey::Take { folder: pinned.folder.clone(), wanted: gone })?;
        let Taken { file, offset, of } = largest(found.taken, fact)?;
        // What the region does not allow ends in an error that the queue pair does not survive.
        if !pinned.may(Access::REMOTE_READ) && !pinned.may(Access::REMOTE_WRITE) {
            return Err("the region allows neither remote reads nor remote writes".to_owned());
        }
        let (len, at) = (of.len.min(SHOWN), pinned.in_region(of.logical));
        let write = Survey::Write { file: file.clone(), offset, len, seed: OWN, at };
        self.survey(write)?;
        let peer = self.peer_of(&pinned.owner)?;
        let read = pinned.may(Access::REMOTE_READ);
        let read = read.then(|| self.transfer(&peer, pinned, (at, len), Through::Read(OWN)));
        let read = read.transpose()?.flatten();
        // After an error of the read the queue pair flushes a write, which shows nothing.
        let write = pinned.may(Access::REMOTE_WRITE) && !matches!(read, Some(Outcome::Completion(_)));
        let write = write.then(|| self.transfer(&peer, pinned, (at, len), Through::Write(FOREIGN)));
        let write = write.transpose()?.flatten();
        let compare = Survey::Compare { file: file.clone(), offset, len, seed: OWN, at };
        let (bytes, _) = self.survey(compare)?;
        let file = file.display().to_string();
        fact.victim = Some(Victim { file, offset, region_offset: at, read, write, bytes });
        Ok(())
    }

    /// What a region reaches of blocks that another declared file owns, by itself or as well (after a clone,
    /// an exchange). What is in it is not known, and to write it would give it other blocks: so the device
    /// writes first, and the file is compared with that before and afterwards.
    fn show_owned(&mut self, pinned: &Pinned, owners: Vec<Taken>, fact: &mut DamageFact) -> Result<(), String> {
        let Taken { file, offset, of } = largest(owners, fact)?;
        if !pinned.may(Access::REMOTE_WRITE) {
            return Err(format!(
                "{} owns them as well, and the region allows no remote writes",
                file.display()
            ));
        }
        let (len, at) = (of.len.min(SHOWN), pinned.in_region(of.logical));
        let foreign = Survey::Compare { file: file.clone(), offset, len, seed: FOREIGN, at };
        let (before, _) = self.survey(foreign.clone())?;
        let peer = self.peer_of(&pinned.owner)?;
        let write = self.transfer(&peer, pinned, (at, len), Through::Write(FOREIGN))?;
        let write = write.ok_or("the region ended while it was looked at")?;
        let (after, _) = self.survey(foreign)?;
        let read = pinned.may(Access::REMOTE_READ) && !matches!(write, Outcome::Completion(_));
        let read = read.then(|| self.transfer(&peer, pinned, (at, len), Through::Read(FOREIGN)));
        let read = read.transpose()?.flatten();
        // It is the file's by now what the device wrote: what was there is no more.
        let bytes = match (before, after) {
            (Outcome::Differs { at, want, got }, Outcome::Returned(_)) => {
                Outcome::Differs { at, want: got, got: want }
            }
            (Outcome::Returned(_), _) => return Err("the file held what the device was to write".to_owned()),
            (_, Outcome::Differs { .. }) => Outcome::Returned(0),
            (_, other) => other,
        };
        let read = read.filter(|_| matches!(bytes, Outcome::Differs { .. }));
        let file = file.display().to_string();
        fact.victim = Some(Victim { file, offset, region_offset: at, read, write: Some(write), bytes });
        Ok(())
    }

    /// An actor that is connected with the region's owner and not in a step.
    fn peer_of(&mut self, owner: &str) -> Result<String, String> {
        let peers: Vec<String> =
            self.ledger.pairs.iter().filter(|(_, to)| to == owner).map(|(from, _)| from.clone()).collect();
        let idle = peers.into_iter().find(|peer| self.absent(peer).is_none());
        idle.ok_or_else(|| "no idle actor is connected with the region's owner".to_owned())
    }

    /// What a transfer through a region came to; nothing where the region has ended meanwhile, which refuses nothing:
    /// one that ends takes iWARP's connection along, and the requester cannot tell that from a refusal.
    fn transfer(
        &mut self,
        peer: &str,
        pinned: &Pinned,
        (at, len): (u64, u64),
        what: Through,
    ) -> Result<Option<Outcome>, String> {
        let mr = Handle::try_from(format!("${}", pinned.region))?;
        let (at_kib, len_kib) = (at / KIB, len / KIB);
        let op = match what {
            Through::Read(pattern) => Op::RdmaRead(RdmaRead { mr, at_kib, len_kib, pattern }),
            Through::Write(pattern) => Op::RdmaWrite(RdmaWrite { mr, at_kib, len_kib, pattern }),
        };
        let tag = format!("{} / damage", pinned.region);
        let aid = Aid { region: self.regions.get(&pinned.region).cloned(), ..Aid::default() };
        let outcome = self.ask(peer, &Call::Do { tag: tag.clone(), op, aid }, &tag, TIMEOUT)?.outcome;
        let ended = matches!(outcome, Outcome::Completion(_)) && !self.may_live(&pinned.region);
        Ok((!ended).then_some(outcome))
    }

    fn survey(&mut self, what: Survey) -> Result<(Outcome, Found), String> {
        if !self.cast.players.contains_key(SURVEYOR) {
            let part = Part {
                name: SURVEYOR.to_owned(),
                setup: holdfast_protocol::ActorSetup::default(),
                files: BTreeMap::new(),
                places: BTreeMap::new(),
                programs: Vec::new(),
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

/// A transfer through a region, of a pattern.
#[derive(Clone, Copy)]
enum Through {
    Read(u8),
    Write(u8),
}

/// The largest part that another file has; how much all of them are is noted.
fn largest(taken: Vec<Taken>, fact: &mut DamageFact) -> Result<Taken, String> {
    fact.taken_kib = taken.iter().map(|taken| taken.of.len).sum::<u64>() / KIB;
    let largest = taken.into_iter().max_by_key(|taken| taken.of.len);
    largest.ok_or_else(|| "no new file was given any of the blocks".to_owned())
}

/// A look that showed nothing, and why.
fn blind(after: &str, region: &str, trouble: String) -> DamageFact {
    let (after, region) = (after.to_owned(), region.to_owned());
    DamageFact { after, region, lost_kib: 0, taken_kib: 0, victim: None, trouble }
}

/// Changes nothing about which file has which blocks. All else may.
fn is_harmless(op: &Op) -> bool {
    match op {
        Op::Open(op) => !op.flags.contains(&OpenFlag::O_TRUNC),
        Op::Mmap(op) => op.over.is_none(),
        Op::Fallocate(op) => op.mode == [FallocateMode::KEEP_SIZE],
        Op::Dup(_) | Op::Memfd(_) | Op::Mprotect(_) | Op::Load(_) => true,
        Op::Compare(_) | Op::Size(_) | Op::Read(_) | Op::Fiemap(_) | Op::Statx(_) => true,
        Op::Fsync(_) | Op::Fdatasync(_) | Op::Sync(_) | Op::Syncfs(_) => true,
        Op::SetLease(_) | Op::GetLease(_) | Op::SetOwn(_) | Op::SetOwnEx(_) | Op::GetOwn(_) => true,
        Op::SetSig(_) | Op::GetSig(_) | Op::Received(_) => true,
        Op::SetGroup(_) | Op::Setuid(_) | Op::DropCaps(_) | Op::Rlimit(_) => true,
        Op::SendFd(_) | Op::ReceiveFd(_) | Op::Fork(_) => true,
        Op::RegMr(_) | Op::DeregMr(_) | Op::Connect(_) | Op::UverbsFd(_) | Op::RdmaOpen(_) => true,
        Op::RdmaWrite(_) | Op::RdmaRead(_) | Op::RdmaSend(_) | Op::RdmaReceive(_) => true,
        Op::AsyncEvent(_) | Op::GupPin(_) | Op::GupRead(_) | Op::GupUnpin(_) => true,
        Op::Pipe(_) | Op::Vmsplice(_) | Op::Uring(_) | Op::UringRegister(_) | Op::UringUnregister(_) => true,
        Op::Locks(_) | Op::Fds(_) | Op::Maps(_) | Op::FilePins(_) | Op::Mrs(_) => true,
        Op::Vmstat(_) | Op::ReadFile(_) | Op::Dmesg(_) => true,
        _ => false,
    }
}

/// May end the last reference to a file: a descriptor, a mapping, a process, a mount.
fn lets_go(op: &Op) -> bool {
    let ends = matches!(op, Op::Close(_) | Op::Dup2(_) | Op::Dup3(_) | Op::Munmap(_) | Op::Mmap(_));
    ends || matches!(
        op,
        Op::Exit(_) | Op::Kill(_) | Op::Wait(_) | Op::Execve(_) | Op::Umount(_) | Op::ClosePipe(_)
    )
}
