// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on declared files and descriptors.

use super::{CutHow, FallocateMode, Handle, OpenFlag, Place, StatxField, arguments};

arguments! {
    /// open(2) of a declared file. Its result is a descriptor, its value the descriptor's number.
    Open {
        /// The declared file.
        file: String,
        /// Access mode and flags; O_CLOEXEC is not implied.
        flags: Vec<OpenFlag>,
        /// More flags, by number.
        #[serde(default, skip_serializing_if = "super::is_default")]
        extra: i32,
    }

    /// close(2).
    Close {
        /// The descriptor.
        fd: Handle,
    }

    /// dup(2). Its result is a descriptor, its value the number.
    Dup {
        /// The descriptor.
        fd: Handle,
    }

    /// dup2(2) onto the number of another handle, open or closed, which from then on names what `fd` names.
    /// Its value is the number.
    Dup2 {
        /// The descriptor.
        fd: Handle,
        /// The one that is replaced.
        onto: Handle,
    }

    /// dup3(2): [`Dup2`] with O_CLOEXEC.
    Dup3 {
        /// The descriptor.
        fd: Handle,
        /// The one that is replaced.
        onto: Handle,
    }

    /// ftruncate(2), or truncate(2) when the file is named.
    Truncate {
        /// The declared file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Or a descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// The new size.
        size_kib: u64,
    }

    /// fallocate(2), on a named file through a descriptor of the call's own, whose open(2) for writing breaks
    /// a read lease by itself.
    Fallocate {
        /// The declared file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Or a descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// FALLOC_FL_* flags; none means preallocation.
        #[serde(default)]
        mode: Vec<FallocateMode>,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
    }

    /// Takes blocks away from a file, or moves them: truncate(2) to `at_kib`, or fallocate(2) of the range.
    /// One name so that a matrix can vary the call.
    Cut {
        /// The declared file.
        file: String,
        /// Which call.
        how: CutHow,
        /// Start of the range; the new size when truncating.
        at_kib: u64,
        /// Length of the range; truncate ignores it.
        len_kib: u64,
    }

    /// Compares a range with a pattern: `ok`, or where it differs. Of a file by read(2) (device
    /// DAX, which cannot be read, is mapped), of a mapping by loading from it. ENODATA when the file
    /// ends within the range and everything before agrees.
    Compare {
        /// A declared file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Or a mapping of this actor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<Handle>,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// stat(2): the size in bytes is the value.
    Size {
        /// The declared file.
        file: String,
    }

    /// read(2) or, at an offset, pread(2): the number of bytes is the value. They are compared with a
    /// pattern if there is one, by their offsets in the file. The buffer suits O_DIRECT.
    Read {
        /// The descriptor.
        fd: Handle,
        /// The offset; absent for the file position, which it moves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_kib: Option<u64>,
        /// How much, at most 16 MiB.
        len_kib: u64,
        /// The pattern's seed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<u8>,
    }

    /// write(2) or, at an offset, pwrite(2) of a pattern: the number of bytes is the value. The buffer suits
    /// O_DIRECT.
    Write {
        /// The descriptor.
        fd: Handle,
        /// The offset; absent for the file position, which it moves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_kib: Option<u64>,
        /// How much, at most 16 MiB.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// fsync(2).
    Fsync {
        /// The descriptor.
        fd: Handle,
    }

    /// fdatasync(2).
    Fdatasync {
        /// The descriptor.
        fd: Handle,
    }

    /// sync(2).
    Sync {}

    /// syncfs(2).
    Syncfs {
        /// A descriptor in the file system.
        fd: Handle,
    }

    /// unlink(2).
    Unlink {
        /// The declared file.
        file: String,
    }

    /// rename(2).
    Rename {
        /// The declared file.
        file: String,
        /// Another declared file, whose name it takes.
        to: String,
    }

    /// link(2).
    Link {
        /// The declared file.
        file: String,
        /// A declared file that is absent: its other name.
        to: String,
    }

    /// FICLONERANGE (ioctl_ficlonerange(2)), through descriptors of the call's own.
    Clone {
        /// The declared file whose blocks are shared.
        file: String,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range; 0 goes on to the end.
        len_kib: u64,
        /// The declared file that gets them.
        to: String,
        /// Start of the range there.
        to_at_kib: u64,
    }

    /// FIDEDUPERANGE (ioctl_fideduperange(2)), through descriptors of the call's own. The number of bytes is
    /// the value; `differs` when the ranges do.
    Dedupe {
        /// The declared file whose blocks are shared.
        file: String,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// The declared file that gets them.
        to: String,
        /// Start of the range there.
        to_at_kib: u64,
    }

    /// XFS_IOC_EXCHANGE_RANGE (fs/xfs/libxfs/xfs_fs.h), through descriptors of the call's own.
    ExchangeRange {
        /// The declared file.
        file: String,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// The declared file that it changes blocks with.
        to: String,
        /// Start of the range there.
        to_at_kib: u64,
    }

    /// XFS_IOC_SWAPEXT (fs/xfs/libxfs/xfs_fs.h): two files of one size change all their blocks, through
    /// descriptors of the call's own.
    SwapExtents {
        /// The declared file.
        file: String,
        /// The declared file that it changes blocks with.
        to: String,
    }

    /// FS_IOC_FIEMAP of a range, with FIEMAP_FLAG_SYNC: the number of extents is the value.
    Fiemap {
        /// The declared file.
        file: String,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
    }

    /// statx(2): one field is the value.
    Statx {
        /// The declared file.
        file: String,
        /// Which field.
        field: StatxField,
    }

    /// Makes a file of a declared name, written with a pattern and synced. EEXIST when it is there.
    Fill {
        /// The declared file, absent before.
        file: String,
        /// Its size.
        size_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// Makes a file of a declared name and writes to it until the file system is full, then syncs it. Its
    /// size in bytes is the value.
    FillFree {
        /// The declared file, absent before.
        file: String,
        /// The pattern's seed.
        pattern: u8,
    }

    /// mount(2) of a file system that was unmounted before, where it was.
    Mount {
        /// Where it is; device DAX has no file system.
        on: Place,
        /// Options of the file system, `dax=always` for example.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        options: String,
    }

    /// mount(2) of a file system with MS_REMOUNT.
    Remount {
        /// Where it is; device DAX has no file system.
        on: Place,
        /// Options of the file system.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        options: String,
    }

    /// umount2(2) of a file system.
    Umount {
        /// Where it is; device DAX has no file system.
        on: Place,
    }
}
