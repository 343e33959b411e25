// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations, by what they touch. Each returns what came back and judges nothing.
//!
//! No operation retries a call that a signal interrupted: EINTR is a result.

pub(crate) mod blocks;
pub(crate) mod files;
pub(crate) mod gup;
pub(crate) mod leases;
pub(crate) mod look;
pub(crate) mod memory;
pub(crate) mod passing;
pub(crate) mod pipes;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod rdma;
pub(crate) mod transfer;
pub(crate) mod uring;
pub(crate) mod violate;

use std::io;

use holdfast_protocol::{Outcome, pattern_byte};
use nix::errno::Errno;

use crate::actor::{Stop, not_issued};

/// What the standard library says of a system call, as its errno.
pub(crate) fn errno_of(error: &io::Error) -> Stop {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)).into()
}

/// KiB to bytes, as every operation needs them.
pub(crate) fn bytes(kib: u64) -> Result<u64, Stop> {
    kib.checked_mul(1024)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| not_issued(format!("{kib} KiB is beyond what a file can hold")))
}

/// KiB to bytes as a length in memory.
pub(crate) fn length(kib: u64) -> Result<usize, Stop> {
    usize::try_from(bytes(kib)?).map_err(|_| not_issued(format!("{kib} KiB is beyond this machine")))
}

/// `len` bytes of a pattern from `offset` on.
pub(crate) fn pattern(seed: u8, offset: u64, len: usize) -> Vec<u8> {
    (offset..).take(len).map(|at| pattern_byte(seed, at)).collect()
}

/// The first byte of `found`, which begins at `offset`, that is not the pattern's.
pub(crate) fn difference(seed: u8, offset: u64, found: &[u8]) -> Option<Outcome> {
    let wrong = |(&got, at): (&u8, u64)| got != pattern_byte(seed, at);
    let index = found.iter().zip(offset..).position(wrong)?;
    Some(differs(seed, offset + index as u64, found[index]))
}

/// What is to be said of a byte that is not the pattern's.
pub(crate) fn differs(seed: u8, at: u64, got: u8) -> Outcome {
    Outcome::Differs { at, want: pattern_byte(seed, at), got }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_place() {
        let mut found = pattern(7, 4096, 64);
        assert_eq!(difference(7, 4096, &found), None);
        found[3] ^= 1;
        let (want, got) = (pattern_byte(7, 4099), found[3]);
        assert_eq!(difference(7, 4096, &found), Some(Outcome::Differs { at: 4099, want, got }));
    }

    #[test]
    fn absurd_sizes_are_not_issued() {
        assert!(bytes(u64::MAX / 2).is_err());
        assert!(bytes(u64::MAX / 1024).is_err());
        assert!(bytes(4).is_ok_and(|bytes| bytes == 4096));
    }
}
