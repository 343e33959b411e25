// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress for programs: every event as a line of JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::events::Event;

/// A build has thousands of steps; one in this time is told.
const STEPS_APART: Duration = Duration::from_secs(1);

/// Where the lines go.
pub(super) struct Stream {
    out: Box<dyn Write + Send>,
    /// When a step of a stage was told last.
    told: BTreeMap<String, Instant>,
}

impl Stream {
    pub(super) fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out, told: BTreeMap::new() }
    }

    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        match event {
            Event::StageDoing { stage, .. } => {
                let told = self.told.get(stage);
                if told.is_some_and(|told| now.saturating_duration_since(*told) < STEPS_APART) {
                    return;
                }
                self.told.insert(stage.clone(), now);
            }
            Event::StageEnded { stage, .. } => {
                self.told.remove(stage);
            }
            _ => {}
        }
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        // A reader that has seen enough is no reason to end a run, whose results are in its folder.
        let _ = self.out.write_all(&line).and_then(|()| self.out.flush());
    }
}
