// SPDX-License-Identifier: MIT OR Apache-2.0
//! What host and guest say to each other.
//!
//! The host sends one [`Order`] at a time and gets exactly one [`Reply`] to each; before the first
//! order the guest says [`Reply::Hello`]. The guest reports [`Fact`]s and never judges them; the
//! host judges and never looks into the guest. A scenario step holds the very [`Op`] that goes
//! over the wire.
//!
//! Separate from both sides so that neither can drift: serde only, no unsafe, no system calls.

mod fact;
mod frame;
mod op;
mod order;

pub use fact::{
    Awake, COMPLETION_STATUSES, Fact, FileFact, Hello, LogLine, Oracles, Outcome, PinCounts, PmemFact,
    RdmaFact, StuckTask, UmountFact,
};
pub use frame::{FrameError, MAX_FRAME_BYTES, read_frame, write_frame};
pub use op::{
    Access, CutHow, Device, FallocateMode, Handle, MapFlag, Op, OpenFlag, Place, Violation, pattern_byte,
};
pub use order::{ActorSetup, ConfigMismatch, FileSetup, HandlerSetup, Order, Reply, Setup};

/// Name of the virtio-serial port the agent looks for in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "holdfast.agent";

/// Version of this protocol; the host refuses an agent that says another one.
pub const VERSION: u32 = 2;
