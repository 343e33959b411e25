// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the file systems of the NVDIMMs are made: by the host ahead, and by a guest whose NVDIMMs are empty.

use crate::Place;

/// Alignment of the fsdax namespaces, in bytes: lets the file systems use PMD mappings.
pub const FSDAX_ALIGN: u64 = 2 << 20;

/// Where the data of such a namespace begins within its NVDIMM, in bytes, its page structures being in memory: an info
/// block of 8 KiB stands before it (drivers/nvdimm/pfn_devs.c nd_pfn_init()).
pub const FSDAX_DATA_AT: u64 = FSDAX_ALIGN;

/// Small inode tables and a small journal, everything initialised here: no background thread
/// writes later, while a scenario runs.
const MKFS_EXT4: [&str; 12] = [
    "-F",
    "-q",
    "-b",
    "4096",
    "-N",
    "1024",
    "-m",
    "0",
    "-J",
    "size=4",
    "-E",
    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
];

/// No discard, sectors as an NVDIMM has them, few allocation groups, and a small log: mkfs zeroes all of it, and the
/// least that mkfs calls supported is 64 MiB, which costs an emulated machine 0.2 s and the host as much memory.
const MKFS_XFS: [&str; 10] =
    ["--unsupported", "-f", "-q", "-K", "-s", "size=4096", "-d", "agcount=2", "-l", "size=16m"];

/// The program that makes the file system of a place, and its arguments before the device or file.
#[must_use]
pub const fn mkfs(place: Place) -> Option<(&'static str, &'static [&'static str])> {
    match place {
        Place::Ext4 => Some(("mkfs.ext4", &MKFS_EXT4)),
        Place::Xfs => Some(("mkfs.xfs", &MKFS_XFS)),
        Place::Devdax => None,
    }
}
