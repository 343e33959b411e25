// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations: one thing an actor does, under its standard name.
//!
//! An [`Op`] is what stands behind `do:` in a scenario and what goes over the wire, the same value. Its
//! arguments are a structure each, grouped by what they touch.

mod files;
mod lease;
mod look;
mod memory;
mod names;
mod pins;
mod process;
mod raw;
mod rdma;

use serde::{Deserialize, Serialize};

pub use files::{
    Clone, Close, Compare, Cut, Dedupe, Dup, Dup2, Dup3, ExchangeRange, Fallocate, Fdatasync, Fiemap, Fill,
    FillFree, Fsync, Link, Mount, Open, Read, Remount, Rename, Size, Statx, SwapExtents, Sync, Syncfs,
    Truncate, Umount, Unlink, Write,
};
pub use lease::{GetLease, GetOwn, GetSig, Lease, Received, SetLease, SetOwn, SetOwnEx, SetSig};
pub use look::{Command, Dmesg, Fds, FilePins, Locks, Maps, Mrs, ReadFile, Vmstat};
pub use memory::{Load, Madvise, Memfd, Mmap, Mprotect, Munmap, Store};
pub use names::{
    Access, Advice, Capability, CutHow, FallocateMode, Folder, MapFlag, OpenFlag, OwnerKind, Prot, Resource,
    StatxField, Violation,
};
pub use pins::{ClosePipe, GupPin, GupRead, GupUnpin, Pipe, Uring, UringRegister, UringUnregister, Vmsplice};
pub use process::{
    DropCaps, Execve, Exit, Fork, Kill, Program, ReceiveFd, Rlimit, SendFd, SetGroup, Setuid, Violate, Wait,
};
pub use raw::{Arg, Buffer, Fcntl, Hex, Ioctl, MAX_RAW_BYTES, Syscall};
pub use rdma::{
    AsyncEvent, Connect, DeregMr, LinkAdd, LinkDelete, RdmaClose, RdmaOpen, RdmaRead, RdmaReceive, RdmaSend,
    RdmaWrite, RegMr, UverbsFd,
};

/// Argument structures: what all of them have in common is said once.
macro_rules! arguments {
    ($($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty),* $(,)? })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
            #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
            #[serde(deny_unknown_fields)]
            pub struct $name { $($(#[$field_about])* pub $field: $kind),* }
        )*
    };
}
use arguments;

/// For fields that are left out where they say nothing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The operations, each named like its arguments; in JSON and YAML in small letters (`Open` is `open`).
macro_rules! operations {
    ($($group:literal: $($name:ident),+;)*) => {
        /// One thing an actor does. Sizes and offsets are in KiB; patterns are seeds of [`pattern_byte`].
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum Op {
            $($(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)+)*
        }

        impl Op {
            /// The name of its argument structure.
            #[must_use]
            pub const fn arguments(&self) -> &'static str {
                match self {
                    $($(Self::$name(_) => stringify!($name),)+)*
                }
            }
        }

        #[cfg(feature = "schema")]
        impl Op {
            /// Names of the argument structures, grouped by what the operations are about, as people read them.
            pub const GROUPS: &[(&str, &[&str])] = &[$(($group, &[$(stringify!($name)),+])),*];
        }

        $($(impl From<$name> for Op {
            fn from(op: $name) -> Self {
                Self::$name(op)
            }
        })+)*
    };
}

operations! {
    "Files":
        Open, Close, Dup, Dup2, Dup3, Truncate, Fallocate, Cut, Compare, Size, Read, Write, Fsync, Fdatasync,
        Sync, Syncfs, Unlink, Rename, Link, Clone, Dedupe, ExchangeRange, SwapExtents, Fiemap, Statx, Fill,
        FillFree, Mount, Remount, Umount;
    "Memory":
        Memfd, Mmap, Munmap, Mprotect, Madvise, Store, Load;
    "Leases and signals":
        SetLease, GetLease, SetOwn, SetOwnEx, GetOwn, SetSig, GetSig, Received;
    "Processes":
        Kill, Exit, Wait, SetGroup, Fork, Execve, Setuid, DropCaps, Rlimit, SendFd, ReceiveFd, Program, Violate;
    "RDMA":
        RegMr, DeregMr, Connect, RdmaWrite, RdmaRead, RdmaSend, RdmaReceive, AsyncEvent, UverbsFd, RdmaClose,
        RdmaOpen, LinkDelete, LinkAdd;
    "Other holds on pages":
        GupPin, GupRead, GupUnpin, Pipe, Vmsplice, ClosePipe, Uring, UringRegister, UringUnregister;
    "What can be seen":
        Locks, Fds, Maps, FilePins, Mrs, Vmstat, ReadFile, Dmesg, Command;
    "By number":
        Fcntl, Ioctl, Syscall;
}

/// A result of an earlier step, written `$id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^\\$[A-Za-z0-9_.]+$")))]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The FS-DAX ext4.
    #[default]
    Ext4,
    /// The FS-DAX XFS.
    Xfs,
    /// The device-DAX character device itself: the control that may always be pinned.
    Devdax,
}

/// The three virtual NVDIMMs of a machine, in the order QEMU is given them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Device {
    /// What it becomes.
    pub place: Place,
    /// Its size.
    pub size_mib: u64,
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
