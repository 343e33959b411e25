// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress on a terminal. The only file that names indicatif, which is left to draw: what the lines
//! say is decided elsewhere.

use std::collections::BTreeMap;
use std::io::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::board::{Board, Subject, case_line};
use crate::events::Event;

/// Cut off at the terminal's width, whatever that is at the moment.
const LINE: &str = "{wide_msg}";
/// The same, and seen to be alive.
const LIVE_LINE: &str = "{spinner} {wide_msg}";
/// Drawings a second, at most.
const DRAWN_HZ: u8 = 20;

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
        let rows = Rows::of(Term::buffered_stderr());
        Self::on(ProgressDrawTarget::term_like_with_hz(Box::new(rows), DRAWN_HZ), print)
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
            Event::CaseEnded { nr, id, kernel, verdict, green: false, took_ms, .. }
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

/// A terminal on which rows end where their text ends, and the cursor rests at the beginning of the
/// last one. indicatif fills rows with blanks up to the edge instead: what a terminal made narrower then
/// wraps, and the `^C` it echoes in a new row, would leave a row behind that nobody clears.
#[derive(Debug)]
struct Rows<T> {
    term: T,
    /// The row is drawn; another one begins only if there is more to be drawn.
    is_drawn: AtomicBool,
}

impl<T: TermLike> Rows<T> {
    fn of(term: T) -> Self {
        Self { term, is_drawn: AtomicBool::new(false) }
    }
}

impl<T: TermLike> TermLike for Rows<T> {
    fn width(&self) -> u16 {
        self.term.width()
    }

    fn height(&self) -> u16 {
        self.term.height()
    }

    fn move_cursor_up(&self, rows: usize) -> Result<()> {
        self.term.move_cursor_up(rows)
    }

    fn move_cursor_down(&self, rows: usize) -> Result<()> {
        self.term.move_cursor_down(rows)
    }

    fn move_cursor_right(&self, columns: usize) -> Result<()> {
        self.term.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> Result<()> {
        self.term.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> Result<()> {
        self.term.write_line(text)
    }

    fn write_str(&self, text: &str) -> Result<()> {
        // The blanks that follow each row, none where it is full.
        if text.bytes().all(|byte| byte == b' ') {
            self.is_drawn.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if self.is_drawn.swap(false, Ordering::Relaxed) {
            self.term.write_str("\r\n")?;
        }
        self.term.write_str(text)
    }

    fn clear_line(&self) -> Result<()> {
        self.term.clear_line()
    }

    fn flush(&self) -> Result<()> {
        self.is_drawn.store(false, Ordering::Relaxed);
        self.term.write_str("\r")?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
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
            self.now.lock().unwrap().push(text.to_owned());
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

    fn texts(pieces: &[String]) -> Vec<String> {
        pieces.iter().filter(|piece| !piece.trim().is_empty()).cloned().collect()
    }

    /// What a person sees of the story on a terminal of this size.
    fn shown(width: u16, height: u16, print: fn(&str)) -> Vec<Vec<String>> {
        let screen = Screen { width, height, ..Screen::default() };
        let rows = Rows::of(screen.clone());
        let mut bars = Bars::on(ProgressDrawTarget::term_like(Box::new(rows)), print);
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
            let most = drawings.iter().map(|rows| texts(rows).len()).max();
            assert_eq!(most, Some(usize::from(height.min(3))), "{width}x{height}");
            for rows in drawings.iter().map(|rows| texts(rows)) {
                assert!(rows.len() <= usize::from(height), "{width}x{height}: {rows:?}");
                let is_narrow = |row: &String| row.chars().count() <= usize::from(width);
                assert!(rows.iter().all(is_narrow), "{width}x{height}: {rows:?}");
            }
            let last = texts(drawings.last().unwrap());
            assert!(last.is_empty(), "something is left: {last:?}");
        }
    }

    #[test]
    fn rows_end_with_their_text_and_the_cursor_rests_at_the_left() {
        for pieces in shown(80, 24, |_| {}) {
            assert_eq!(pieces.last().map(String::as_str), Some("\r"), "{pieces:?}");
            let rows = texts(&pieces);
            assert_eq!(pieces.concat(), format!("{}\r", rows.join("\r\n")));
            assert!(rows.iter().all(|row| row.trim_end() == row), "{rows:?}");
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
