// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device could still reach after blocks that it has pinned were given away.

use serde::{Deserialize, Serialize};

use crate::fact::Outcome;

/// One look for damage: after a step that took blocks from a file while a memory region on it was alive,
/// another file, the victim, was given as many of those blocks as possible, and the region was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DamageFact {
    /// The step after which it was looked for.
    pub after: String,
    /// The step that made the region.
    pub region: String,
    /// How much of the region's blocks the file does not own any more, in KiB.
    pub lost_kib: u64,
    /// How much of them the victim owns now (FIEMAP), in KiB.
    pub taken_kib: u64,
    /// What became of the victim; `None` when there is none, or nobody could use the region.
    pub victim: Option<Victim>,
    /// Why nothing was shown; empty when something was.
    pub trouble: String,
}

/// A file that owns blocks which a device has pinned for another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    /// Its path.
    pub file: String,
    /// Where the first of those blocks is in it, in bytes.
    pub offset: u64,
    /// Where that block is in the region, in bytes.
    pub region_offset: u64,
    /// RDMA READ through the region, compared with what was written into the victim: `returned` when it
    /// brought the victim's bytes, `differs` when it brought others. `None` when the region does not allow it.
    pub read: Option<Outcome>,
    /// RDMA WRITE of another pattern through the region; `None` when it does not allow that.
    pub write: Option<Outcome>,
    /// The victim's bytes afterwards, compared with what was written into it.
    pub bytes: Outcome,
}
