// SPDX-License-Identifier: MIT OR Apache-2.0
//! What host and guest say to each other.
//!
//! The host sends one [`Order`] at a time and gets exactly one [`Reply`] to each; before the first
//! order the guest says [`Reply::Hello`]. The guest reports [`Fact`]s and never judges them; the
//! host judges and never looks into the guest. A scenario step holds the very [`Op`] that goes
//! over the wire.
//!
//! Separate from both sides so that neither can drift: serde only, no unsafe, no system calls.

mod damage;
mod fact;
mod filesystem;
mod frame;
pub mod op;
mod order;

pub use damage::{DamageFact, Victim};
pub use fact::{
    ASYNC_EVENTS, Awake, COMPLETION_STATUSES, Count, FAULT_CODES, Fact, FileFact, Hello, Leaks, LogLine,
    Oracles, Outcome, PinCounts, PmemFact, ProgramEnd, Ran, RdmaFact, SIGNAL_CODES, Signalled, StuckTask,
    UmountFact, UnloadedModule,
};
pub use filesystem::{FSDAX_ALIGN, FSDAX_DATA_AT, mkfs};
pub use frame::{FrameError, MAX_FRAME_BYTES, read_frame, write_frame};
pub use op::{
    Access, CutHow, Device, FallocateMode, Handle, MapFlag, Op, OpenFlag, Place, Violation, pattern_byte,
};
pub use order::{
    ActorSetup, ConfigMismatch, FileSetup, HandlerRun, HandlerSetup, Issue, Order, Provider, Reply, Setup,
    SignalAction, Stress, Where,
};

/// Name of the virtio-serial port the agent looks for in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "holdfast.agent";

/// Version of this protocol; the host refuses an agent that says another one.
pub const VERSION: u32 = 9;

/// How much of a trace is told, in bytes.
pub const MAX_TRACE_BYTES: usize = 1 << 20;

/// How much of what an operation shows is told, in bytes.
pub const MAX_SHOWN_BYTES: usize = 16 << 10;

/// What a text that is shown goes on with where the rest of it was cut off.
pub const SHOWN_CUT: &str = "\n(cut: ";

/// How much is kept of what a program prints: this much of its beginning, in bytes.
pub const KEPT_HEAD_BYTES: usize = 256 << 10;

/// And this much of its end.
pub const KEPT_TAIL_BYTES: usize = 64 << 10;

/// Where the guest has the programs that are brought for scenarios to run.
pub const PROGRAMS: &str = "/programs";

/// Where it looks for a program that a scenario names: what is brought first, then what every guest has.
pub const PROGRAM_FOLDERS: [&str; 3] = [PROGRAMS, "/bin", "/sbin"];

/// Where the libraries are that programs of the command line bring.
pub const PROGRAM_LIBRARIES: &str = "/programs/lib";

/// Where the initramfs has the modules of a kernel that is not all in one piece.
pub const MODULES: &str = "/modules";

/// In that folder, a line for each module in the order in which they are loaded: the name of its file, and
/// [`MODULE_IF_POSSIBLE`] behind it where nobody misses it.
pub const MODULE_ORDER: &str = "order";

/// See [`MODULE_ORDER`].
pub const MODULE_IF_POSSIBLE: &str = "if-possible";

/// What a guest begins with that was to run a program it does not have.
pub const NO_PROGRAM: &str = "this guest has no program";

/// How many operations one handler may run.
pub const MAX_HANDLER_OPS: usize = 16;
