// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations: one thing an actor does, under its standard name.
//!
//! An `Op` is what stands behind `do:` in a scenario and what goes over the wire, the same value.

use serde::{Deserialize, Serialize};

/// One thing an actor does. Sizes and offsets are in KiB; patterns are seeds of [`pattern_byte`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// open(2) of a declared file. Its result is a descriptor.
    Open {
        /// The declared file.
        file: String,
        /// Access mode and flags; O_CLOEXEC is not implied.
        flags: Vec<OpenFlag>,
    },
    /// close(2).
    Close {
        /// The descriptor.
        fd: Handle,
    },
    /// mmap(2), PROT_READ and PROT_WRITE. Its result is a mapping. Every page is touched before
    /// the call counts as done, so that a later pin meets present pages.
    Mmap {
        /// The descriptor; absent with MAP_ANONYMOUS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// Offset in the file.
        #[serde(default)]
        at_kib: u64,
        /// Length of the mapping.
        len_kib: u64,
        /// MAP_SHARED and friends.
        flags: Vec<MapFlag>,
    },
    /// munmap(2) of a whole mapping.
    Munmap {
        /// The mapping.
        map: Handle,
    },
    /// ftruncate(2), or truncate(2) when the file is named.
    Truncate {
        /// The declared file, by its path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Or a descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// The new size.
        size_kib: u64,
    },
    /// fallocate(2) on a declared file, through a descriptor of the call's own.
    Fallocate {
        /// The declared file.
        file: String,
        /// FALLOC_FL_* flags; none means preallocation.
        #[serde(default)]
        mode: Vec<FallocateMode>,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
    },
    /// Takes blocks away from a file: truncate(2) to `at_kib`, or fallocate(2) of the range with
    /// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE. One name so that a matrix can vary the call.
    Cut {
        /// The declared file.
        file: String,
        /// Which call.
        how: CutHow,
        /// Start of the range; the new size when truncating.
        at_kib: u64,
        /// Length of the range; truncate ignores it.
        len_kib: u64,
    },
    /// Stores a pattern through a mapping, from user space.
    Store {
        /// The mapping.
        map: Handle,
        /// Offset in the mapping.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The seed.
        pattern: u8,
    },
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
        /// The seed.
        pattern: u8,
    },
    /// Size in bytes by stat(2), as the returned value.
    Size {
        /// The declared file.
        file: String,
    },
    /// ibv_reg_mr(3) of a whole mapping: a long-term pin. Its result is a memory region.
    RegMr {
        /// The mapping.
        map: Handle,
        /// IBV_ACCESS_* flags; none means local read only.
        #[serde(default)]
        access: Vec<Access>,
    },
    /// ibv_dereg_mr(3).
    DeregMr {
        /// The memory region.
        mr: Handle,
    },
    /// Connects a reliable queue pair (RC) of this actor with one of another actor.
    Connect {
        /// The other actor; it must not be inside a blocked call.
        to: String,
    },
    /// RDMA WRITE of a pattern into another actor's region, over the queue pair between the two.
    /// `ok` when the completion says IBV_WC_SUCCESS.
    RdmaWrite {
        /// The other actor's region.
        mr: Handle,
        /// Offset in the region.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The seed.
        pattern: u8,
    },
    /// RDMA READ from another actor's region, compared with a pattern.
    RdmaRead {
        /// The other actor's region.
        mr: Handle,
        /// Offset in the region.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The seed.
        pattern: u8,
    },
    /// A long-term pin without RDMA: PIN_LONGTERM_TEST_START of debugfs `gup_test`
    /// (mm/gup_test.c). One pin set exists in the whole system.
    GupPin {
        /// The mapping.
        map: Handle,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// Pins for writing (PIN_LONGTERM_TEST_FLAG_USE_WRITE).
        write: bool,
    },
    /// PIN_LONGTERM_TEST_READ: copies out of the pinned pages and compares with a pattern.
    GupRead {
        /// Offset in the pinned range.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The seed.
        pattern: u8,
    },
    /// PIN_LONGTERM_TEST_STOP.
    GupUnpin {},
    /// pipe2(2). Its result is a pipe, both ends in this actor.
    Pipe {},
    /// vmsplice(2) of one page of a mapping into a pipe: a page reference that is no long-term pin.
    Vmsplice {
        /// The mapping.
        map: Handle,
        /// The pipe.
        pipe: Handle,
        /// Offset in the mapping of the page to hold.
        at_kib: u64,
    },
    /// Closes both ends of a pipe, which lets go of the pages in it.
    ClosePipe {
        /// The pipe.
        pipe: Handle,
    },
    /// kill(2) of another actor's process.
    Kill {
        /// The actor.
        actor: String,
        /// Standard name, `SIGRTMIN+1` included.
        signal: String,
    },
    /// _exit(2) of this actor.
    Exit {
        /// The status.
        #[serde(default)]
        code: u8,
    },
    /// Breaks what a standing oracle watches. For the oracles' own tests.
    Violate {
        /// What to break.
        what: Violation,
    },
}

