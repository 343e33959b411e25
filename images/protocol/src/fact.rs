// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts: what the guest saw. Never a judgement.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::damage::DamageFact;
use crate::op::Place;
use crate::order::Provider;

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Id of the step.
    pub step: String,
    /// Who did it.
    pub actor: String,
    /// What came back.
    pub outcome: Outcome,
    /// Guest uptime when the operation was issued, in milliseconds.
    pub at_ms: u64,
    /// From issue to return, or to the moment the guest stopped waiting, in milliseconds.
    pub took_ms: u64,
    /// The part of `took_ms` in which the guest as a whole did not run (a loaded or stopped host), in
    /// milliseconds.
    pub stalled_ms: u64,
}

impl Fact {
    /// How long it took as the guest could have seen it: without the time in which the guest stood still.
    #[must_use]
    pub fn ran_ms(&self) -> u64 {
        self.took_ms.saturating_sub(self.stalled_ms)
    }
}

/// What came back from an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The call succeeded with this value (0 where there is none to tell).
    Returned(i64),
    /// The call failed with this errno.
    Errno(i32),
    /// The work request completed with this status, an `IBV_WC_` name without the prefix, not SUCCESS;
    /// `TIMEOUT` when no completion came within 5 s.
    Completion(String),
    /// A comparison found other bytes.
    Differs {
        /// Offset of the first byte that differs, within the compared file, mapping or region.
        at: u64,
        /// What the pattern says.
        want: u8,
        /// What was there.
        got: u8,
    },
    /// The call had not returned; where its task waits, by `/proc/PID`.
    Blocked {
        /// State letter of `/proc/PID/stat`.
        state: String,
        /// `/proc/PID/wchan`.
        wchan: String,
        /// `/proc/PID/stack`, a function a line.
        stack: Vec<String>,
    },
    /// An access to memory raised this signal (a standard name), and the actor lives on.
    Faulted {
        /// SIGBUS or SIGSEGV.
        signal: String,
        /// Its `si_code` by name, `BUS_ADRERR` for example; the number where it has none.
        code: String,
    },
    /// What an operation that looks has seen; at most [`crate::MAX_SHOWN_BYTES`] of it, which its end says.
    Shown(String),
    /// A program ran.
    Ran(Box<Ran>),
    /// A handler of the actor got this signal.
    Signalled(Signalled),
    /// No handler got the signal that was waited for.
    NoSignal,
    /// The actor exited with this status instead of answering.
    Exited(i32),
    /// The actor was killed by this signal (a standard name) instead of answering.
    Killed(String),
    /// What many issues of the same operation came to, kind by kind, in the order of their first.
    Tally(Vec<Count>),
    /// In a tally: it succeeded, and the result of this step was there before it was issued and after it
    /// had returned.
    Within(String),
    /// The agent could not issue the operation: a handle was missing, an actor gone. The step did not run.
    NotIssued {
        /// Why.
        why: String,
    },
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// How it ended.
    pub end: ProgramEnd,
    /// What it printed, what is no UTF-8 replaced; where something is left out, its beginning and its end, in
    /// whole lines, with one between them that says so.
    pub output: String,
    /// How many bytes of that are left out.
    pub dropped: u64,
    /// What it printed on its other stream, the same way: apart, because a line of the one could end in the
    /// middle of a line of the other.
    pub errors: String,
    /// How many processes it left behind; they were killed.
    pub left: u32,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramEnd {
    /// With this status.
    Exited(i32),
    /// By this signal (a standard name).
    Killed(String),
    /// Its time was over, and it was killed; where it was, by `/proc/PID`, as [`Outcome::Blocked`] has it.
    Overdue {
        /// State letter.
        state: String,
        /// `wchan`.
        wchan: String,
        /// `stack`, a function a line.
        stack: Vec<String>,
    },
}

/// How often one kind of outcome came. Values and offsets do not make a kind of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The first of its kind.
    pub outcome: Outcome,
    /// How many there were.
    pub times: u64,
    /// The draw of its actor that the first came of, from 1 on.
    pub first_draw: u64,
    /// The longest that one took, in milliseconds.
    pub longest_ms: u64,
}

/// Names of `enum ibv_event_type` (verbs.h), in its order, without their `IBV_EVENT_`.
pub const ASYNC_EVENTS: [&str; 20] = [
    "CQ_ERR",
    "QP_FATAL",
    "QP_REQ_ERR",
    "QP_ACCESS_ERR",
    "COMM_EST",
    "SQ_DRAINED",
    "PATH_MIG",
    "PATH_MIG_ERR",
    "DEVICE_FATAL",
    "PORT_ACTIVE",
    "PORT_ERR",
    "LID_CHANGE",
    "PKEY_CHANGE",
    "SM_CHANGE",
    "SRQ_ERR",
    "SRQ_LIMIT_REACHED",
    "QP_LAST_WQE_REACHED",
    "CLIENT_REREGISTER",
    "GID_CHANGE",
    "WQ_FATAL",
];

