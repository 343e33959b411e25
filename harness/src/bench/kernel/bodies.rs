// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bodies of operations that are counted, as `bodies.yaml` writes them.

use anyhow::Result;
use holdfast_protocol::{Issue, Op, Setup};
use serde::Deserialize;

use crate::yaml::Document;

/// All that is counted on a machine, in this order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bodies {
    /// Files and actors, the same for all.
    pub(super) setup: Setup,
    pub(super) bodies: Vec<Body>,
}

/// Operations that are repeated, and what is done around them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    /// What it is done with.
    pub(super) about: String,
    pub(super) before: Vec<Line>,
    pub(super) body: Vec<Line>,
    pub(super) after: Vec<Line>,
}

/// One operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// The name of its result.
    id: Option<String>,
    #[serde(default = "worker")]
    by: String,
    #[serde(rename = "do")]
    op: Op,
    /// What it is called where its cost is told.
    pub(super) counts: Option<String>,
}

fn worker() -> String {
    "worker".to_owned()
}

impl Line {
    /// As the guest is told it; what has no name is called by its operation.
    pub(super) fn issue(&self) -> Issue {
        Issue {
            step: self.id.clone().unwrap_or_else(|| self.op.arguments().to_owned()),
            actor: self.by.clone(),
            op: self.op.clone(),
            never_within: None,
            after: None,
        }
    }
}

impl Bodies {
    /// Reads them.
    pub(super) fn read() -> Result<Self> {
        Document { file: "bodies.yaml".to_owned(), text: include_str!("bodies.yaml").to_owned() }.load()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_body_can_be_repeated_and_counts_something() {
        let Bodies { setup, bodies } = Bodies::read().unwrap();
        let mut seen = BTreeSet::new();
        for body in &bodies {
            let about = &body.about;
            for line in body.before.iter().chain(&body.body).chain(&body.after) {
                assert!(setup.actors.contains_key(&line.by), "{about}: nobody is {}", line.by);
            }
            let actors: BTreeSet<&String> = body.body.iter().map(|line| &line.by).collect();
            assert_eq!(actors.len(), 1, "{about}: only one actor can repeat a body");
            let counted: Vec<&String> = body.body.iter().filter_map(|line| line.counts.as_ref()).collect();
            assert!(!counted.is_empty(), "{about} counts nothing");
            for what in counted {
                assert!(seen.insert((about, what)), "{about}: {what} is told twice");
            }
            let around = body.before.iter().chain(&body.after);
            assert!(around.into_iter().all(|line| line.counts.is_none()), "{about}: only a body counts");
        }
    }
}
