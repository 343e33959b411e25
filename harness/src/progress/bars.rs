// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress on a terminal. The only file that names indicatif, which is left to draw: what the lines
//! say is decided elsewhere.

use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::{Board, Subject, case_line};
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
    /// Prints what is to stay, above the lines.
    print: fn(&str),
}

impl Bars {
    /// On standard error, where `print` prints too.
    pub(super) fn on_stderr(print: fn(&str)) -> Self {
        Self::on(ProgressDrawTarget::stderr(), print)
    }

    fn on(target: ProgressDrawTarget, print: fn(&str)) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        Self { multi, board: Board::default(), bars: BTreeMap::new(), print }
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
            self.multi.suspend(|| (self.print)(&line));
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

#[cfg(test)]
mod tests {
    use std::io::Result;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use indicatif::TermLike;

    use super::super::tests::story;
    use super::*;

    /// A terminal that remembers the pieces of each drawing.
    #[derive(Clone, Debug, Default)]
    struct Screen {
        width: u16,
        height: u16,
        now: Arc<Mutex<Vec<String>>>,
        drawings: Arc<Mutex<Vec<Vec<String>>>>,
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.width
        }
        fn height(&self) -> u16 {
            self.height
        }
        fn move_cursor_up(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> Result<()> {
            // Blanks fill the row.
            if !text.trim().is_empty() {
                self.now.lock().unwrap().push(text.to_owned());
            }
            Ok(())
        }
        fn clear_line(&self) -> Result<()> {
            Ok(())
        }
        fn flush(&self) -> Result<()> {
            let drawn = std::mem::take(&mut *self.now.lock().unwrap());
            self.drawings.lock().unwrap().push(drawn);
            Ok(())
        }
    }

    /// What a person sees of the story on a terminal of this size.
    fn shown(width: u16, height: u16, print: fn(&str)) -> Vec<Vec<String>> {
        let screen = Screen { width, height, ..Screen::default() };
        let mut bars = Bars::on(ProgressDrawTarget::term_like(Box::new(screen.clone())), print);
        let begun = Instant::now();
        for (nr, event) in story().iter().enumerate() {
            let now = begun + Duration::from_secs(nr as u64);
            bars.hear(event, now);
            bars.tick(now);
        }
        assert!(bars.bars.is_empty(), "a line that came again would stay hidden");
        std::mem::take(&mut *screen.drawings.lock().unwrap())
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        for (width, height) in [(200, 50), (80, 24), (40, 10), (20, 3), (12, 2), (3, 1)] {
            let drawings = shown(width, height, |_| {});
            assert!(drawings.iter().any(|rows| rows.len() == usize::from(height.min(3))), "{width}x{height}");
            for rows in &drawings {
                assert!(rows.len() <= usize::from(height), "{width}x{height}: {rows:?}");
                let is_narrow = |row: &String| row.chars().count() <= usize::from(width);
                assert!(rows.iter().all(is_narrow), "{width}x{height}: {rows:?}");
            }
            assert!(drawings.last().is_none_or(Vec::is_empty), "something is left: {drawings:?}");
        }
    }

    #[test]
    fn only_what_was_played_and_is_not_as_expected_leaves_a_line() {
        static PRINTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        shown(80, 24, |line| PRINTED.lock().unwrap().push(anstream::adapter::strip_str(line).to_string()));
        let printed = PRINTED.lock().unwrap().join("\n");
        insta::assert_snapshot!(printed, @r"
        using tcg: no /dev/kvm
        mainline-6.12 built: 2 steps in 1 s
        FAIL          case/0 on mainline-6.12  1.0 s  (cut: returned -EBUSY)
        ending in good order (again to end at once)
        not-run       case/3 on mainline-6.12  1.8 s  (the run was ended before)
        ");
    }
}
