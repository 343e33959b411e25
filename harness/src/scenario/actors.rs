// SPDX-License-Identifier: MIT OR Apache-2.0
//! Actors as a scenario declares them. What their handlers run may be a phrase, so that the part an actor
//! gets depends on the contract.

use std::collections::BTreeMap;

use holdfast_protocol::{ActorSetup, HandlerRun, HandlerSetup, Op, SignalAction, Where};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::contract::Contract;

/// A process of its own, or a thread of one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Opens the RDMA device of the case's provider, with a protection domain, before the first step.
    #[serde(default)]
    pub rdma: bool,
    /// Not started before the first step: a `fork` of another actor makes it.
    #[serde(default)]
    pub forked: bool,
    /// A second thread of that actor's process: what one has, the other has.
    #[serde(default)]
    pub thread_of: Option<String>,
    /// Signal handlers by a name of the scenario's choice.
    #[serde(default)]
    pub on_signal: BTreeMap<String, Handler>,
}

/// What an actor does about a signal.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// Standard name, `SIGRTMIN+1` included.
    pub signal: String,
    /// SA_RESTART.
    #[serde(default)]
    pub restart: bool,
    /// What becomes of the signal.
    #[serde(default)]
    pub action: SignalAction,
    /// Where it is answered.
    #[serde(default, rename = "in")]
    pub place: Where,
    /// What it does then, in order; `await: HANDLER.ID` collects it. When the signal comes again it is done
    /// again, and the later facts count.
    #[serde(default)]
    pub run: Vec<Run>,
}

/// One thing a handler does: an operation, or a phrase.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its id within the handler.
    pub id: String,
    /// An operation.
    #[serde(default, rename = "do")]
    pub op: Option<Op>,
    /// What the contract calls by this phrase.
    #[serde(default, rename = "use")]
    pub phrase: Option<String>,
    /// The phrase's parameters.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
}

impl Run {
    /// What it comes to under a contract, by id (`ID.1`, `ID.2` where it is several operations); nothing
    /// where its phrase is nothing.
    ///
    /// # Errors
    /// As [`Contract::phrase`].
    pub(super) fn ops(&self, contract: &Contract) -> Result<Vec<(String, Op)>, String> {
        let ops = match (&self.op, &self.phrase) {
            (Some(op), _) => vec![op.clone()],
            (None, Some(phrase)) => contract.phrase(phrase, &self.with)?,
            (None, None) => Vec::new(),
        };
        let count = ops.len();
        let id = |nr: usize| if count == 1 { self.id.clone() } else { format!("{}.{}", self.id, nr + 1) };
        Ok(ops.into_iter().enumerate().map(|(nr, op)| (id(nr), op)).collect())
    }
}

/// The step that a handler's operation is known as.
pub(super) fn step_of(handler: &str, id: &str) -> String {
    format!("{handler}.{id}")
}

impl Actor {
    /// Its part where each handler runs `ops` of what it is to do.
    pub(super) fn setup(&self, ops: impl Fn(&Run) -> Vec<(String, Op)>) -> ActorSetup {
        let handler = |(name, one): (&String, &Handler)| {
            let run = one.run.iter().flat_map(&ops);
            let run = run.map(|(id, op)| HandlerRun { id, op }).collect();
            let setup = HandlerSetup {
                signal: one.signal.clone(),
                restart: one.restart,
                action: one.action,
                place: one.place,
                run,
            };
            (name.clone(), setup)
        };
        ActorSetup {
            rdma: self.rdma,
            forked: self.forked,
            thread_of: self.thread_of.clone(),
            on_signal: self.on_signal.iter().map(handler).collect(),
        }
    }
}
