// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backing files of NVDIMMs (and of a saved machine's memory): made with their file systems, mostly holes, copied and
//! compared by what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use holdfast_protocol::{Device, FSDAX_DATA_AT, mkfs};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use super::pmem_file;
use crate::image::find_tool;

/// What is found empty is given back in pieces of this size: a page of the guest.
const PIECE: usize = 4096;
const EMPTY: [u8; PIECE] = [0; PIECE];
/// How much is read at once.
const CHUNK: usize = 256 * PIECE;

/// What a file system is made in before it is put where the guest's kernel looks for it (no mkfs but that of ext4
/// takes an offset), and what it is put into before that has its name.
const MAKING: [&str; 2] = ["making-fs.img", "making.img"];

/// Makes the file of an NVDIMM unless it is there, with its file system in it: a hundredth of a second here, half
/// a second each under emulation. A guest that finds none where its namespace begins makes one itself.
pub(super) fn make(folder: &Path, device: &Device) -> Result<()> {
    let path = folder.join(pmem_file(device.place));
    if path.exists() {
        return Ok(());
    }
    let Some((tool, arguments)) = mkfs(device.place) else { return create(&path, device.size_mib) };
    let program = find_tool(tool).with_context(|| format!("{tool} is not on this machine"))?;
    let [made, whole] = MAKING.map(|name| folder.join(name));
    create(&made, device.size_mib - (FSDAX_DATA_AT >> 20))?;
    create(&whole, device.size_mib)?;
    let output = Command::new(&program)
        .args(arguments)
        .arg(MAKING[0])
        .current_dir(folder)
        // What it does by itself, as in the guest, which has no configuration of it.
        .env("MKE2FS_CONFIG", "none")
        .stdin(Stdio::null())
        // Ctrl-C is for Holdfast, which waits for a hundredth of a second.
        .process_group(0)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool}: {}: {}", output.status, said.trim());
    put(&made, &whole, FSDAX_DATA_AT)?;
    fs::remove_file(&made).with_context(|| format!("cannot remove {}", made.display()))?;
    fs::rename(&whole, &path).with_context(|| format!("cannot make {}", path.display()))
}

