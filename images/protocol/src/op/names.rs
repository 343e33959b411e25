// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flags and other words of a closed list, under the names that the kernel's headers give them.

use serde::{Deserialize, Serialize};

/// open(2) flags.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "open(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OpenFlag {
    O_RDONLY,
    O_WRONLY,
    O_RDWR,
    O_TRUNC,
    O_CREAT,
    O_EXCL,
    O_APPEND,
    O_NONBLOCK,
    O_DIRECT,
    O_CLOEXEC,
}

/// mmap(2) flags.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "mmap(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum MapFlag {
    MAP_SHARED,
    MAP_PRIVATE,
    MAP_ANONYMOUS,
    /// With MAP_SHARED_VALIDATE, as it must be: succeeds on real DAX only.
    MAP_SYNC,
    MAP_POPULATE,
    MAP_NORESERVE,
}

/// mmap(2) and mprotect(2) protections, without their `PROT_`.
#[expect(missing_docs, reason = "mprotect(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Prot {
    READ,
    WRITE,
    EXEC,
}

/// madvise(2) advice, without its `MADV_`.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "madvise(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Advice {
    DONTNEED,
    DONTFORK,
    DOFORK,
    POPULATE_READ,
    POPULATE_WRITE,
    REMOVE,
    COLD,
    PAGEOUT,
    HUGEPAGE,
    NOHUGEPAGE,
}

/// fallocate(2) flags, without their `FALLOC_FL_`.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "fallocate(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FallocateMode {
    KEEP_SIZE,
    PUNCH_HOLE,
    ZERO_RANGE,
    COLLAPSE_RANGE,
    INSERT_RANGE,
    UNSHARE_RANGE,
}

/// Which call takes the blocks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CutHow {
    /// truncate(2).
    Truncate,
    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
    Punch,
    /// fallocate(2) with FALLOC_FL_ZERO_RANGE.
    Zero,
    /// fallocate(2) with FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE.
    ZeroKeep,
    /// fallocate(2) with FALLOC_FL_COLLAPSE_RANGE.
    Collapse,
    /// fallocate(2) with FALLOC_FL_INSERT_RANGE.
    Insert,
}

/// IBV_ACCESS_* flags, without their prefix.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "ibv_reg_mr(3) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Access {
    LOCAL_WRITE,
    REMOTE_WRITE,
    REMOTE_READ,
    REMOTE_ATOMIC,
    MW_BIND,
    ZERO_BASED,
    ON_DEMAND,
    HUGETLB,
    FLUSH_GLOBAL,
    FLUSH_PERSISTENT,
    RELAXED_ORDERING,
}

/// What a program's working folder is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Folder {
    /// The guest's /tmp.
    #[default]
    Tmpfs,
    /// The FS-DAX ext4.
    Ext4,
    /// The FS-DAX XFS.
    Xfs,
}

/// How an oracle's own test breaks what the oracle watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// What F_SETOWN_EX names.
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "fcntl(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OwnerKind {
    F_OWNER_TID,
    F_OWNER_PID,
    F_OWNER_PGRP,
}

/// A field of statx(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StatxField {
    /// In bytes.
    Size,
    /// Of 512 bytes each.
    Blocks,
    /// How many names it has.
    Nlink,
    /// STATX_ATTR_DAX: 1 or 0.
    Dax,
    /// The number of the inode.
    Ino,
}

/// Capabilities that decide about leases, pins and files (capabilities(7)).
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "capabilities(7) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Capability {
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_KILL,
    CAP_IPC_LOCK,
    CAP_SYS_RAWIO,
    CAP_SYS_PTRACE,
    CAP_SYS_ADMIN,
    CAP_SYS_RESOURCE,
    CAP_LEASE,
}

/// Resources of setrlimit(2).
#[expect(non_camel_case_types, reason = "the field's own names")]
#[expect(missing_docs, reason = "setrlimit(2) documents them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Resource {
    RLIMIT_MEMLOCK,
    RLIMIT_NOFILE,
    RLIMIT_FSIZE,
    RLIMIT_AS,
    RLIMIT_SIGPENDING,
}
