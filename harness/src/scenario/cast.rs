// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of actors that others make, and of what handlers run.

use anyhow::Result;
use holdfast_protocol::{MAX_HANDLER_OPS, Op};

use super::check::Checker;
use super::uses::{Thing, name, uses};
use crate::path;
use crate::yaml::{Key, unknown_word};

impl<'a> Checker<'a> {
    /// The steps that handlers run, as `await` names them (`HANDLER.ID`): id, actor, operation.
    pub(super) fn handler_steps(&self) -> Result<Vec<(String, &'a str, &'a Op)>> {
        let mut all: Vec<(String, &str, &Op)> = Vec::new();
        for (actor, setup) in &self.form.actors {
            for (handler, setup) in &setup.on_signal {
                let at = path!["actors", actor.as_str(), "on_signal", handler.as_str(), "run"];
                let fault = |message: &str| Err(self.document.fault(&at, None, message));
                if setup.run.len() > MAX_HANDLER_OPS {
                    return fault(&format!("a handler runs at most {MAX_HANDLER_OPS} operations"));
                }
                if !setup.run.is_empty() && !setup.action.is_record() {
                    return fault("a signal that nobody answers runs nothing");
                }
                for run in &setup.run {
                    let id = format!("{handler}.{}", run.id);
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
                    let uses = uses(&run.op);
                    if uses.actor.is_some() || uses.by_session || uses.foreign {
                        let name = name(&run.op);
                        return fault(&format!(
                            "a handler cannot do `{name}`: it needs the session, or another actor"
                        ));
                    }
                    if let Some(file) = uses.files.iter().find(|file| !self.form.files.contains_key(**file)) {
                        let message = unknown_word("file", file, self.form.files.keys().map(String::as_str));
                        return Err(self.document.fault(&at, Some(file), &message));
                    }
                    all.push((id, actor, &run.op));
                }
            }
        }
        Ok(all)
    }

    /// Every handle that a handler uses is made by some step of its actor, or of one that it comes from.
    pub(super) fn handler_handles(&self) -> Result<()> {
        for (actor, setup) in &self.form.actors {
            for (handler, setup) in &setup.on_signal {
                let at = path!["actors", actor.as_str(), "on_signal", handler.as_str(), "run"];
                for (handle, wanted) in setup.run.iter().flat_map(|run| uses(&run.op).handles) {
                    let made = self.done.get(handle.id());
                    let made = made.filter(|made| made.unknown || wanted.is_met_by(made.result));
                    if !made.is_some_and(|made| self.inherits(actor, made.by, 0)) {
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

    /// True if what `maker` made in step `nr` is also in `actor`: the same one, or a descendant that was
    /// forked afterwards.
    pub(super) fn inherits(&self, actor: &str, maker: &str, nr: usize) -> bool {
        let mut at = actor;
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
