// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations that look: what an administrator could see.
//!
//! Their outcome is the text, cut at [`MAX_SHOWN_BYTES`](crate::MAX_SHOWN_BYTES), unless a value is said.

use super::arguments;

arguments! {
    /// `/proc/locks`.
    Locks {
        /// Only the lines of this declared file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    }

    /// `/proc/PID/fd`: a line `NUMBER -> TARGET` for each descriptor.
    Fds {
        /// The actor.
        of: String,
    }

    /// `/proc/PID/maps`.
    Maps {
        /// The actor.
        of: String,
    }

    /// `/proc/PID/file_pins`; ENOENT where the kernel has none.
    FilePins {
        /// The actor.
        of: String,
    }

    /// Memory regions, as `rdma resource show` counts them: the value.
    Mrs {
        /// Only those that are listed with this actor's process; absent: of the whole system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
    }

    /// A counter of `/proc/vmstat`, made exact first: the value. ENODATA when there is none of that name.
    Vmstat {
        /// Its name.
        key: String,
    }

    /// A file of the guest.
    ReadFile {
        /// Its path.
        path: String,
    }

    /// The kernel log since the case began.
    Dmesg {}

    /// Runs a program of the guest and waits for it: what it printed, both streams, and a last line `status N`
    /// or `signal NAME`.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    }
}
