// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast's library, in the order data flows: what is to be done ([`home`] finds it), kernels,
//! images, machines, cases, verdicts, reports.

pub mod bench;
pub mod case;
pub mod contract;
pub mod doctor;
pub mod events;
pub mod flip;
pub mod fsck;
pub mod ground;
pub mod home;
pub mod image;
pub mod jobs;
pub mod judge;
pub mod kernel;
pub mod machine;
pub mod mutants;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod record;
pub mod report;
pub mod run;
pub mod runs;
pub mod scenario;
pub mod scratch;
pub mod shrink;
pub mod splat;
pub mod tap;
mod timeline;
pub mod yaml;