/// Makes a file of this size unless it is there; what nobody wrote takes no room.
pub(super) fn create(path: &Path, size_mib: u64) -> Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    file.and_then(|file| file.set_len(size_mib << 20))
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Copies a file from offset `at` on, without its holes; shares its blocks where the file system can
/// (copy_file_range(2)).
pub(crate) fn copy(from: &Path, at: u64, to: &Path) -> Result<()> {
    let whole = || -> std::io::Result<()> {
        let source = File::open(from)?;
        let len = source.metadata()?.len();
        let target = OpenOptions::new().create(true).truncate(true).write(true).open(to)?;
        target.set_len(len.saturating_sub(at))?;
        for (begin, end) in Data::of(&source, at, len) {
            copy_range(&source, &target, (begin, end), begin - at)?;
        }
        Ok(())
    };
    whole().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Puts what a file holds into another one, from offset `at` on.
fn put(from: &Path, to: &Path, at: u64) -> Result<()> {
    let whole = || -> std::io::Result<()> {
        let source = File::open(from)?;
        let len = source.metadata()?.len();
        let target = OpenOptions::new().write(true).open(to)?;
        for (begin, end) in Data::of(&source, 0, len) {
            copy_range(&source, &target, (begin, end), begin + at)?;
        }
        Ok(())
    };
    whole().with_context(|| format!("cannot put {} into {}", from.display(), to.display()))
}

fn copy_range(source: &File, target: &File, (begin, end): (u64, u64), to: u64) -> std::io::Result<()> {
    let (mut from, mut to) = (begin.cast_signed(), to.cast_signed());
    while from.cast_unsigned() < end {
        let left = usize::try_from(end - from.cast_unsigned()).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => {}
            // From one file system to another that cannot.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                return copy_by_hand(source, target, (from.cast_unsigned(), end), to.cast_unsigned());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    mut source: &File,
    mut target: &File,
    (begin, end): (u64, u64),
    to: u64,
) -> std::io::Result<()> {
    source.seek(SeekFrom::Start(begin))?;
    target.seek(SeekFrom::Start(to))?;
    let copied = std::io::copy(&mut source.take(end - begin), &mut target)?;
    if copied == end - begin { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// The parts of a file that are no holes, by lseek(2) SEEK_DATA.
struct Data<'a> {
    file: &'a File,
    at: u64,
    len: u64,
}

impl<'a> Data<'a> {
    fn of(file: &'a File, at: u64, len: u64) -> Self {
        Self { file, at, len }
    }
}

impl Iterator for Data<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.at >= self.len {
            return None;
        }
        let find = |at: u64, whence| lseek(self.file.as_fd(), at.cast_signed(), whence).map(i64::cast_unsigned);
        let begin = match find(self.at, Whence::SeekData) {
            Ok(begin) => begin,
            Err(Errno::ENXIO) => return None,
            // A file system that knows no holes.
            Err(_) => self.at,
        };
        let end = find(begin, Whence::SeekHole).unwrap_or(self.len).min(self.len);
        self.at = end.max(begin + 1);
        Some((begin, end))
    }
}

/// Reads every piece that is not empty, in order.
fn for_each_piece(path: &Path, mut visit: impl FnMut(&File, u64, &[u8]) -> std::io::Result<()>) -> Result<u64> {
    let mut walk = || -> std::io::Result<u64> {
        let file = OpenOptions::new().read(true).open(path)?;
        let len = file.metadata()?.len();
        let mut buffer = vec![0u8; CHUNK];
        for (begin, end) in Data::of(&file, 0, len) {
            let mut at = begin - begin % PIECE as u64;
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK);
                (&file).seek(SeekFrom::Start(at))?;
                (&file).read_exact(&mut buffer[..want])?;
                for (nr, piece) in buffer[..want].chunks(PIECE).enumerate() {
                    visit(&file, at + (nr * PIECE) as u64, piece)?;
                }
                at += want as u64;
            }
        }
        Ok(len)
    };
    walk().with_context(|| format!("cannot read {}", path.display()))
}

