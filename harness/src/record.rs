// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a played case leaves behind: facts only, stored beside its plan, judged later.

use std::collections::BTreeMap;

use holdfast_protocol::{ConfigMismatch, Fact, FileFact, Hello, Oracles};
use serde::{Deserialize, Serialize};

use crate::fsck::FsckFact;
use crate::splat::Splat;

/// Version of this form.
pub const FORMAT: u32 = 2;

/// Everything a case's verdict is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub format: u32,
    /// How playing ended.
    pub end: End,
    /// `uname -r` of the kernel that was to be booted; empty when nobody knows.
    pub release: String,
    /// What the guest said of itself; `None` when it never did.
    pub hello: Option<Hello>,
    /// How the case's machine came to be.
    pub machine: Origin,
    /// Why it was booted although it could have been a copy; empty where nobody wanted a copy, or got one.
    pub cold_because: String,
    /// A copy was started and did not come up.
    pub copy_failed: bool,
    /// What the guest's random numbers were drawn from.
    pub seed: u64,
    /// Requested options that the running kernel has otherwise.
    pub config: Vec<ConfigMismatch>,
    /// What the declared files really were.
    pub files: Vec<FileFact>,
    /// Its later lives, in order, where the case has cut its power.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lives: Vec<Life>,
    /// Facts by the id of the step that collected them.
    pub facts: BTreeMap<String, Fact>,
    /// For each fact, what the case's QEMU could not use of the host since the operation was issued, in
    /// milliseconds: no processor was free for it, or it was stopped.
    pub lost_ms: BTreeMap<String, u64>,
    /// What the standing oracles looked at; `None` when the case did not get that far.
    pub oracles: Option<Oracles>,
    /// What the checkers said of the unmounted file systems.
    pub fsck: Vec<FsckFact>,
    /// Splats on the serial console.
    pub console: Vec<Splat>,
    /// What the agent wrote there because it could tell it nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
    /// What every wait was multiplied with.
    pub pace: f64,
    /// Where the case's time went.
    pub phases: Phases,
    /// The most memory QEMU had in use, in KiB; 0 when nobody looked.
    pub qemu_peak_kib: u64,
    /// The whole case, in milliseconds of the host.
    pub took_ms: u64,
}

/// A machine that lost its power and was booted again with the same NVDIMMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// The step it began with.
    pub step: String,
    /// What the guest said of itself.
    pub hello: Hello,
    /// What is left of the declared files; of those that are gone nothing. What they hold was not looked at.
    pub files: Vec<FileFact>,
    /// How long it took, from the kill to the answer, in milliseconds of the host.
    pub took_ms: u64,
}

/// How a case's machine came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// There was none.
    #[default]
    None,
    /// Booted for this case.
    Cold,
    /// A copy of a machine that was saved when it was ready.
    Restored,
}

/// Where a case's time went, in milliseconds of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Until the guest had answered its first order; starting QEMU and copying pmem included.
    pub machine_ms: u64,
    /// Files, actors, the oracles' base line.
    pub prepare_ms: u64,
    /// The steps.
    pub steps_ms: u64,
    /// The oracles in the guest, unmounting included.
    pub oracles_ms: u64,
    /// Ending QEMU.
    pub stop_ms: u64,
    /// Checking the file systems.
    pub fsck_ms: u64,
}

/// How playing a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every step was played and the oracles answered.
    Complete,
    /// QEMU ended before.
    QemuEnded {
        /// How, in words: `exit status: 0`, `signal: 9 (SIGKILL)`.
        how: String,
        /// What was waited for.
        during: String,
    },
    /// The guest did not answer in time.
    Deadline {
        /// What was waited for.
        during: String,
        /// How long it could have used a processor, in milliseconds of the host.
        after_ms: u64,
        /// What QEMU said of its guest; empty when it did not answer either.
        qemu: String,
    },
    /// The user ended the run.
    Cancelled,
    /// It was not tried, because its verdict was known already.
    NotTried {
        /// Why.
        why: String,
    },
    /// What a person has asked for is not there in the guest.
    Unknown {
        /// What, and what there is instead.
        why: String,
    },
    /// A fault of the host, or an order the agent refused; the chain of reasons.
    Fault {
        /// What went wrong, outermost first.
        why: String,
    },
}

impl Record {
    /// A record of a case that was never begun.
    #[must_use]
    pub fn empty(end: End) -> Self {
        Self {
            format: FORMAT,
            end,
            release: String::new(),
            hello: None,
            machine: Origin::None,
            cold_because: String::new(),
            copy_failed: false,
            seed: 0,
            config: Vec::new(),
            files: Vec::new(),
            lives: Vec::new(),
            facts: BTreeMap::new(),
            lost_ms: BTreeMap::new(),
            oracles: None,
            fsck: Vec::new(),
            console: Vec::new(),
            complaints: Vec::new(),
            pace: 1.0,
            phases: Phases::default(),
            qemu_peak_kib: 0,
            took_ms: 0,
        }
    }
}
