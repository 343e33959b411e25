// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an actor does about signals: it tells the session what came, and runs what its part says.
//!
//! An answer is a frame like any other, with a tag of its own. The session is told of a handler's first
//! signals, as far as [`MOST_TOLD`] answers reach for them and for what they run. What comes after is counted
//! and runs what it has to run, but is not told, so that a flood cannot fill the stream, which holds some 160
//! answers, while the session looks elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;

use holdfast_protocol::{
    ActorSetup, FAULT_CODES, HandlerSetup, MAX_HANDLER_OPS, Outcome, SIGNAL_CODES, SignalAction, Signalled,
    Where,
};

use crate::actor::Actor;
use crate::clock::now_ms;
use crate::signals;
use crate::sys::{self, Info};
use crate::wire::{Aid, Answer, Call, More, SIGNAL_TAG, handler_step};

/// How many answers a handler gives.
const MOST_TOLD: usize = 128;

/// The handlers of an actor.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    all: RefCell<Vec<Handler>>,
    /// What the session added to their operations, by step.
    aids: RefCell<BTreeMap<String, Aid>>,
}

#[derive(Debug)]
struct Handler {
    name: String,
    number: i32,
    setup: HandlerSetup,
    count: u32,
}

impl Handlers {
    /// Installs what a part asks for; a handler of the same signal is replaced.
    ///
    /// # Errors
    /// Which one cannot be had, and why.
    pub(crate) fn install(&self, part: &ActorSetup) -> Result<(), String> {
        let mut any_thread = false;
        for (name, setup) in &part.on_signal {
            let number = signals::number(&setup.signal)
                .ok_or_else(|| format!("handler {name}: {} is no signal", setup.signal))?;
            if setup.run.len() > MAX_HANDLER_OPS {
                return Err(format!("handler {name}: it runs more than {MAX_HANDLER_OPS} operations"));
            }
            let installed = match (setup.action, setup.place) {
                (SignalAction::Default, _) => sys::ignore_signal(number, false),
                (SignalAction::Ignore, _) => sys::ignore_signal(number, true),
                (SignalAction::Record, Where::Handler) => sys::install(number, setup.restart),
                (SignalAction::Record, Where::Thread) => {
                    sys::keep_from_main(number);
                    any_thread = true;
                    Ok(())
                }
            };
            installed.map_err(|errno| format!("handler {name}: sigaction {}: {errno}", setup.signal))?;
            let mut all = self.all.borrow_mut();
            all.retain(|handler| handler.number != number);
            all.push(Handler { name: name.clone(), number, setup: setup.clone(), count: 0 });
        }
        if any_thread {
            sys::serve_by_thread().map_err(|error| format!("the thread for signals: {error}"))?;
        }
        Ok(())
    }

    /// What the session knows and an operation of a handler needs.
    pub(crate) fn take_aid(&self, step: String, aid: Aid) {
        self.aids.borrow_mut().insert(step, aid);
    }

    /// Counts a signal; its handler's name, how many it has had, and what it runs.
    fn count(&self, number: i32) -> Option<(String, u32, HandlerSetup)> {
        let mut all = self.all.borrow_mut();
        let handler = all.iter_mut().find(|handler| handler.number == number)?;
        handler.count += 1;
        Some((handler.name.clone(), handler.count, handler.setup.clone()))
    }
}

/// Answers a signal, in a handler or in the thread for signals.
pub(crate) fn answer(actor: &Actor, info: Info) {
    let Some((name, count, setup)) = actor.handlers.count(info.signal) else { return };
    let is_told = count as usize * (1 + setup.run.len()) <= MOST_TOLD;
    if is_told {
        let outcome = Outcome::Signalled(signalled(info, count));
        let tag = format!("{SIGNAL_TAG}{name}");
        actor.say(&Answer { tag, outcome, at_ms: now_ms(), took_ms: 0, more: More::Nothing });
    }
    for run in setup.run {
        let tag = handler_step(&name, &run.id);
        let aid = actor.handlers.aids.borrow().get(&tag).cloned().unwrap_or_default();
        let call = Call::Do { tag, op: run.op, aid };
        if let Some(answer) = actor.answer(call).filter(|_| is_told) {
            actor.say(&answer);
        }
    }
}

/// What came with a signal, in words.
fn signalled(info: Info, count: u32) -> Signalled {
    Signalled {
        signal: signals::name(info.signal),
        code: code_name(info.signal, info.code),
        fd: info.io.map(|(fd, _)| fd),
        band: info.io.map(|(_, band)| band),
        pid: info.pid,
        count,
        // nix's get_name() hands the kernel a buffer that it calls constant, and reads zeroes afterwards.
        thread: fs::read_to_string("/proc/thread-self/comm").unwrap_or_default().trim_end().to_owned(),
    }
}

/// The name of an `si_code`; its number where it has none.
pub(crate) fn code_name(signal: i32, code: i32) -> String {
    let name = signals::name(signal);
    let of_fault = FAULT_CODES.iter().find(|(of, _, number)| *of == name && *number == code);
    let known = of_fault.map(|(_, name, _)| *name);
    let known =
        known.or_else(|| SIGNAL_CODES.iter().find(|(_, number)| *number == code).map(|(name, _)| *name));
    known.map_or_else(|| code.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_named_by_its_signal() {
        assert_eq!(code_name(libc::SIGBUS, 2), "BUS_ADRERR");
        assert_eq!(code_name(libc::SIGSEGV, 2), "SEGV_ACCERR");
        assert_eq!(code_name(libc::SIGIO, 3), "POLL_MSG");
        assert_eq!(code_name(libc::SIGUSR1, 0), "SI_USER");
        assert_eq!(code_name(libc::SIGIO, 0x80), "SI_KERNEL");
        assert_eq!(code_name(libc::SIGIO, 77), "77");
    }
}