/// SHA-256 of a file's length and of what is in it, in hexadecimal digits. Holes and zeros are the same.
pub(super) fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let len = for_each_piece(path, |_, at, piece| {
        if piece != &EMPTY[..piece.len()] {
            hash.update(at.to_le_bytes());
            hash.update(piece);
        }
        Ok(())
    })?;
    hash.update(len.to_le_bytes());
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Gives back the room of pieces that hold zeros only, where the file system can.
pub(super) fn dig_holes(path: &Path) -> Result<()> {
    let writer =
        OpenOptions::new().write(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let mut run: Option<(u64, u64)> = None;
    let dig = |(begin, end): (u64, u64)| {
        // One that cannot has a larger file, nothing else.
        let _ = fallocate(&writer, mode, begin.cast_signed(), (end - begin).cast_signed());
    };
    for_each_piece(path, |_, at, piece| {
        let end = at + piece.len() as u64;
        match run {
            _ if piece != &EMPTY[..piece.len()] => {
                run.take().into_iter().for_each(dig);
            }
            Some((begin, last)) if last == at => run = Some((begin, end)),
            other => {
                other.into_iter().for_each(dig);
                run = Some((at, end));
            }
        }
        Ok(())
    })?;
    run.into_iter().for_each(dig);
    Ok(())
}

/// Bytes of disk a file takes.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use holdfast_protocol::Place;

    use super::*;

    /// A file of 1 MiB with data at some places, zeros at one.
    fn sparse(path: &Path) {
        let mut file = File::create(path).unwrap();
        file.set_len(1 << 20).unwrap();
        for (at, byte) in [(0u64, 1u8), (200 << 10, 2), (400 << 10, 0), (1020 << 10, 3)] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[byte; PIECE]).unwrap();
        }
    }

    #[test]
    fn a_copy_is_the_same_and_as_small() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        sparse(&a);
        copy(&a, 0, &b).unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        assert_eq!(digest(&a).unwrap(), digest(&b).unwrap());
        assert!(disk_bytes(&b) <= disk_bytes(&a));
        copy(&a, 200 << 10, &c).unwrap();
        assert_eq!(fs::read(&a).unwrap()[200 << 10..], fs::read(&c).unwrap());
        copy_by_hand(
            &File::open(&a).unwrap(),
            &OpenOptions::new().write(true).open(&b).unwrap(),
            (0, 1 << 20),
            0,
        )
        .unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    }

    #[test]
    fn a_file_system_is_made_where_the_namespace_begins_and_as_large() {
        let folder = tempfile::tempdir().unwrap();
        for device in crate::machine::default_pmem() {
            make(folder.path(), &device).unwrap();
            let bytes = fs::read(folder.path().join(pmem_file(device.place))).unwrap();
            assert_eq!(bytes.len() as u64, device.size_mib << 20);
            let at = |offset: usize, len: usize| &bytes[FSDAX_DATA_AT as usize + offset..][..len];
            let blocks = bytes.len() / 4096 - (FSDAX_DATA_AT / 4096) as usize;
            match device.place {
                // s_magic and s_blocks_count_lo of struct ext4_super_block.
                Place::Ext4 => {
                    assert_eq!(at(1024 + 0x38, 2), [0x53, 0xef]);
                    assert_eq!(at(1024 + 4, 4), (blocks as u32).to_le_bytes());
                }
                // sb_magicnum, sb_dblocks and sb_sectsize of struct xfs_dsb.
                Place::Xfs => {
                    assert_eq!(at(0, 4), b"XFSB");
                    assert_eq!(at(8, 8), (blocks as u64).to_be_bytes());
                    assert_eq!(at(102, 2), 4096u16.to_be_bytes());
                }
                Place::Devdax => assert!(bytes.iter().all(|byte| *byte == 0)),
            }
        }
        assert!(MAKING.iter().all(|name| !folder.path().join(name).exists()));
        // What is there stays, as after a power cut.
        let path = folder.path().join(pmem_file(Place::Xfs));
        fs::write(&path, "x").unwrap();
        make(folder.path(), &Device { place: Place::Xfs, size_mib: 320 }).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn digging_changes_no_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        sparse(&path);
        fs::write(folder.path().join("whole"), fs::read(&path).unwrap()).unwrap();
        let (bytes, before) = (fs::read(&path).unwrap(), digest(&path).unwrap());
        for path in [&path, &folder.path().join("whole")] {
            dig_holes(path).unwrap();
            assert_eq!(fs::read(path).unwrap(), bytes);
            assert_eq!(digest(path).unwrap(), before);
            assert!(disk_bytes(path) <= 3 * 4096 + 4096, "{}", disk_bytes(path));
        }
    }

    #[test]
    fn a_digest_sees_every_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        sparse(&path);
        let before = digest(&path).unwrap();
        let change = |at: u64, byte: u8| {
            let mut file = OpenOptions::new().write(true).open(&path).unwrap();
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[byte]).unwrap();
            digest(&path).unwrap()
        };
        assert_ne!(change(1, 9), before);
        assert_eq!(change(1, 1), before);
        assert_ne!(change(600 << 10, 1), before);
        assert_eq!(change(600 << 10, 0), before);
        OpenOptions::new().write(true).open(&path).unwrap().set_len((1 << 20) + 1).unwrap();
        assert_ne!(digest(&path).unwrap(), before);
        // What is moved is not the same.
        let other = folder.path().join("b");
        fs::write(&other, [[0; PIECE], [1; PIECE]].concat()).unwrap();
        let moved = digest(&other).unwrap();
        fs::write(&other, [[1; PIECE], [0; PIECE]].concat()).unwrap();
        assert_ne!(digest(&other).unwrap(), moved);
    }
}
