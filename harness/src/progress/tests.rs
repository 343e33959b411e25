// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each view under the same run, in which cases end in another order than they were planned.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::board::Board;
use super::plain::{Plain, SIGN_OF_LIFE};
use super::stream::Stream;
use super::{Bar, Progress, View};
use crate::events::{Event, FORMAT, Row};
use crate::judge::Verdict;
use crate::outcome::Kind;
use crate::record::Origin;

const KERNEL: &str = "mainline-6.12";

fn verdict(kind: Kind, step: Option<&str>, got: Option<&str>) -> Verdict {
    Verdict { kind, step: step.map(Into::into), title: None, expected: None, got: got.map(Into::into) }
}

fn planned(expected_ms: &[u64], jobs: usize) -> Event {
    let row = |(nr, expected_ms): (usize, &u64)| Row {
        // Rows that are not applicable have no place here, but a number.
        nr: nr * 2,
        id: format!("case/{nr}"),
        kernel: KERNEL.into(),
        expected_ms: *expected_ms,
    };
    let cases = expected_ms.iter().enumerate().map(row).collect();
    Event::RunStarted { format: FORMAT, folder: "/runs/1".into(), jobs, cases }
}

fn started(nr: usize) -> Event {
    Event::CaseStarted { nr: nr * 2, id: format!("case/{nr}"), kernel: KERNEL.into() }
}

fn doing(nr: usize, what: &str) -> Event {
    Event::CaseDoing { nr: nr * 2, what: what.into() }
}

fn ended(nr: usize, verdict: Verdict) -> Event {
    let green = verdict.kind == Kind::Pass;
    let (id, kernel) = (format!("case/{nr}"), KERNEL.into());
    let (machine, took_ms) = (Origin::Restored, 1_000 + nr as u64 * 250);
    Event::CaseEnded { nr: nr * 2, id, kernel, verdict, green, machine, took_ms }
}

/// A kernel is built; of five cases at two at a time the second and third overtake the first, which is
/// red; then the user has had enough, and the last is never started.
pub(super) fn story() -> Vec<Event> {
    let stage = || "mainline-6.12".to_owned();
    let step = |done, what: &str| Event::StageDoing { stage: stage(), done, total: Some(4), what: what.into() };
    let pass = || verdict(Kind::Pass, None, None);
    vec![
        planned(&[2_000, 2_000, 4_000, 4_000, 1_000], 2),
        Event::Message { text: "using tcg: no /dev/kvm".into() },
        Event::StageStarted { stage: stage(), total: Some(4) },
        step(1, "mm/gup.o"),
        step(2, "mm/memory.o"),
        Event::StageEnded { stage: stage(), done: 2, text: "built: 2 steps in 1 s".into() },
        started(0),
        started(1),
        doing(0, "boot"),
        doing(1, "cut owner: truncate"),
        ended(1, pass()),
        started(2),
        ended(2, pass()),
        ended(0, verdict(Kind::Fail, Some("cut"), Some("returned -EBUSY\nand more"))),
        started(3),
        Event::Message { text: "ending in good order (again to end at once)".into() },
        ended(4, verdict(Kind::NotRun, None, Some("the run was ended before"))),
        ended(3, verdict(Kind::NotRun, None, Some("the run was ended before"))),
        Event::RunEnded { exit: 130, results: Some("/runs/1/results.json".into()), took_s: 7.5, error: None },
    ]
}

fn uncoloured(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
}

/// The lines of a log, each with the event that let it out.
fn log_of(story: &[Event]) -> String {
    let (mut plain, now) = (Plain::default(), Instant::now());
    let mut text = String::new();
    for (nr, event) in story.iter().enumerate() {
        for line in uncoloured(&plain.hear(event, now)) {
            text += &format!("{nr:2} {line}\n");
        }
    }
    text
}

