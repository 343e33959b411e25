// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on processes.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use holdfast_protocol::Outcome;
use holdfast_protocol::op::{Capability, DropCaps, Exit, Fork, Kill, Resource, Rlimit, SetGroup, Setuid};
use nix::errno::Errno;
use nix::sys::resource::{Resource as Limited, setrlimit};
use nix::unistd::{self, Pid, Uid};

use crate::actor::{Actor, Control, Done, Stop, not_issued};
use crate::signals;
use crate::sys::{self, Forked, exposed};
use crate::wire::{Aid, Answer, More};

/// kill(2) of another actor, or of this one.
pub(crate) fn kill(aid: &Aid, op: &Kill) -> Result<Done, Stop> {
    let pid = aid.pid.ok_or_else(|| not_issued("the actor to kill is gone"))?;
    let number =
        signals::number(&op.signal).ok_or_else(|| not_issued(format!("{} is no signal", op.signal)))?;
    exposed(|| sys::kill(pid, number))?;
    Ok(Done::default())
}

/// _exit(2).
pub(crate) fn exit(op: &Exit) -> ! {
    sys::exit_now(i32::from(op.code))
}

/// setpgid(2).
pub(crate) fn set_group(op: &SetGroup, aid: &Aid) -> Result<Done, Stop> {
    let group = match (&op.join, aid.pid) {
        (None, _) => Pid::from_raw(0),
        (Some(_), Some(pid)) => unistd::getpgid(Some(Pid::from_raw(pid)))?,
        (Some(actor), None) => return Err(not_issued(format!("actor {actor} is gone"))),
    };
    unistd::setpgid(Pid::from_raw(0), group)?;
    Ok(Done::value(unistd::getpgrp().as_raw().into()))
}

/// fork(2). The descriptor of the child's own stream follows the call on ours.
pub(crate) fn fork(actor: &Actor, op: &Fork, aid: &Aid) -> Result<Done, Stop> {
    let control = Control::number();
    let stream = sys::receive_fd(control.as_fd())?;
    if sys::in_handler() {
        return Err(not_issued("a handler cannot fork an actor"));
    }
    let setup = aid.child.as_ref().ok_or_else(|| not_issued("the session did not say who the child is"))?;
    match sys::fork_for_parent()? {
        Forked::Parent(pid) => Ok(Done { more: More::Child(op.into.clone(), pid), ..Done::value(pid.into()) }),
        Forked::Child => {
            sys::close_to_signals();
            // The child is the session's, and so is its end when the session goes.
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            sys::dup_onto(stream.as_fd(), control.raw(), None)?;
            // What led to the parent's peers leads to the parent's.
            for (_, link) in std::mem::take(&mut *actor.links.borrow_mut()) {
                let _ = unistd::close(link.raw());
            }
            actor.name.borrow_mut().clone_from(&op.into);
            actor.show_name();
            // The session waits for it: afterwards the child is all that it is to be.
            let outcome = match actor.handlers.install(setup) {
                Ok(()) => Outcome::Returned(0),
                Err(why) => Outcome::NotIssued { why },
            };
            actor.say(&Answer::about("", outcome));
            Ok(Done { quiet: true, ..Done::default() })
        }
    }
}

/// execve(2) of the agent; the program that this one becomes answers.
pub(crate) fn execve(actor: &Actor, tag: &str) -> Result<Done, Stop> {
    if sys::in_handler() {
        return Err(not_issued("a handler cannot become another program"));
    }
    let trouble = |error: std::io::Error| not_issued(format!("leaving word for the next program: {error}"));
    let legacy = actor.legacy(tag).map_err(trouble)?;
    let word = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    let arguments =
        [word("holdfast")?, word("actor")?, word("--resume")?, word(&legacy.as_raw_fd().to_string())?];
    let Err(errno) = unistd::execv(c"/proc/self/exe", &arguments);
    Err(errno.into())
}

/// setuid(2). The kernel forgets the parent-death signal with it (kernel/cred.c commit_creds()), and an actor
/// must not outlive its session.
pub(crate) fn setuid(op: &Setuid) -> Result<Done, Stop> {
    unistd::setuid(Uid::from_raw(op.uid))?;
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    Ok(Done::default())
}

/// The bits of capability numbers (include/uapi/linux/capability.h).
fn capability_bits(caps: &[Capability]) -> u64 {
    let number = |cap: &Capability| match cap {
        Capability::CAP_DAC_OVERRIDE => 1,
        Capability::CAP_DAC_READ_SEARCH => 2,
        Capability::CAP_FOWNER => 3,
        Capability::CAP_KILL => 5,
        Capability::CAP_IPC_LOCK => 14,
        Capability::CAP_SYS_RAWIO => 17,
        Capability::CAP_SYS_PTRACE => 19,
        Capability::CAP_SYS_ADMIN => 21,
        Capability::CAP_SYS_RESOURCE => 24,
        Capability::CAP_LEASE => 28,
    };
    if caps.is_empty() { u64::MAX } else { caps.iter().fold(0, |all, cap| all | 1 << number(cap)) }
}

/// capset(2).
pub(crate) fn drop_caps(op: &DropCaps) -> Result<Done, Stop> {
    sys::drop_capabilities(capability_bits(&op.caps))?;
    Ok(Done::default())
}

/// setrlimit(2).
pub(crate) fn rlimit(op: &Rlimit) -> Result<Done, Stop> {
    let resource = match op.resource {
        Resource::RLIMIT_MEMLOCK => Limited::RLIMIT_MEMLOCK,
        Resource::RLIMIT_NOFILE => Limited::RLIMIT_NOFILE,
        Resource::RLIMIT_FSIZE => Limited::RLIMIT_FSIZE,
        Resource::RLIMIT_AS => Limited::RLIMIT_AS,
        Resource::RLIMIT_SIGPENDING => Limited::RLIMIT_SIGPENDING,
    };
    setrlimit(resource, op.limit, op.limit)?;
    Ok(Done::default())
}