/// A signal as its handler got it (sigaction(2), `siginfo_t`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// Its standard name, `SIGRTMIN+1` included.
    pub signal: String,
    /// `si_code` by name, `POLL_MSG` or `SI_KERNEL` for example; the number where it has none.
    pub code: String,
    /// `si_fd`, where the code says that there is one.
    pub fd: Option<i32>,
    /// `si_band`, likewise.
    pub band: Option<i64>,
    /// `si_pid`, where the code says that there is one.
    pub pid: Option<i32>,
    /// How many signals this handler has had, this one included.
    pub count: u32,
    /// The thread that got it, by its name (`/proc/PID/comm`): that of its actor, of which 15 letters fit.
    #[serde(default)]
    pub thread: String,
}

/// Codes that any signal may have (`SI_*`) and those of I/O (`POLL_*`), with their numbers
/// (include/uapi/asm-generic/siginfo.h). Those of faults are in [`FAULT_CODES`].
pub const SIGNAL_CODES: [(&str, i32); 14] = [
    ("SI_USER", 0),
    ("SI_KERNEL", 0x80),
    ("SI_QUEUE", -1),
    ("SI_TIMER", -2),
    ("SI_MESGQ", -3),
    ("SI_ASYNCIO", -4),
    ("SI_SIGIO", -5),
    ("SI_TKILL", -6),
    ("POLL_IN", 1),
    ("POLL_OUT", 2),
    ("POLL_MSG", 3),
    ("POLL_ERR", 4),
    ("POLL_PRI", 5),
    ("POLL_HUP", 6),
];

/// Codes of SIGBUS and SIGSEGV as the kernel raises them for an access to memory.
pub const FAULT_CODES: [(&str, &str, i32); 9] = [
    ("SIGBUS", "BUS_ADRALN", 1),
    ("SIGBUS", "BUS_ADRERR", 2),
    ("SIGBUS", "BUS_OBJERR", 3),
    ("SIGBUS", "BUS_MCEERR_AR", 4),
    ("SIGBUS", "BUS_MCEERR_AO", 5),
    ("SIGSEGV", "SEGV_MAPERR", 1),
    ("SIGSEGV", "SEGV_ACCERR", 2),
    ("SIGSEGV", "SEGV_BNDERR", 3),
    ("SIGSEGV", "SEGV_PKUERR", 4),
];

/// Names of `enum ibv_wc_status` (verbs.h), in its order, without their `IBV_WC_`.
pub const COMPLETION_STATUSES: [&str; 24] = [
    "SUCCESS",
    "LOC_LEN_ERR",
    "LOC_QP_OP_ERR",
    "LOC_EEC_OP_ERR",
    "LOC_PROT_ERR",
    "WR_FLUSH_ERR",
    "MW_BIND_ERR",
    "BAD_RESP_ERR",
    "LOC_ACCESS_ERR",
    "REM_INV_REQ_ERR",
    "REM_ACCESS_ERR",
    "REM_OP_ERR",
    "RETRY_EXC_ERR",
    "RNR_RETRY_EXC_ERR",
    "LOC_RDD_VIOL_ERR",
    "REM_INV_RD_REQ_ERR",
    "REM_ABORT_ERR",
    "INV_EECN_ERR",
    "INV_EEC_STATE_ERR",
    "FATAL_ERR",
    "RESP_TIMEOUT_ERR",
    "GENERAL_ERR",
    "TM_ERR",
    "TM_RNDV_INCOMPLETE",
];

/// What a declared file really is, after it was written and synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// Name in the scenario.
    pub name: String,
    /// Where it lives.
    pub on: Place,
    /// statx(2) says STATX_ATTR_DAX. True for a device-DAX device by its nature.
    pub statx_dax: bool,
    /// A MAP_SYNC mapping of it succeeded (device DAX: as well).
    pub map_sync: bool,
    /// Read back, it holds its pattern.
    pub filled: bool,
}

/// The guest introduces itself when everything is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the agent.
    pub protocol: u32,
    /// Version of the agent's crate.
    pub agent: String,
    /// uname(2) release.
    pub kernel: String,
    /// uname(2) version.
    pub build: String,
    /// Guest uptime when the agent started, in milliseconds.
    pub started_ms: u64,
    /// Guest uptime now, in milliseconds.
    pub ready_ms: u64,
    /// The part of the time between the two in which the guest as a whole did not run, in milliseconds.
    pub stalled_ms: u64,
    /// `/proc/sys/kernel/random/boot_id`: the same in every copy of a saved machine, in no other guest.
    pub boot_id: String,
    /// Modules of the initramfs that the kernel did not load, in the order in which they were tried.
    #[serde(default)]
    pub unloaded: Vec<UnloadedModule>,
    /// The NVDIMMs.
    pub pmem: Vec<PmemFact>,
    /// The RDMA links, one of each provider.
    #[serde(deserialize_with = "one_or_many")]
    pub rdma: Vec<RdmaFact>,
    /// What the guest found out about features that kernels declare; nothing of those it cannot look for.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
    /// Processors online.
    pub cpus: u32,
}

