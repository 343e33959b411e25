// SPDX-License-Identifier: MIT OR Apache-2.0
//! PID 1 of the guest.
fn main() {}
