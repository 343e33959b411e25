// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress where nobody looks at a terminal: whole lines in the order of the plan, so that the logs
//! of two runs can be laid side by side.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::board::{Board, case_line};
use crate::events::Event;

/// How often something is said while nothing ends.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// What was said, and what is held back. Each event and each look at the clock gives the lines to be
/// printed.
#[derive(Debug, Default)]
pub(super) struct Plain {
    board: Board,
    /// Rows whose line was not printed yet, in the order of the plan.
    order: VecDeque<usize>,
    held: BTreeMap<usize, String>,
    said: Option<Instant>,
}

impl Plain {
    pub(super) fn hear(&mut self, event: &Event, now: Instant) -> Vec<String> {
        self.board.hear(event, now);
        match event {
            Event::RunStarted { cases, .. } => {
                self.order = cases.iter().map(|row| row.nr).collect();
                Vec::new()
            }
            Event::Message { text } => vec![text.clone()],
            Event::StageEnded { stage, text, .. } if !text.is_empty() => vec![format!("{stage} {text}")],
            Event::CaseEnded { nr, id, kernel, verdict, green, took_ms, .. } => {
                self.held.insert(*nr, case_line(id, kernel, verdict, *green, *took_ms));
                self.released()
            }
            Event::RunEnded { .. } => self.rest(),
            _ => Vec::new(),
        }
    }

    /// The lines that wait for none before them any more.
    fn released(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.order.front().and_then(|nr| self.held.remove(nr)) {
            self.order.pop_front();
            lines.push(line);
        }
        lines
    }

    /// All that is held back: nothing will follow.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.order.clear();
        std::mem::take(&mut self.held).into_values().collect()
    }

    /// A sign of life, when it is time for one.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<String> {
        let said = *self.said.get_or_insert(now);
        if now.saturating_duration_since(said) < SIGN_OF_LIFE {
            return Vec::new();
        }
        self.said = Some(now);
        // What began only now needs no sign of life yet.
        let mut lines = self.board.stage_lines(said, now);
        if self.board.playing_since.is_some_and(|since| since <= said) {
            lines.extend(self.board.count("", now));
        }
        lines
    }
}