/// A module that was to be loaded and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadedModule {
    /// Its name.
    pub name: String,
    /// What finit_module(2) said, or opening its file.
    pub why: String,
}

/// A guest that was told what makes it different from other copies of the same machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awake {
    /// As in [`Hello`]: shows which machine this is a copy of.
    pub boot_id: String,
    /// CLOCK_REALTIME after it was set, in nanoseconds.
    pub unix_ns: u64,
    /// Drawn from the kernel's random number generator after it was seeded; 0 where there is none.
    pub random: u64,
    /// Guest uptime, in milliseconds.
    pub at_ms: u64,
}

/// One NVDIMM as it came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmemFact {
    /// What it was to become.
    pub place: Place,
    /// The device node, `/dev/pmem0` or `/dev/dax0.0`.
    pub device: String,
    /// Where it is mounted; empty for device DAX.
    pub mount: String,
    /// Where the device's first byte lies within the NVDIMM, in bytes: behind the namespace's info block
    /// and page structures (`resource` of the namespace's pfn or dax device less that of its region).
    pub data_at: u64,
    /// It is what an earlier boot has left: the namespace was there, and its file system was not made anew.
    #[serde(default)]
    pub found: bool,
    /// Empty, or why it is not ready.
    pub trouble: String,
}

/// An RDMA link as it came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaFact {
    /// Its driver.
    #[serde(default)]
    pub provider: Provider,
    /// The device, `rxe0`.
    pub device: String,
    /// The port is active.
    pub active: bool,
    /// Index of the GID that connections use: with rxe the IPv4-mapped one, with siw the only one.
    pub gid_index: Option<u32>,
    /// Empty, or why it is not ready.
    pub trouble: String,
}

/// Records of runs from before siw have one link, and no list of them.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RdmaFact>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Links {
        Many(Vec<RdmaFact>),
        One(RdmaFact),
    }
    Ok(match Links::deserialize(from)? {
        Links::Many(links) => links,
        Links::One(link) => vec![link],
    })
}

/// `nr_foll_pin_acquired` and `nr_foll_pin_released` of `/proc/vmstat`, after `stat_refresh`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinCounts {
    /// Pins taken since boot, in pages.
    pub acquired: u64,
    /// Pins let go since boot, in pages.
    pub released: u64,
}

/// A line of `/dev/kmsg`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Time since boot, in microseconds.
    pub at_us: u64,
    /// The text, without the record's header.
    pub text: String,
}

/// A task that outlived SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckTask {
    /// The actor.
    pub actor: String,
    /// State letter of `/proc/PID/stat`.
    pub state: String,
    /// `/proc/PID/wchan`.
    pub wchan: String,
    /// `/proc/PID/stack`, a function a line.
    pub stack: Vec<String>,
}

/// How umount(2) of one file system ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UmountFact {
    /// Which file system.
    pub on: Place,
    /// 0, or the errno.
    pub errno: i32,
}

/// What kmemleak said when everything was ended and unmounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaks {
    /// The kernel has no kmemleak.
    #[default]
    NotLookedFor,
    /// Lines of its list, some for each object, without their indentation; none is good.
    Listed(Vec<String>),
    /// It has one, which could not look.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What the standing oracles look at in the guest, gathered after the last step in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Oracles {
    /// Pins before the first step.
    pub pins_before: PinCounts,
    /// Pins when every actor was gone.
    pub pins_after: PinCounts,
    /// Memory regions left, by `rdma resource show`.
    pub regions_left: u64,
    /// Leases left, lines of `/proc/locks`.
    pub leases_left: Vec<String>,
    /// Actors that outlived SIGKILL.
    pub stuck: Vec<StuckTask>,
    /// What a device could reach of blocks that it had pinned and that were given away.
    pub damage: Vec<DamageFact>,
    /// How each file system was unmounted.
    pub umount: Vec<UmountFact>,
    /// Memory that the kernel lost.
    #[serde(default)]
    pub leaks: Leaks,
    /// The kernel log from the case's mark on, its last line included.
    pub log: Vec<LogLine>,
    /// The mark at the beginning of the window was still in the log, and so was all that followed it.
    pub log_mark_found: bool,
    /// `/proc/sys/kernel/tainted` before and after.
    pub taint: (u64, u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_a_list_and_as_the_one_of_older_records() {
        let links = |json: &str| one_or_many(&mut serde_json::Deserializer::from_str(json));
        let old = links(r#"{"device": "rxe0", "active": true, "gid_index": 1, "trouble": ""}"#).unwrap();
        let rxe = RdmaFact {
            provider: Provider::Rxe,
            device: "rxe0".to_owned(),
            active: true,
            gid_index: Some(1),
            trouble: String::new(),
        };
        assert_eq!(old, std::slice::from_ref(&rxe));
        let siw = RdmaFact { provider: Provider::Siw, device: "siw0".to_owned(), ..rxe.clone() };
        let both = vec![rxe, siw];
        assert_eq!(links(&serde_json::to_string(&both).unwrap()).unwrap(), both);
    }
}
