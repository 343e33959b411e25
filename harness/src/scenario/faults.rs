// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that is wrong with a file, not only the first of it.

use anyhow::Result;

use crate::outcome::bad_input;

/// Faults of one file, each with its place; one a place, because what follows from a fault is no fault.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<anyhow::Error>);

impl Faults {
    pub(super) fn push(&mut self, fault: anyhow::Error) {
        let place = |fault: &anyhow::Error| place_of(&fault.root_cause().to_string()).to_owned();
        let new = place(&fault);
        if !self.0.iter().any(|known| place(known) == new) {
            self.0.push(fault);
        }
    }

    /// The value, or `None` and its fault kept.
    pub(super) fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    pub(super) fn extend(&mut self, more: Self) {
        more.0.into_iter().for_each(|fault| self.push(fault));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One error with all of them, a line each.
    pub(super) fn into_result(mut self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            // What is no bad input (a file that cannot be read) keeps its kind.
            1 => Err(self.0.remove(0)),
            _ => {
                let lines: Vec<String> = self.0.iter().map(|fault| format!("{fault:#}")).collect();
                Err(bad_input(lines.join("\n")))
            }
        }
    }
}

/// `file:line:column`.
fn place_of(message: &str) -> &str {
    message.split(": ").next().unwrap_or(message)
}
