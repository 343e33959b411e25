// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of files lie, and files that are given the blocks of others: what the session needs a
//! process for when it looks for damage.
//!
//! A freed block is another file's only after the journal's commit (ext4) or the log's force (XFS), so the
//! file system is synced first; then new files take all free space, and FIEMAP says which of them got what.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_protocol::{Outcome, pattern_byte};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use crate::ops::blocks::{FIEMAP_SYNC, FS_IOC_FIEMAP};
use crate::ops::{differs, pattern};
use crate::sys::ioctl_bytes;

/// A run of blocks: where it is in its file and on the device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) logical: u64,
    pub(crate) physical: u64,
    pub(crate) len: u64,
}

/// What a surveyor is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Survey {
    /// Which parts of which files a range of a process's memory maps, and where their blocks are.
    /// A file in use, in a call that may hold its locks, is passed over.
    Mapped { pid: i32, address: u64, len: u64, in_use: Vec<Inode> },
    /// The extents of a file, by whichever of these paths it has; nothing when it has none of them.
    Extents { of: Inode, paths: Vec<PathBuf> },
    /// The parts of other files that lie where `wanted` says.
    Owners { of: Inode, paths: Vec<PathBuf>, wanted: Vec<Extent> },
    /// Give new files of this folder all free blocks; the parts of them that lie where `wanted` says.
    Take { folder: PathBuf, wanted: Vec<Extent> },
    /// Write a pattern, whose offsets begin at `at`, into a file, and sync it.
    Write { file: PathBuf, offset: u64, len: u64, seed: u8, at: u64 },
    /// Compare.
    Compare { file: PathBuf, offset: u64, len: u64, seed: u8, at: u64 },
    /// Remove the files that [`Survey::Take`] made.
    Clear(PathBuf),
}

/// A file, whatever its name: the device number of its file system, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Inode {
    /// The file that has a path.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self { dev: meta.dev(), ino: meta.ino() })
    }
}

/// A part of a file that is mapped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) of: Inode,
    /// Where it begins in the range that was asked about.
    pub(crate) range_at: u64,
    /// Where it begins in the file.
    pub(crate) file_at: u64,
    /// Its blocks.
    pub(crate) extents: Vec<Extent>,
}

/// A part of a new file that lies where blocks of another file were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) file: PathBuf,
    /// Where it is in the new file.
    pub(crate) offset: u64,
    /// Where it was in the old one, which is its `logical`.
    pub(crate) of: Extent,
}

/// What a surveyor found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) there: bool,
    pub(crate) extents: Vec<Extent>,
    pub(crate) taken: Vec<Taken>,
    pub(crate) pieces: Vec<Piece>,
}

/// Name of the new files, with a number behind.
const VICTIM: &str = "holdfast-victim-";
/// More files than this are not needed to fill the largest file system of a case.
const MOST_VICTIMS: u32 = 64;
/// The first try; halved when there is not as much.
const LARGEST: u64 = 256 << 20;
/// Less is not worth a file.
const SMALLEST: u64 = 4096;

/// Does what is asked.
pub(crate) fn survey(what: Survey) -> (Outcome, Found) {
    let result = match what {
        Survey::Mapped { pid, address, len, in_use } => mapped(pid, address, len, &in_use),
        Survey::Extents { of, paths } => extents_of(of, &paths),
        Survey::Owners { of, paths, wanted } => owners(of, &paths, &wanted),
        Survey::Take { folder, wanted } => take(&folder, &wanted),
        Survey::Write { file, offset, len, seed, at } => write(&file, offset, len, seed, at),
        Survey::Compare { file, offset, len, seed, at } => {
            return (compare(&file, offset, len, seed, at), Found::default());
        }
        Survey::Clear(folder) => clear(&folder),
    };
    match result {
        Ok(found) => (Outcome::Returned(0), found),
        Err(error) => (Outcome::Errno(error.raw_os_error().unwrap_or(libc::EIO)), Found::default()),
    }
}

