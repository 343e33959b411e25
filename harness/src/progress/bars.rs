// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress on a terminal. The only file that names indicatif, which is left to draw: what the lines
//! say is decided elsewhere.

use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::{Board, Subject, case_line};
use super::print;
use crate::events::Event;

/// Cut off at the terminal's width, whatever that is at the moment.
const LINE: &str = "{wide_msg}";
/// The same, and seen to be alive.
const LIVE_LINE: &str = "{spinner} {wide_msg}";

/// The lines at the bottom of the terminal.
pub(super) struct Bars {
    multi: MultiProgress,
    board: Board,
    bars: BTreeMap<Subject, ProgressBar>,
}

impl Bars {
    pub(super) fn on_stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        Self { multi, board: Board::default(), bars: BTreeMap::new() }
    }

    pub(super) fn hear(&mut self, event: &Event, now: Instant) {
        let line = match event {
            Event::Message { text } => Some(text.clone()),
            Event::StageEnded { stage, text, .. } if !text.is_empty() => Some(format!("{stage} {text}")),
            // One that never started is in the table; a kernel that does not build has many of them.
            Event::CaseEnded { nr, id, kernel, verdict, green: false, took_ms }
                if self.board.is_running(*nr) =>
            {
                Some(case_line(id, kernel, verdict, false, *took_ms))
            }
            _ => None,
        };
        self.board.hear(event, now);
        if let Some(line) = line {
            self.multi.suspend(|| print(&line));
        }
        self.draw(now);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.draw(now);
        for bar in self.bars.values() {
            bar.tick();
        }
    }

    fn draw(&mut self, now: Instant) {
        let lines = self.board.lines(now);
        self.bars.retain(|subject, bar| {
            let stays = lines.iter().any(|(one, _)| one == subject);
            if !stays {
                bar.finish_and_clear();
                self.multi.remove(bar);
            }
            stays
        });
        for (subject, text) in lines {
            let bar = self.bars.entry(subject).or_insert_with_key(|subject| begin(&self.multi, subject));
            if bar.message() != text {
                bar.set_message(text);
            }
        }
    }
}

fn begin(multi: &MultiProgress, subject: &Subject) -> ProgressBar {
    let template = if *subject == Subject::Run { LINE } else { LIVE_LINE };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new_spinner().with_style(style);
    match subject {
        Subject::Run => multi.insert(0, bar),
        Subject::Stage(_) | Subject::Case(_) => multi.add(bar),
    }
}