/// A result of an earlier step, written `$id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handle(String);

impl Handle {
    /// The id of the step whose result this is, without the `$`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Handle {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix('$') {
            Some(id) if !id.is_empty() => Ok(Self(id.to_owned())),
            _ => Err(format!("`{text}` is not a handle; a handle is `$` and the id of an earlier step")),
        }
    }
}

impl From<Handle> for String {
    fn from(handle: Handle) -> Self {
        format!("${}", handle.0)
    }
}

/// Where a declared file lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A file on the FS-DAX ext4.
    Ext4,
    /// A file on the FS-DAX XFS.
    Xfs,
    /// The device-DAX character device itself: the control that may always be pinned.
    Devdax,
}

/// The three virtual NVDIMMs of a machine, in the order QEMU is given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it becomes.
    pub place: Place,
    /// Its size.
    pub size_mib: u64,
}

/// open(2) flags.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "open(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenFlag {
    O_RDONLY,
    O_WRONLY,
    O_RDWR,
    O_TRUNC,
    O_DIRECT,
    O_CLOEXEC,
}

/// mmap(2) flags.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "mmap(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapFlag {
    MAP_SHARED,
    MAP_PRIVATE,
    MAP_ANONYMOUS,
    /// With MAP_SHARED_VALIDATE, as it must be: succeeds on real DAX only.
    MAP_SYNC,
}

/// fallocate(2) flags, without their `FALLOC_FL_`.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "fallocate(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FallocateMode {
    KEEP_SIZE,
    PUNCH_HOLE,
    ZERO_RANGE,
    COLLAPSE_RANGE,
    INSERT_RANGE,
}

/// Which call takes the blocks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutHow {
    /// truncate(2).
    Truncate,
    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
    Punch,
}

/// IBV_ACCESS_* flags, without their prefix.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "ibv_reg_mr(3) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    LOCAL_WRITE,
    REMOTE_WRITE,
    REMOTE_READ,
}

/// How an oracle's own test breaks what the oracle watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// A keeper process outlives the actors with a long-term pin (gup_test).
    LeakPin,
    /// A keeper process outlives the actors with a memory region.
    LeaveRegion,
    /// A keeper process outlives the actors with a read lease on the first declared file.
    LeaveLease,
    /// A process that nobody ends has the first declared file open, so that its file system is busy.
    HoldMount,
    /// This actor's task never wakes again (LKDTM HUNG_TASK).
    StickTask,
    /// WARN_ON (LKDTM WARNING).
    Warn,
    /// panic() (LKDTM PANIC).
    Panic,
    /// The whole guest hangs with interrupts off (LKDTM HARDLOCKUP).
    Hang,
    /// A byte of the ext4's metadata changes between umount and fsck.
    CorruptExt4,
    /// A byte of the XFS's metadata changes between umount and xfs_repair.
    CorruptXfs,
}

/// The byte at `offset` of pattern `seed`: differs between neighbours, pages and seeds, so that a
/// shifted, stale or foreign page shows.
#[must_use]
pub const fn pattern_byte(seed: u8, offset: u64) -> u8 {
    let mixed = (offset ^ (offset >> 12).wrapping_mul(0x9e37_79b1)).wrapping_add(seed as u64 + 1);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_keeps_its_form() {
        let handle: Handle = serde_json::from_str("\"$fd\"").unwrap();
        assert_eq!(handle.id(), "fd");
        assert_eq!(serde_json::to_string(&handle).unwrap(), "\"$fd\"");
        assert!(serde_json::from_str::<Handle>("\"fd\"").unwrap_err().to_string().contains("not a handle"));
    }

    #[test]
    fn patterns_differ_between_seeds_pages_and_neighbours() {
        let page =
            |seed, nr: u64| (nr * 4096..(nr + 1) * 4096).map(|at| pattern_byte(seed, at)).collect::<Vec<_>>();
        assert_ne!(page(7, 0), page(11, 0));
        assert_ne!(page(7, 0), page(7, 1));
        let zeroes = page(7, 0).iter().filter(|&&byte| byte == 0).count();
        assert!(zeroes < 64, "{zeroes} zero bytes in a page: a hole would pass for data");
    }
}
