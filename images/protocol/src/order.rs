// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders of the host and the replies of the guest, one to one.
//!
//! Waits are given in the guest's progress: its clock, less the time in which the guest as a whole did not
//! run. On a loaded host a wait takes longer and shows the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{Awake, Fact, FileFact, Hello, Oracles};
use crate::op::{Op, Place};

/// What the host asks for. Every order gets exactly one [`Reply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Set what must not be the same in two copies of a machine; the first order of every case:
    /// [`Reply::Awake`].
    Wake {
        /// CLOCK_REALTIME, in nanoseconds.
        unix_ns: u64,
        /// Goes into the kernel's random number generator, which is then made to draw from it.
        seed: u64,
    },
    /// Wait for what a boot leaves going on, before the machine is saved with it: [`Reply::Settled`].
    Settle,
    /// Compare requested options with `/proc/config.gz`: [`Reply::Config`].
    CheckConfig {
        /// Option name without `CONFIG_`, and its requested value (`y`, `n`, `m`, a number, a quoted string).
        requests: Vec<(String, String)>,
    },
    /// Make files and actors, set sysctls, mark the kernel log, take the base line of the
    /// oracles: [`Reply::Prepared`].
    Prepare(Setup),
    /// Issue an operation and wait for it: [`Reply::Fact`], `Blocked` if it did not return in time.
    Do {
        /// Id of the step; names the result.
        step: String,
        /// Who does it.
        actor: String,
        /// What is done.
        op: Op,
        /// How long to wait, in milliseconds of the guest's progress.
        wait_ms: u64,
    },
    /// Issue an operation and do not wait: [`Reply::Started`].
    Start {
        /// Id of the step.
        step: String,
        /// Who does it.
        actor: String,
        /// What is done.
        op: Op,
    },
    /// Issue operations of different actors at the same moment, and do not wait: [`Reply::Started`]. None
    /// begins before all of them are about to.
    Together(Vec<Issue>),
    /// Let actors do operations at random for a while: [`Reply::Stressed`].
    Stress(Stress),
    /// Let an actor do operations over and over, with nobody in between, and count what they take:
    /// [`Reply::Repeated`].
    Repeat {
        /// Done in this order, again and again, all by the same actor. What one of them makes another lets go:
        /// nobody is told of it.
        body: Vec<Issue>,
        /// How often.
        times: u32,
    },
    /// Wait for a step that was started or found blocked: [`Reply::Fact`].
    Await {
        /// Id of the awaited step.
        step: String,
        /// How long to wait, in milliseconds of the guest's progress.
        wait_ms: u64,
    },
    /// Assert that a started or blocked step has not returned and does not for this long:
    /// [`Reply::Fact`], `Blocked` if so.
    Still {
        /// Id of the watched step.
        step: String,
        /// How long to watch, in milliseconds of the guest's progress.
        for_ms: u64,
    },
    /// Begin to record trace events: [`Reply::Tracing`], or [`Reply::Unknown`] where the kernel has none of a name.
    Trace {
        /// `SUBSYSTEM:EVENT` or `SUBSYSTEM:*`.
        events: Vec<String>,
    },
    /// Tell what they have recorded so far: [`Reply::Traced`].
    Traced,
    /// Run a shell for a person on the machine's virtio console, until it ends; actors stay as they are:
    /// [`Reply::ShellEnded`].
    Shell,
    /// End all actors and consult the standing oracles: [`Reply::Finished`].
    Finish {
        /// How long a killed actor may take to be gone, in milliseconds of the guest's progress.
        settle_ms: u64,
    },
}

/// What the guest answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The guest is ready; sent once, unasked.
    Hello(Hello),
    /// To [`Order::Wake`].
    Awake(Awake),
    /// To [`Order::Settle`].
    Settled,
    /// To [`Order::CheckConfig`]: the options that differ.
    Config(Vec<ConfigMismatch>),
    /// To [`Order::Prepare`]: what the declared files really are.
    Prepared(Vec<FileFact>),
    /// To [`Order::Do`], [`Order::Await`] and [`Order::Still`].
    Fact(Fact),
    /// To [`Order::Start`] and [`Order::Together`].
    Started {
        /// Guest uptime when it was issued, in milliseconds.
        at_ms: u64,
    },
    /// To [`Order::Stress`]: a fact for each choice, its outcome an [`Outcome::Tally`](crate::Outcome::Tally);
    /// `Blocked` for those of an actor that did not come back.
    Stressed(Vec<Fact>),
    /// To [`Order::Repeat`]; `Refused` when an operation did not succeed.
    Repeated {
        /// What each operation of the body took, repetition by repetition, in ticks of the time stamp counter;
        /// they are instructions where the machine counts those.
        ticks: Vec<Vec<u64>>,
        /// How long the processors had nothing to do meanwhile, in nanoseconds; nothing where the kernel
        /// does not tell.
        idle_ns: Option<u64>,
    },
    /// To [`Order::Trace`].
    Tracing,
    /// To [`Order::Traced`]: what tracefs shows in `trace`, times in seconds of CLOCK_MONOTONIC; its end, in whole
    /// lines, where it is more than [`MAX_TRACE_BYTES`](crate::MAX_TRACE_BYTES).
    Traced(String),
    /// To [`Order::Shell`].
    ShellEnded,
    /// To [`Order::Finish`].
    Finished(Oracles),
    /// What a person has asked for is not there in this guest.
    Unknown {
        /// What, and what there is instead.
        why: String,
    },
    /// The order could not be carried out at all (an agent or guest fault, never a result).
    Refused {
        /// What went wrong.
        why: String,
    },
}

