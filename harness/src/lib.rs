// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast's library, in the order data flows: what is to be done ([`home`] finds it), kernels,
//! images, machines, cases, verdicts, reports.

pub mod home;
pub mod kernel;
pub mod outcome;
pub mod progress;
