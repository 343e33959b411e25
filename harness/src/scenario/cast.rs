// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of actors that others make, and of what handlers run.

use anyhow::Result;
use holdfast_protocol::{MAX_HANDLER_OPS, Op};

use super::actors::{Actor, Handler, Run, step_of};
use super::check::Checker;
use super::faults::Faults;
use super::under::split;
use super::uses::{Thing, name, uses};
use crate::path;
use crate::yaml::{Key, unknown_word};

/// Where a handler's steps are written.
fn place(actor: &str, handler: &str) -> Vec<Key> {
    path!["actors", actor, "on_signal", handler, "run"].to_vec()
}

impl<'a> Checker<'a> {
    /// The steps that handlers run, as `await` names them (`HANDLER.ID`): id, actor, what is done.
    pub(super) fn handler_steps(&self) -> Result<Vec<(String, &'a str, Option<String>)>> {
        let mut all: Vec<(String, &str, Option<String>)> = Vec::new();
        for (actor, handler, setup) in self.handlers() {
            let at = place(actor, handler);
            let fault = |message: &str| Err(self.document.fault(&at, None, message));
            if setup.run.len() > MAX_HANDLER_OPS {
                return fault(&format!("a handler runs at most {MAX_HANDLER_OPS} operations"));
            }
            if !setup.run.is_empty() && !setup.action.is_record() {
                return fault("a signal that nobody answers runs nothing");
            }
            for run in &setup.run {
                let id = step_of(handler, &run.id);
                let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                if run.id.is_empty() || !run.id.chars().all(sound) || !handler.chars().all(sound) {
                    return fault(
                        "a handler that runs something, and an id, are made of small letters, digits and underscores",
                    );
                }
                if all.iter().any(|(other, ..)| *other == id) {
                    return fault(&format!(
                        "`{id}` is there already: a handler that runs something has a name of its own"
                    ));
                }
                for op in self.handler_ops(&at, run)? {
                    self.handler_may(&at, &op)?;
                }
                all.push((id, actor, run.op.as_ref().map(name)));
            }
        }
        Ok(all)
    }

    pub(super) fn handlers(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a Handler)> {
        let of_actor = |(actor, setup): (&'a String, &'a Actor)| {
            setup.on_signal.iter().map(move |(name, one)| (actor.as_str(), name.as_str(), one))
        };
        self.form.actors.iter().flat_map(of_actor)
    }

    /// Every operation that one step of a handler is under the scenario's contracts.
    fn handler_ops(&self, at: &[Key], run: &Run) -> Result<Vec<Op>> {
        let fault = |word: Option<&str>, message: &str| Err(self.document.fault(at, word, message));
        let phrase = match (&run.op, &run.phrase) {
            (Some(op), None) => return Ok(vec![op.clone()]),
            (None, Some(phrase)) => phrase,
            _ => return fault(None, &format!("`{}` has either `do` or `use`", run.id)),
        };
        if let Some((_, word, message)) = self.unknown_phrase(phrase, &run.with) {
            return fault(Some(&word), &message);
        }
        let mut all = Vec::new();
        for contract in self.form.contracts.iter().map(|key| split(key).0) {
            let Some(described) = self.contracts.get(contract) else { continue };
            match run.ops(described) {
                Ok(ops) => all.extend(ops.into_iter().map(|(_, op)| op)),
                Err(why) => return fault(Some(phrase), &format!("under {contract}: {why}")),
            }
        }
        Ok(all)
    }

    /// What a handler can do alone, or with what the session told it ahead.
    fn handler_may(&self, at: &[Key], op: &Op) -> Result<()> {
        let uses = uses(op);
        if matches!(op, Op::Program(_)) {
            let message = "a handler cannot run a `program`: it would be in the way of every signal";
            return Err(self.document.fault(at, None, message));
        }
        if uses.by_session || uses.forks || uses.foreign || (uses.rdma && uses.actor.is_some()) {
            let message = format!("a handler cannot do `{}`: it needs the session", name(op));
            return Err(self.document.fault(at, None, &message));
        }
        if let Some(actor) = uses.actor.filter(|actor| !self.form.actors.contains_key(*actor)) {
            let message = unknown_word("actor", actor, self.form.actors.keys().map(String::as_str));
            return Err(self.document.fault(at, Some(actor), &message));
        }
        if let Some(file) = uses.files.iter().find(|file| !self.form.files.contains_key(**file)) {
            let message = unknown_word("file", file, self.form.files.keys().map(String::as_str));
            return Err(self.document.fault(at, Some(file), &message));
        }
        Ok(())
    }

