// SPDX-License-Identifier: MIT OR Apache-2.0
//! An actor over execve(2): what it leaves for the program that it becomes, and how that goes on with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use holdfast_protocol::{ActorSetup, Outcome, read_frame, write_frame};
use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Control, EXIT_NO_SESSION, Thing};
use crate::clock::now_ms;
use crate::sys::{self, Number};
use crate::verbs;
use crate::wire::{Answer, More, Part};

/// What an actor leaves for the program that it becomes by execve(2).
#[derive(Debug, Serialize, Deserialize)]
struct Legacy {
    part: Part,
    fds: BTreeMap<String, i32>,
    links: BTreeMap<String, i32>,
    tag: String,
    at_ms: u64,
}

impl Actor {
    /// What the next program of this process will know.
    ///
    /// # Errors
    /// When it cannot be put down.
    pub(crate) fn legacy(&self, tag: &str) -> io::Result<OwnedFd> {
        let number = |(id, thing): (&String, &Thing)| match thing {
            Thing::Fd(fd) => Some((id.clone(), fd.raw())),
            _ => None,
        };
        let legacy = Legacy {
            part: Part { name: self.name.borrow().clone(), setup: ActorSetup::default(), ..self.part.clone() },
            fds: self.things.borrow().iter().filter_map(number).collect(),
            links: self.links.borrow().iter().map(|(peer, fd)| (peer.clone(), fd.raw())).collect(),
            tag: tag.to_owned(),
            at_ms: now_ms(),
        };
        let fd = sys::memfd(0)?;
        let mut file = File::from(fd);
        write_frame(&mut file, &legacy)?;
        Ok(file.into())
    }
}

/// The life of an actor after execve(2). It has no handlers, mappings and devices: the kernel took them.
pub(crate) fn resume(legacy: OwnedFd) -> ! {
    sys::close_to_signals();
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        let _ = sys::guard(signal);
    }
    let mut file = File::from(legacy);
    let read =
        io::Seek::rewind(&mut file).map_err(drop).and_then(|()| read_frame::<Legacy>(&mut file).map_err(drop));
    drop(file);
    let Ok(Legacy { part, fds, links, tag, at_ms }) = read else { sys::exit_now(EXIT_NO_SESSION) };
    verbs::look_around();
    let actor: &'static Actor = Box::leak(Box::new(Actor::new(part)));
    // A number that the kernel closed is nobody's handle.
    let open = |(name, fd): (String, i32)| Some((name, Number::of(fd).filter(|_| sys::is_open(fd))?));
    *actor.things.borrow_mut() = fds.into_iter().filter_map(open).map(|(id, fd)| (id, Thing::Fd(fd))).collect();
    *actor.links.borrow_mut() = links.into_iter().filter_map(open).collect();
    actor.show_name();
    sys::share(actor);
    let took_ms = now_ms() - at_ms;
    actor.say(&Answer { tag, outcome: Outcome::Returned(0), at_ms, took_ms, more: More::Nothing });
    actor.play(Control::new())
}
