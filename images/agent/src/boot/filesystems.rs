// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two file systems: made where the host has not, mounted with DAX, and damaged for the oracle's own test. The
//! host checks them, on the NVDIMMs' images.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_protocol::{Place, mkfs};
use nix::mount::{MsFlags, mount as mount_call};

use super::{place_name, timed};

/// Where images put it.
const SBIN: &str = "/sbin";

/// Makes the file system unless there is one, mounts it with `dax=always`.
pub(crate) fn mount(place: Place, node: &Path, is_there: bool) -> Result<PathBuf, String> {
    if !is_there {
        timed(&format!("mkfs of {place:?}"), || make(place, node))?;
    }
    let folder = PathBuf::from(format!("/mnt/{}", place_name(place)));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    mount_call(Some(node), &folder, Some(place_name(place)), MsFlags::empty(), Some(options(place))).map_err(
        |errno| format!("mounting {} on {} with dax=always: {errno}", node.display(), folder.display()),
    )?;
    warm_up(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// ext4 would otherwise have a thread read all bitmaps, at a random time within five seconds of the mount
/// (fs/ext4/super.c ext4_register_li_request()): in the midst of a case, and in each copy of a saved machine.
fn options(place: Place) -> &'static str {
    match place {
        Place::Ext4 => "dax=always,no_prefetch_block_bitmaps",
        Place::Xfs | Place::Devdax => "dax=always",
    }
}

/// Makes, syncs and removes a file, so that the bitmaps and inodes that the first file needs are in memory
/// already, and nothing that mounting has dirtied is left to be written: neither while a scenario runs, nor
/// anew in every copy of a saved machine.
fn warm_up(folder: &Path) -> io::Result<()> {
    let path = folder.join("warm-up");
    let mut file = File::create(&path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    drop(file);
    fs::remove_file(&path)?;
    Ok(nix::unistd::syncfs(File::open(folder)?)?)
}

/// Whether the device already holds this file system, by its magic number.
pub(crate) fn holds(place: Place, node: &Path) -> bool {
    let (offset, magic): (u64, &[u8]) = match place {
        Place::Ext4 => (1024 + 0x38, &[0x53, 0xef]),
        Place::Xfs => (0, b"XFSB"),
        Place::Devdax => return true,
    };
    let mut found = vec![0u8; magic.len()];
    File::open(node).and_then(|file| file.read_exact_at(&mut found, offset)).is_ok() && found == magic
}

fn make(place: Place, node: &Path) -> Result<(), String> {
    let Some((program, arguments)) = mkfs(place) else { return Ok(()) };
    let output = Command::new(Path::new(SBIN).join(program))
        .args(arguments)
        .arg(node)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// Changes one byte of an unmounted file system's metadata that its checker looks at: of the first
/// group's count of free blocks. Afterwards it is on the NVDIMM, where the host looks for it.
///
/// # Errors
/// What reading or writing the device said.
pub(crate) fn corrupt(place: Place, device: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(device)?;
    let offset = match place {
        Place::Ext4 => ext4_free_blocks(&file)?,
        Place::Xfs | Place::Devdax => xfs_free_blocks(&file)?,
    };
    let mut byte = [0u8];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x55], offset)?;
    file.sync_all()
}

/// Offset of `bg_free_blocks_count_lo` of the first group's descriptor, which stands in the block
/// behind the superblock's (fs/ext4/ext4.h: struct ext4_super_block, ext4_group_desc).
fn ext4_free_blocks(file: &impl FileExt) -> io::Result<u64> {
    let mut log_size = [0u8; 4];
    file.read_exact_at(&mut log_size, 1024 + 0x18)?;
    let block_size = 1024u64 << u32::from_le_bytes(log_size).min(6);
    Ok(block_size.max(2048) + 0xc)
}

/// Offset of the last byte of `agf_freeblks` in the first allocation group: the AGF is the second
/// sector (fs/xfs/libxfs/xfs_format.h: struct xfs_dsb, xfs_agf).
fn xfs_free_blocks(file: &impl FileExt) -> io::Result<u64> {
    let mut sector = [0u8; 2];
    file.read_exact_at(&mut sector, 102)?;
    Ok(u64::from(u16::from_be_bytes(sector)) + 55)
}
