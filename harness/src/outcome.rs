// SPDX-License-Identifier: MIT OR Apache-2.0
//! Outcomes and exit codes, in one place.
//!
//! Outcomes are values, infrastructure faults are errors; they never mix. The only error that code
//! branches on is [`BadInput`]: it ends a command with 2 where any other error ends it with 125.

use std::fmt;

/// The user asked for something that cannot be: a typo, an unknown name, a missing tool. The
/// message says what, where and what to do.
#[derive(Debug)]
pub struct BadInput(String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// An error that ends the command with exit code 2.
#[must_use]
pub fn bad_input(message: impl Into<String>) -> anyhow::Error {
    BadInput(message.into()).into()
}
