// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a played case leaves behind: facts only, stored beside its plan, judged later.

use std::collections::BTreeMap;

use holdfast_protocol::{ConfigMismatch, Fact, FileFact, Hello, Oracles};
use serde::{Deserialize, Serialize};

use crate::splat::Splat;

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
    /// From starting QEMU to the guest's hello, in milliseconds of the host.
    pub hello_after_ms: Option<u64>,
    /// Requested options that the running kernel has otherwise.
    pub config: Vec<ConfigMismatch>,
    /// What the declared files really were.
    pub files: Vec<FileFact>,
    /// Facts by the id of the step that collected them.
    pub facts: BTreeMap<String, Fact>,
    /// What the standing oracles looked at; `None` when the case did not get that far.
    pub oracles: Option<Oracles>,
    /// Splats on the serial console.
    pub console: Vec<Splat>,
    /// What every wait was multiplied with.
    pub pace: f64,
    /// The whole case, in milliseconds of the host.
    pub took_ms: u64,
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
        /// How long, in milliseconds of the host.
        after_ms: u64,
    },
    /// The user ended the run.
    Cancelled,
    /// It was not tried, because its verdict was known already.
    NotTried {
        /// Why.
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
            format: 1,
            end,
            release: String::new(),
            hello: None,
            hello_after_ms: None,
            config: Vec::new(),
            files: Vec::new(),
            facts: BTreeMap::new(),
            oracles: None,
            console: Vec::new(),
            pace: 1.0,
            took_ms: 0,
        }
    }
}