    /// Every handle that a handler uses is made by some step of its actor, or of one that it comes from.
    pub(super) fn handler_handles(&self) -> Result<()> {
        for (actor, handler, setup) in self.handlers() {
            let at = place(actor, handler);
            for op in setup.run.iter().flat_map(|run| self.handler_ops(&at, run).unwrap_or_default()) {
                for (handle, wanted) in uses(&op).handles {
                    let made = self.done.get(handle.id());
                    let made = made.filter(|made| made.unknown || wanted.is_met_by(made.result));
                    if !made.is_some_and(|made| made.unknown || self.inherits(actor, made.by, 0)) {
                        let message = format!(
                            "no step of `{actor}` makes `${}`, {} for its handler",
                            handle.id(),
                            wanted.name()
                        );
                        return Err(self.document.fault(&at, None, &message));
                    }
                }
            }
        }
        Ok(())
    }

    /// A thread belongs to a process that is there from the start and stays what it is.
    pub(super) fn threads(&self, faults: &mut Faults) {
        for (name, actor) in &self.form.actors {
            let Some(of) = &actor.thread_of else { continue };
            let at = path!["actors", name.as_str()];
            let mut say = |word: Option<&str>, message: &str| {
                faults.push(self.document.fault(&at, word, message));
            };
            match self.form.actors.get(of) {
                None => {
                    let others = self.form.actors.keys().filter(|other| *other != name).map(String::as_str);
                    say(Some(of), &unknown_word("actor", of, others));
                }
                Some(main) if main.thread_of.is_some() || main.forked || of == name => {
                    say(Some(of), &format!("`{of}` is no process that is there from the start"));
                }
                Some(_) if actor.rdma || actor.forked || !actor.on_signal.is_empty() => {
                    say(None, &format!("what a thread has, its process has: say it of `{of}`"));
                }
                Some(_) => {}
            }
        }
    }

    /// The actor whose process another one is a thread of; itself where it is none.
    pub(super) fn process_of<'n>(&'n self, actor: &'n str) -> &'n str {
        self.form.actors.get(actor).and_then(|one| one.thread_of.as_deref()).unwrap_or(actor)
    }

    /// A process with threads is one program until its end: fork(2) and execve(2) would take them away.
    pub(super) fn has_threads(&self, actor: &str) -> bool {
        let process = self.process_of(actor);
        self.form.actors.values().any(|one| one.thread_of.as_deref() == Some(process))
    }

    /// True if what `maker` made in step `nr` is also in `actor`: the same one, or a descendant that was
    /// forked afterwards.
    pub(super) fn inherits(&self, actor: &str, maker: &str, nr: usize) -> bool {
        let (mut at, maker) = (self.process_of(actor), self.process_of(maker));
        let mut before = usize::MAX;
        loop {
            if at == maker {
                return nr < before;
            }
            match self.born.get(at) {
                Some((parent, born)) => (at, before) = (parent, before.min(*born)),
                None => return false,
            }
        }
    }

    /// A fork makes an actor.
    pub(super) fn birth(&mut self, nr: usize, field: &str, by: &'a str, child: &'a str, op: &Op) -> Result<()> {
        let at = path![field, name(op).as_str(), "into"];
        if !self.form.actors[child].forked {
            return Err(self.fault(
                nr,
                &at,
                &format!("declare `{child}` with `forked: true`: a fork makes it"),
            ));
        }
        if child == by || self.born.insert(child, (by, nr)).is_some() {
            return Err(self.fault(nr, &at, &format!("`{child}` is there already")));
        }
        Ok(())
    }

    /// An actor that acts, or is named, has been made.
    pub(super) fn is_there(&self, nr: usize, at: &[Key], actor: &str) -> Result<()> {
        if self.form.actors[actor].forked && !self.born.contains_key(actor) {
            return Err(self.fault(nr, at, &format!("`{actor}` is not there before a `fork` makes it")));
        }
        Ok(())
    }

    /// The acting actor has that handler, or one that it comes from.
    pub(super) fn has_handler(&self, nr: usize, at: &[Key], by: &str, handler: &str) -> Result<()> {
        let own = |actor: &str| self.form.actors[actor].on_signal.keys().map(String::as_str);
        let by = self.process_of(by);
        let ancestors =
            std::iter::successors(Some(by), |actor| self.born.get(actor).map(|(parent, _)| *parent));
        let mut valid = ancestors.flat_map(own);
        if valid.any(|name| name == handler) {
            return Ok(());
        }
        let message = unknown_word("handler", handler, own(by));
        Err(self.word_fault(nr, at, Some(handler), &message))
    }

    /// An expected number is that of a descriptor.
    pub(super) fn names_a_descriptor(&self, nr: usize, at: &[Key], id: &str) -> Result<()> {
        if self.done.get(id).is_some_and(|made| made.unknown || made.result == Some(Thing::Descriptor)) {
            return Ok(());
        }
        let descriptors = self.done.iter().filter(|(_, made)| made.result == Some(Thing::Descriptor));
        let message = unknown_word("descriptor", id, descriptors.map(|(id, _)| id.as_str()));
        Err(self.fault(nr, at, &message))
    }
}