/// Which file a path is, if it is one.
fn opened(path: &Path) -> std::io::Result<Option<(Inode, File)>> {
    match File::open(path) {
        Ok(file) => {
            let meta = file.metadata()?;
            Ok(Some((Inode { dev: meta.dev(), ino: meta.ino() }, file)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn extents_of(of: Inode, paths: &[PathBuf]) -> std::io::Result<Found> {
    for path in paths {
        if let Some((_, file)) = opened(path)?.filter(|(inode, _)| *inode == of) {
            return Ok(Found { there: true, extents: fiemap(file.as_fd())?, ..Found::default() });
        }
    }
    Ok(Found::default())
}

fn owners(of: Inode, paths: &[PathBuf], wanted: &[Extent]) -> std::io::Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let other = |(inode, _): &(Inode, File)| *inode != of && inode.dev == of.dev;
        let Some((_, file)) = opened(path)?.filter(other) else { continue };
        for extent in fiemap(file.as_fd())? {
            found.taken.extend(wanted.iter().filter_map(|wanted| overlap(path, extent, *wanted)));
        }
    }
    Ok(found)
}

/// A file that has no blocks of its own (tmpfs, device DAX) is no piece.
fn mapped(pid: i32, address: u64, len: u64, in_use: &[Inode]) -> std::io::Result<Found> {
    let mut found = Found::default();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    for area in maps.lines().filter_map(Area::parse) {
        let (begin, end) = (area.begin.max(address), area.end.min(address + len));
        if begin >= end || area.of.ino == 0 || in_use.contains(&area.of) {
            continue;
        }
        // By the mapping itself: the file may have no name any more.
        let file = File::open(format!("/proc/{pid}/map_files/{:x}-{:x}", area.begin, area.end))?;
        let file_at = area.offset + (begin - area.begin);
        let extents = match fiemap(file.as_fd()) {
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => continue,
            other => within(&other?, file_at, end - begin),
        };
        found.pieces.push(Piece { of: area.of, range_at: begin - address, file_at, extents });
    }
    Ok(found)
}

/// A line of `/proc/PID/maps` (fs/proc/task_mmu.c show_map_vma()).
#[derive(Debug, PartialEq, Eq)]
struct Area {
    begin: u64,
    end: u64,
    /// Where it begins in its file.
    offset: u64,
    of: Inode,
}

impl Area {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (begin, end) = fields.next()?.split_once('-')?;
        let offset = fields.nth(1)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let dev = libc::makedev(number(major)?, number(minor)?);
        let of = Inode { dev, ino: fields.next()?.parse().ok()? };
        Some(Self { begin: hex(begin)?, end: hex(end)?, offset: hex(offset)?, of })
    }
}

/// All extents of a file, in its order (struct fiemap and fiemap_extent of linux/fiemap.h).
fn fiemap(file: BorrowedFd<'_>) -> Result<Vec<Extent>, Errno> {
    let mut all: Vec<Extent> = Vec::new();
    let mut start = 0u64;
    loop {
        let mut request = [start, u64::MAX - start].map(u64::to_ne_bytes).concat();
        request.extend([FIEMAP_SYNC, 0, BATCH, 0].map(u32::to_ne_bytes).concat());
        request.resize(HEADER_BYTES + BATCH as usize * EXTENT_BYTES, 0);
        ioctl_bytes(file, FS_IOC_FIEMAP, &mut request)?;
        let mapped = u32::from_ne_bytes(std::array::from_fn(|nr| request[20 + nr])).min(BATCH) as usize;
        let found = request[HEADER_BYTES..].chunks(EXTENT_BYTES).take(mapped).map(|raw| {
            let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nr| raw[8 * at + nr]));
            Extent { logical: word(0), physical: word(1), len: word(2) }
        });
        all.extend(found);
        match all.last() {
            Some(_) if all.len() > MOST_EXTENTS => return Err(Errno::EOVERFLOW),
            Some(last) if mapped == BATCH as usize => start = last.logical + last.len,
            _ => return Ok(all),
        }
    }
}

/// Of struct fiemap without its extents, and of one of those.
const HEADER_BYTES: usize = 32;
const EXTENT_BYTES: usize = 56;
/// Extents asked for at once.
const BATCH: u32 = 64;
/// A file of a few hundred MiB in single blocks has more; nobody's does.
const MOST_EXTENTS: usize = 100_000;

fn take(folder: &Path, wanted: &[Extent]) -> std::io::Result<Found> {
    syncfs(File::open(folder)?)?;
    let mut size = LARGEST;
    let mut taken = Vec::new();
    for nr in 0..MOST_VICTIMS {
        let path = folder.join(format!("{VICTIM}{nr}"));
        let file = match OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path) {
            // Not even an inode is left.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
            other => other?,
        };
        while size >= SMALLEST && fallocate(&file, FallocateFlags::empty(), 0, size.cast_signed()).is_err() {
            size /= 2;
        }
        // Also of one that was refused: ext4 keeps what it found before it ran out.
        for extent in fiemap(file.as_fd())? {
            taken.extend(wanted.iter().filter_map(|wanted| overlap(&path, extent, *wanted)));
        }
        if size < SMALLEST {
            break;
        }
    }
    Ok(Found { there: true, taken, ..Found::default() })
}

/// The part of a new file's extent that lies on the wanted one.
fn overlap(path: &Path, new: Extent, wanted: Extent) -> Option<Taken> {
    let begin = new.physical.max(wanted.physical);
    let end = (new.physical + new.len).min(wanted.physical + wanted.len);
    (begin < end).then(|| Taken {
        file: path.to_owned(),
        offset: new.logical + (begin - new.physical),
        of: Extent { logical: wanted.logical + (begin - wanted.physical), physical: begin, len: end - begin },
    })
}

fn write(path: &Path, offset: u64, len: u64, seed: u8, at: u64) -> std::io::Result<Found> {
    let file = OpenOptions::new().write(true).open(path)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    file.write_all_at(&pattern(seed, at, len), offset)?;
    file.sync_all()?;
    Ok(Found::default())
}