#[test]
fn a_log_is_in_the_order_of_the_plan() {
    insta::assert_snapshot!(log_of(&story()), @r"
     1 using tcg: no /dev/kvm
     5 mainline-6.12 built: 2 steps in 1 s
    13 FAIL          case/0 on mainline-6.12  1.0 s  (cut: returned -EBUSY)
    13 pass          case/1 on mainline-6.12  1.2 s
    13 pass          case/2 on mainline-6.12  1.5 s
    15 ending in good order (again to end at once)
    17 not-run       case/3 on mainline-6.12  1.8 s  (the run was ended before)
    17 not-run       case/4 on mainline-6.12  2.0 s  (the run was ended before)
    ");
}

#[test]
fn what_is_held_back_is_not_lost() {
    let story = story();
    // Cut off where the second and third case wait for the first.
    let cut = story.iter().position(|event| matches!(event, Event::CaseEnded { nr: 4, .. })).unwrap() + 1;
    let (mut plain, now) = (Plain::default(), Instant::now());
    for event in &story[..cut] {
        let lines = plain.hear(event, now);
        assert!(lines.iter().all(|line| !line.contains("case/")), "{lines:?}");
    }
    let rest = uncoloured(&plain.rest());
    assert_eq!(
        rest,
        ["pass          case/1 on mainline-6.12  1.2 s", "pass          case/2 on mainline-6.12  1.5 s"]
    );
    assert!(plain.rest().is_empty(), "once");
    // A run that failed ends as well.
    let mut plain = Plain::default();
    story[..cut].iter().for_each(|event| drop(plain.hear(event, now)));
    let failed = Event::RunEnded { exit: 125, results: None, took_s: 1.0, error: Some("x".into()) };
    assert_eq!(plain.hear(&failed, now).len(), 2);
}

#[test]
fn long_work_gives_a_sign_of_life_and_short_work_none() {
    let (mut plain, begun) = (Plain::default(), Instant::now());
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let life = SIGN_OF_LIFE.as_secs();
    assert!(plain.tick(at(0)).is_empty());
    plain.hear(&planned(&[100_000, 200_000, 40_000], 2), at(0));
    plain.hear(&Event::StageStarted { stage: "kernel".into(), total: Some(400) }, at(1));
    let step =
        Event::StageDoing { stage: "kernel".into(), done: 100, total: Some(400), what: "mm/gup.o".into() };
    plain.hear(&step, at(2));
    assert!(plain.tick(at(life - 1)).is_empty());
    assert!(plain.tick(at(life)).is_empty(), "it began after the last look");
    assert_eq!(plain.tick(at(life * 2)), ["kernel 100/400, 59 s, about 3 min to go: mm/gup.o"]);
    assert!(plain.tick(at(life * 2 + 1)).is_empty(), "once");
    plain.hear(&Event::StageEnded { stage: "kernel".into(), done: 400, text: String::new() }, at(70));
    assert!(plain.tick(at(90)).is_empty(), "nothing goes on");
    plain.hear(&started(0), at(90));
    plain.hear(&started(1), at(90));
    plain.hear(&ended(1, verdict(Kind::Fail, None, None)), at(119));
    // Of the first case 70 s are left, and 40 s of the third, at two at a time.
    assert_eq!(plain.tick(at(120)), ["1/3 cases, about 70 s to go, 1 not as expected"]);
    plain.hear(&ended(0, verdict(Kind::Pass, None, None)), at(121));
    plain.hear(&ended(2, verdict(Kind::Pass, None, None)), at(122));
    assert!(plain.tick(at(200)).is_empty(), "all ended");
}

#[test]
fn a_board_shows_what_goes_on() {
    let (mut board, begun) = (Board::default(), Instant::now());
    let mut shown = String::new();
    for (nr, event) in story().iter().enumerate() {
        let now = begun + Duration::from_millis(nr as u64 * 500);
        board.hear(event, now);
        for (_, line) in board.lines(now) {
            shown += &format!("{nr:2} {line}\n");
        }
    }
    insta::assert_snapshot!(shown);
}

/// Remembers what was written, piece by piece; full after `room` pieces, as a closed pipe is.
#[derive(Clone, Default)]
struct Pipe {
    written: Arc<Mutex<Vec<Vec<u8>>>>,
    room: Option<usize>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        if self.room.is_some_and(|room| written.len() >= room) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        written.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_has_every_event_as_a_line_of_its_own() {
    let pipe = Pipe::default();
    let (mut stream, now) = (Stream::to(Box::new(pipe.clone())), Instant::now());
    story().iter().for_each(|event| stream.hear(event, now));
    let written = pipe.written.lock().unwrap();
    // Each written at once and ended, so that lines of several processes cannot tear each other.
    assert!(
        written.iter().all(|line| line.ends_with(b"\n") && line.iter().filter(|b| **b == b'\n').count() == 1)
    );
    let back: Vec<Event> = written.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    // The second step came within a second of the first.
    let kept: Vec<Event> =
        story().into_iter().filter(|event| !matches!(event, Event::StageDoing { done: 2, .. })).collect();
    assert_eq!(back, kept);
    insta::assert_snapshot!(String::from_utf8(written.concat()).unwrap());
}

#[test]
fn the_documentation_names_every_event_and_field() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    for event in story() {
        let Value::Object(mut fields) = serde_json::to_value(event).unwrap() else { panic!("no object") };
        let name = fields.remove("event").unwrap();
        let begin = format!("| `{}` |", name.as_str().unwrap());
        let row =
            rows.iter().find(|row| row.starts_with(&begin)).unwrap_or_else(|| panic!("{name} is missing"));
        let column = row.split('|').nth(2).unwrap();
        let named = |field: &&String| {
            column.contains(&format!("`{field}`")) || column.contains(&format!("`{field}[]`"))
        };
        let missing: Vec<&String> = fields.keys().filter(|field| !named(field)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let pipe = Pipe { room: Some(3), ..Pipe::default() };
    let (mut stream, now) = (Stream::to(Box::new(pipe.clone())), Instant::now());
    story().iter().for_each(|event| stream.hear(event, now));
    assert_eq!(pipe.written.lock().unwrap().len(), 3);
}

#[test]
fn a_stage_counts_from_several_threads_and_tells_its_end_once() {
    let pipe = Pipe::default();
    let progress = Progress::of(View::Stream(Stream::to(Box::new(pipe.clone()))));
    let steps = |bar: &Bar| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| bar.step("x")));
            }
        });
    };
    let bar = progress.bar("good", Some(10));
    steps(&bar);
    assert_eq!(bar.count(), 100);
    bar.finish("built");
    drop(progress.bar("failed", None));
    let written = pipe.written.lock().unwrap().concat();
    let lines: Vec<Value> =
        String::from_utf8(written).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<&Value> = lines.iter().filter(|line| line["event"] == "stage_ended").collect();
    assert_eq!(ends.len(), 2);
    assert_eq!((&ends[0]["done"], &ends[0]["text"]), (&100.into(), &"built".into()));
    assert_eq!((&ends[1]["done"], &ends[1]["text"]), (&0.into(), &"".into()));
}
