// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on declared files and descriptors.

use super::{CutHow, FallocateMode, Handle, OpenFlag, arguments};

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
        /// The declared file, by its path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// Or a descriptor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fd: Option<Handle>,
        /// The new size.
        size_kib: u64,
    }

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
    }

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
        /// The seed.
        pattern: u8,
    }

    /// Size in bytes by stat(2), as the returned value.
    Size {
        /// The declared file.
        file: String,
    }
}
