// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's clock: CLOCK_MONOTONIC, which counts from boot and is the same in every process.

use nix::time::{ClockId, clock_gettime};

/// Uptime in milliseconds.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    now_us() / 1000
}

/// Uptime in microseconds.
#[must_use]
pub(crate) fn now_us() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    now.tv_sec().cast_unsigned() * 1_000_000 + now.tv_nsec().cast_unsigned() / 1000
}
