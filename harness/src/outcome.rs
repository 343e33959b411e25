// SPDX-License-Identifier: MIT OR Apache-2.0
//! Outcomes and exit codes, in one place.
//!
//! Outcomes are values, infrastructure faults are errors; they never mix. The only error that code
//! branches on is [`BadInput`]: it ends a command with 2 where any other error ends it with 125.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a case. The list is closed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every applicable step came back as expected and every standing oracle was clean.
    Pass,
    /// A step or an oracle did not come back as expected.
    Fail,
    /// The kernel printed a splat that the contract does not declare.
    KernelBug,
    /// The guest stopped answering within a step's deadline.
    Timeout,
    /// QEMU ended before the case did, and the console does not say why.
    Lost,
    /// The contract or a declared feature rules it out.
    NotApplicable,
    /// A precondition could not be shown.
    Inconclusive,
    /// Planned, never reached.
    NotRun,
    /// A fault of the host or of Holdfast itself.
    Infra,
}

impl Kind {
    /// The name a report prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::KernelBug => "kernel-bug",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::NotApplicable => "not-applicable",
            Self::Inconclusive => "inconclusive",
            Self::NotRun => "not-run",
            Self::Infra => "infra",
        }
    }
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything as expected.
    AsExpected,
    /// Something not as expected; outranks [`NoVerdict`](Self::NoVerdict).
    NotAsExpected,
    /// No verdict: does not build or boot, host fault, inconclusive. `git bisect run` skips it.
    NoVerdict,
    /// Wrong usage or bad input, found before anything was built.
    BadInput,
    /// Ended by the user.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::AsExpected => 0,
            Self::NotAsExpected => 1,
            Self::BadInput => 2,
            Self::NoVerdict => 125,
            Self::Interrupted => 130,
        }
    }

    /// The exit of a run from its rows: `(kind, as declared)` each. Nothing run is never success.
    #[must_use]
    pub fn of_rows(rows: impl IntoIterator<Item = (Kind, bool)>) -> Self {
        let mut exit = Self::NoVerdict;
        let mut no_verdict = false;
        for (kind, green) in rows {
            match kind {
                _ if green => {
                    // Not-applicable rows are green, but they are nothing that ran.
                    if kind != Kind::NotApplicable {
                        exit = Self::AsExpected;
                    }
                }
                Kind::Inconclusive | Kind::NotRun | Kind::Infra => no_verdict = true,
                _ => return Self::NotAsExpected,
            }
        }
        if no_verdict { Self::NoVerdict } else { exit }
    }

    /// The exit of a command that ended with an error.
    #[must_use]
    pub fn of_error(error: &anyhow::Error) -> Self {
        if error.chain().any(|cause| cause.is::<Interrupted>()) {
            Self::Interrupted
        } else if error.chain().any(|cause| cause.is::<BadInput>()) {
            Self::BadInput
        } else {
            Self::NoVerdict
        }
    }
}

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

/// The user ended the command (Ctrl-C).
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn red_outranks_no_verdict_and_nothing_is_no_success() {
        let exit = |rows: &[(Kind, bool)]| Exit::of_rows(rows.iter().copied());
        assert_eq!(exit(&[]), Exit::NoVerdict);
        assert_eq!(exit(&[(Kind::NotApplicable, true)]), Exit::NoVerdict);
        assert_eq!(exit(&[(Kind::Pass, true), (Kind::NotApplicable, true)]), Exit::AsExpected);
        assert_eq!(exit(&[(Kind::Pass, true), (Kind::Inconclusive, false)]), Exit::NoVerdict);
        assert_eq!(exit(&[(Kind::NotRun, false), (Kind::Fail, false)]), Exit::NotAsExpected);
        assert_eq!(exit(&[(Kind::KernelBug, true)]), Exit::AsExpected);
        assert_eq!(exit(&[(Kind::Pass, false)]), Exit::NotAsExpected);
    }

    #[test]
    fn an_error_keeps_its_exit_code_below_its_context() {
        let error = Err::<(), _>(bad_input("x")).context("y").unwrap_err();
        assert_eq!(Exit::of_error(&error), Exit::BadInput);
        assert_eq!(Exit::of_error(&anyhow::anyhow!("x")), Exit::NoVerdict);
        assert_eq!(Exit::of_error(&anyhow::Error::from(Interrupted)).code(), 130);
    }
}