/// One operation to issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Id of the step; names the result.
    pub step: String,
    /// Who does it.
    pub actor: String,
    /// What is done.
    pub op: Op,
    /// Of a stress: the choice whose result must not be there all the time that this one takes to succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never_within: Option<String>,
    /// Of a stress: the choice of the same actor that has succeeded before, with all that it used still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Actors that each draw operations of their own at random, all at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stress {
    /// Its name.
    pub id: String,
    /// What all draws follow from: the same number draws the same operations.
    pub seed: u64,
    /// How long, in milliseconds of the guest's clock.
    pub for_ms: u64,
    /// How long an operation may go on afterwards, in milliseconds of the guest's progress.
    pub grace_ms: u64,
    /// What each actor draws from. An operation is passed over while a handle it uses is not there, its
    /// own result still is, or what it comes after was not done. What is left at the end is let go.
    pub choices: Vec<Issue>,
}

/// A requested option that the running kernel does not have as requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMismatch {
    /// Option name without `CONFIG_`.
    pub option: String,
    /// What was requested.
    pub want: String,
    /// What `/proc/config.gz` says; `n` when absent.
    pub got: String,
}

/// What must exist before the first step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The case's id, written into the kernel log's mark.
    pub case: String,
    /// Declared files by name.
    pub files: BTreeMap<String, FileSetup>,
    /// Actors by name.
    pub actors: BTreeMap<String, ActorSetup>,
    /// sysctl names (`fs.lease-break-time`) and values.
    pub sysctl: BTreeMap<String, String>,
    /// The machine has been switched off since the case began: files are what is left of them, and the kernel log
    /// is looked at from the boot on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Whose device the actors open.
    #[serde(default, skip_serializing_if = "Provider::is_rxe")]
    pub provider: Provider,
}

/// A soft RDMA driver, and the link that the guest has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// RDMA over Converged Ethernet: packets over UDP.
    #[default]
    Rxe,
    /// iWARP: a stream over TCP.
    Siw,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rxe, Self::Siw];

    /// The driver's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rxe => "rxe",
            Self::Siw => "siw",
        }
    }

    /// What the driver is built by.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Rxe => "CONFIG_RDMA_RXE",
            Self::Siw => "CONFIG_RDMA_SIW",
        }
    }

    /// As it is when nothing is said.
    #[must_use]
    pub fn is_rxe(&self) -> bool {
        *self == Self::Rxe
    }
}

/// A file that is written with a pattern, synced and proved DAX before the first step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileSetup {
    /// Where it lives.
    pub on: Place,
    /// Its size; of a device-DAX file the part that is written.
    #[serde(default)]
    pub size_kib: u64,
    /// Seed of [`pattern_byte`](crate::pattern_byte).
    #[serde(default)]
    pub pattern: u8,
    /// Only its name is declared: it is not made, and nothing is proved of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

/// A process of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorSetup {
    /// Opens the RDMA device, with a protection domain and a completion queue, before the first step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rdma: bool,
    /// Not started before the first step: a `fork` of another actor makes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forked: bool,
    /// A second thread of that actor's process: what one has, the other has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_of: Option<String>,
    /// Signal handlers by a name of the scenario's choice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub on_signal: BTreeMap<String, HandlerSetup>,
}

/// What an actor does about a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerSetup {
    /// Standard name, `SIGRTMIN+1` included.
    pub signal: String,
    /// SA_RESTART.
    #[serde(default)]
    pub restart: bool,
    /// What becomes of the signal.
    #[serde(default, skip_serializing_if = "SignalAction::is_record")]
    pub action: SignalAction,
    /// Where it is answered.
    #[serde(default, rename = "in", skip_serializing_if = "Where::is_handler")]
    pub place: Where,
    /// Operations that it runs then, in order; their facts are those of the steps `HANDLER.ID`. At most
    /// [`MAX_HANDLER_OPS`](crate::MAX_HANDLER_OPS). When the signal comes again they run again, and the
    /// later facts count, as far as they are told: a handler gives 128 answers, one for each signal and one
    /// for each operation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<HandlerRun>,
}

/// One operation of a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerRun {
    /// Its id within the handler.
    pub id: String,
    /// What is done.
    #[serde(rename = "do")]
    pub op: Op,
}

/// Disposition of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SignalAction {
    /// A handler tells what it got, runs what it has to run, and returns.
    #[default]
    Record,
    /// SIG_DFL.
    Default,
    /// SIG_IGN.
    Ignore,
}

impl SignalAction {
    /// As it is when nothing is said.
    #[must_use]
    pub fn is_record(&self) -> bool {
        *self == Self::Record
    }
}

/// Where a signal is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// In a signal handler: it interrupts the call that the actor is in.
    #[default]
    Handler,
    /// In a second thread, by sigwaitinfo(2): the call that the actor is in goes on.
    Thread,
}

impl Where {
    /// As it is when nothing is said.
    #[must_use]
    pub fn is_handler(&self) -> bool {
        *self == Self::Handler
    }
}
