// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on mappings.

use super::{Advice, Handle, MapFlag, Prot, arguments};

arguments! {
    /// memfd_create(2): a file of memory that is no DAX, on tmpfs or of huge pages. Its result is a
    /// descriptor.
    Memfd {
        /// Its size.
        size_kib: u64,
        /// MFD_HUGETLB: huge pages of 2 MiB, which `vm.nr_hugepages` must provide.
        #[serde(default, skip_serializing_if = "super::is_default")]
        hugetlb: bool,
    }

    /// mmap(2). Its result is a mapping. Every page is touched before the call counts as done, so that a
    /// later pin meets present pages: for writing, except of a private file mapping, which a write fault
    /// would turn into anonymous copies, and of one without PROT_WRITE.
    Mmap {
        /// The descriptor; absent with MAP_ANONYMOUS.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// Offset in the file.
        #[serde(default)]
        at_kib: u64,
        /// Length of the mapping.
        len_kib: u64,
        /// MAP_* flags.
        flags: Vec<MapFlag>,
        /// More flags, by number.
        #[serde(default, skip_serializing_if = "super::is_default")]
        extra: i32,
        /// PROT_* without its prefix; absent for READ and WRITE.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prot: Option<Vec<Prot>>,
        /// MAP_FIXED over this mapping.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<Handle>,
        /// Where in that mapping it begins.
        #[serde(default, skip_serializing_if = "super::is_default")]
        over_at_kib: u64,
        /// Whether every page is touched; `true` when nothing is said.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        touch: bool,
    }

    /// munmap(2) of a whole mapping, whose handle goes with it, or of a range of it.
    Munmap {
        /// The mapping.
        map: Handle,
        /// Start of the range.
        #[serde(default, skip_serializing_if = "super::is_default")]
        at_kib: u64,
        /// Length of the range; absent for all of the mapping.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        len_kib: Option<u64>,
    }

    /// mprotect(2) of a range.
    Mprotect {
        /// The mapping.
        map: Handle,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// PROT_* without its prefix; an empty list is PROT_NONE.
        prot: Vec<Prot>,
    }

    /// madvise(2) of a range.
    Madvise {
        /// The mapping.
        map: Handle,
        /// Start of the range.
        at_kib: u64,
        /// Length of the range.
        len_kib: u64,
        /// MADV_* without its prefix.
        advice: Advice,
    }

    /// Loads one byte through a mapping; the byte is the value. A signal that the load raises is its result.
    Load {
        /// The mapping.
        map: Handle,
        /// Offset in the mapping.
        at_kib: u64,
    }

    /// Stores a pattern through a mapping, from user space. A signal that the store raises is its result.
    Store {
        /// The mapping.
        map: Handle,
        /// Offset in the mapping.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}
