// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds on pages without RDMA: debugfs `gup_test`, pipes, io_uring.

use super::{Handle, arguments};

arguments! {
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
    }

    /// PIN_LONGTERM_TEST_READ: copies out of the pinned pages and compares with a pattern.
    GupRead {
        /// Offset in the pinned range.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// PIN_LONGTERM_TEST_STOP.
    GupUnpin {}

    /// pipe2(2). Its result is a pipe, both ends in this actor.
    Pipe {}

    /// vmsplice(2) of one page of a mapping into a pipe: a page reference that is no long-term pin.
    Vmsplice {
        /// The mapping.
        map: Handle,
        /// The pipe.
        pipe: Handle,
        /// Offset in the mapping of the page to hold.
        at_kib: u64,
    }

    /// Closes both ends of a pipe, which lets go of the pages in it.
    ClosePipe {
        /// The pipe.
        pipe: Handle,
    }

    /// io_uring_setup(2). Its result is a descriptor, its value the number.
    Uring {}

    /// IORING_REGISTER_BUFFERS (io_uring_register(2)) of a whole mapping: a long-term pin that no lease can
    /// account for.
    UringRegister {
        /// The ring.
        ring: Handle,
        /// The mapping.
        map: Handle,
    }

    /// IORING_UNREGISTER_BUFFERS.
    UringUnregister {
        /// The ring.
        ring: Handle,
    }
}