fn compare(path: &Path, offset: u64, len: u64, seed: u8, at: u64) -> Outcome {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset));
    if let Err(error) = read {
        return Outcome::Errno(error.raw_os_error().unwrap_or(libc::ENODATA));
    }
    match (at..).zip(&bytes).find(|(at, got)| pattern_byte(seed, *at) != **got) {
        // The place is the victim's own.
        Some((where_, got)) => match differs(seed, where_, *got) {
            Outcome::Differs { want, got, .. } => Outcome::Differs { at: offset + (where_ - at), want, got },
            other => other,
        },
        None => Outcome::Returned(0),
    }
}

fn clear(folder: &Path) -> std::io::Result<Found> {
    for nr in 0..MOST_VICTIMS {
        match fs::remove_file(folder.join(format!("{VICTIM}{nr}"))) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            other => other?,
        }
    }
    syncfs(File::open(folder)?)?;
    Ok(Found::default())
}

/// What of `then` is not where it was any more.
pub(crate) fn lost(then: &[Extent], now: &[Extent]) -> Vec<Extent> {
    let mut lost = Vec::new();
    for old in then {
        let mut at = 0;
        while at < old.len {
            // Block by block: a region has a few hundred of them.
            let (logical, physical) = (old.logical + at, old.physical + at);
            let len = BLOCK.min(old.len - at);
            let kept = now.iter().any(|new| {
                (new.logical..new.logical + new.len).contains(&logical)
                    && new.physical + (logical - new.logical) == physical
            });
            if !kept {
                lost.push(Extent { logical, physical, len });
            }
            at += len;
        }
    }
    lost
}

/// Both file systems are made with blocks of this size.
const BLOCK: u64 = 4096;

/// The parts of a file's extents that lie within a range of it.
pub(crate) fn within(extents: &[Extent], at: u64, len: u64) -> Vec<Extent> {
    let cut = |extent: &Extent| {
        let begin = extent.logical.max(at);
        let end = (extent.logical + extent.len).min(at + len);
        (begin < end).then(|| Extent {
            logical: begin,
            physical: extent.physical + (begin - extent.logical),
            len: end - begin,
        })
    };
    extents.iter().filter_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn extent(logical: u64, physical: u64, len: u64) -> Extent {
        Extent { logical, physical, len }
    }

    #[test]
    fn a_line_of_maps_is_read() {
        let line = "7f0a3c400000-7f0a3c600000 rw-s 00001000 103:02 131 /mnt/ext4/data (deleted)";
        let of = Inode { dev: libc::makedev(0x103, 2), ino: 131 };
        let area = Area { begin: 0x7f0a_3c40_0000, end: 0x7f0a_3c60_0000, offset: 0x1000, of };
        assert_eq!(Area::parse(line), Some(area));
        let anonymous = Area::parse("7ffc0000-7ffc1000 rw-p 00000000 00:00 0 [stack]").unwrap();
        assert_eq!(anonymous.of.ino, 0);
        assert_eq!(Area::parse("VmSize: 12 kB"), None);
    }

    #[test]
    fn what_moved_or_went_is_lost() {
        let then = [extent(0, 8 * BLOCK, 4 * BLOCK)];
        assert_eq!(lost(&then, &then), []);
        assert_eq!(lost(&then, &[]).len(), 4);
        // The same blocks in another order of the file are not where they were.
        assert_eq!(lost(&then, &[extent(0, 9 * BLOCK, 4 * BLOCK)]).len(), 4);
        // Extents that were split, or grew, keep what they have.
        let split = [extent(0, 8 * BLOCK, BLOCK), extent(BLOCK, 9 * BLOCK, 9 * BLOCK)];
        assert_eq!(lost(&then, &split), []);
        assert_eq!(lost(&then, &[extent(0, 8 * BLOCK, 3 * BLOCK)]), [extent(3 * BLOCK, 11 * BLOCK, BLOCK)]);
    }

    #[test]
    fn a_range_cuts_extents() {
        let extents = [extent(0, 100 * BLOCK, 2 * BLOCK), extent(2 * BLOCK, 7 * BLOCK, 2 * BLOCK)];
        assert_eq!(
            within(&extents, BLOCK, 2 * BLOCK),
            [extent(BLOCK, 101 * BLOCK, BLOCK), extent(2 * BLOCK, 7 * BLOCK, BLOCK)]
        );
        assert_eq!(within(&extents, 9 * BLOCK, BLOCK), []);
    }

    #[test]
    fn an_overlap_names_both_places() {
        let taken =
            overlap(Path::new("v"), extent(0, 10 * BLOCK, 4 * BLOCK), extent(5 * BLOCK, 12 * BLOCK, BLOCK));
        let taken = taken.unwrap();
        assert_eq!((taken.offset, taken.of), (2 * BLOCK, extent(5 * BLOCK, 12 * BLOCK, BLOCK)));
        assert!(overlap(Path::new("v"), extent(0, 10 * BLOCK, BLOCK), extent(0, 11 * BLOCK, BLOCK)).is_none());
    }
}
