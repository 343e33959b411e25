// SPDX-License-Identifier: MIT OR Apache-2.0
//! From lines to nested tests.

use super::line::{self, Directive, Line, Told};
use super::{Fault, Report, Status, Test, Tests};

/// What the kernel prints when its tests are over: init/do_mounts.c mount_root_generic(), kernel/reboot.c
/// kernel_halt(). A kernel log goes on behind it, with nothing of the tests.
const ENDS: [&str; 3] =
    ["List of all partitions:", "Kernel panic - not syncing: VFS:", "reboot: System halted"];

/// Versions there are of KTAP and of TAP.
const KTAP: [u64; 1] = [1];
const TAP: [u64; 2] = [13, 14];

/// How deep tests are nested at most; what is indented further counts as the deepest. Each level is a call deep
/// for who looks at the result.
const MOST_LEVELS: usize = 64;

pub(super) fn read(text: &str) -> Report {
    let mut reader = Reader::default();
    let mut prefix = None;
    for (nr, line) in text.lines().enumerate() {
        reader.line = nr + 1;
        if prefix.is_none() {
            prefix = prefix_of(line);
        }
        let line = without(line, prefix.unwrap_or_default());
        let over = prefix.is_some() && ENDS.iter().any(|end| line.trim_start().starts_with(end));
        if over || reader.take(line) {
            break;
        }
    }
    reader.line += 1;
    reader.end()
}

/// What stands before the first version line: nothing, or the stamps of a kernel log.
fn prefix_of(line: &str) -> Option<&str> {
    let at = line.find("KTAP version ").or_else(|| line.find("TAP version "))?;
    matches!(line::read(&line[at..]).1, Line::Version { .. }).then_some(&line[..at])
}

/// A line without as many characters as the prefix has. One that begins otherwise has none: somebody else said it.
fn without<'a>(line: &'a str, prefix: &str) -> &'a str {
    let alike = match (line.chars().next(), prefix.chars().next()) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    };
    if !alike {
        return line;
    }
    line.char_indices().nth(prefix.chars().count()).map_or("", |(at, _)| &line[at..])
}

/// A level whose tests are being told.
#[derive(Debug, Default)]
struct Level {
    indent: usize,
    /// The name that `# Subtest:` gave.
    name: Option<String>,
    /// A line says that it is one: `# Subtest:`, a version or a plan, not the indentation of its results alone.
    is_announced: bool,
    /// A plan or a test was seen, so that another header begins another level.
    has_begun: bool,
    tests: Tests,
    log: Vec<String>,
}

#[derive(Debug, Default)]
struct Reader {
    /// From the outermost on, each indented further. None before the first line that says something.
    levels: Vec<Level>,
    /// A suite's name that the next line that says something gives to a level, and the name's indentation.
    pending: Option<(usize, String)>,
    /// Indentation of a block of YAML behind a result (TAP 14), while it lasts.
    block: Option<usize>,
    line: usize,
    report: Report,
}

impl Reader {
    fn fault(&mut self, what: impl Into<String>) {
        self.report.faults.push(Fault { line: self.line, what: what.into() });
    }

    /// Takes a line; true when nothing of the tests can follow.
    fn take(&mut self, text: &str) -> bool {
        let (indent, line) = line::read(text);
        if self.is_in_block(indent, text.trim()) {
            return false;
        }
        if matches!(line, Line::Version { .. } | Line::Plan { .. } | Line::Result(_)) {
            self.give_name(indent, &line);
        }
        match line {
            Line::Version { is_ktap, number } => {
                let known: &[u64] = if is_ktap { &KTAP } else { &TAP };
                if !known.contains(&number) {
                    let name = if is_ktap { "KTAP" } else { "TAP" };
                    self.fault(format!("{name} version {number} is not known"));
                }
                self.header(indent);
            }
            Line::Subtest(name) => self.subtest(indent, name),
            Line::Plan { count, skip } => self.plan(indent, count, skip),
            Line::Result(told) => self.result(indent, &told),
            Line::BailOut(why) => {
                self.report.bailed_out = Some(why.to_owned());
                return true;
            }
            Line::Comment(text) => self.talk(text),
            Line::Other => self.talk(text.trim()),
        }
        false
    }

    fn talk(&mut self, text: &str) {
        // What is said before the first test is about none.
        if let (Some(level), false) = (self.levels.last_mut(), text.is_empty()) {
            level.log.push(text.to_owned());
        }
    }

    /// The level of that indentation, begun where there is none; deeper ones are over, without a result.
    fn at(&mut self, indent: usize) -> &mut Level {
        while self.levels.len() > 1 && self.top().indent > indent {
            self.lose();
        }
        match self.levels.last() {
            Some(level) if level.indent >= indent || self.levels.len() == MOST_LEVELS => {}
            _ => self.levels.push(Level { indent, ..Level::default() }),
        }
        self.top()
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("asked for where there is one")
    }

    /// A block of what goes with a result: nothing in it is one. It ends with `...`, or where a line is indented
    /// less.
    fn is_in_block(&mut self, indent: usize, text: &str) -> bool {
        match self.block {
            None if text == "---" && self.levels.last().is_some_and(|level| indent > level.indent) => {
                self.block = Some(indent);
            }
            None => return false,
            Some(_) if text.is_empty() => {}
            Some(begun) if indent < begun => {
                self.block = None;
                return false;
            }
            Some(begun) if indent == begun && text == "..." => self.block = None,
            Some(_) => self.talk(text),
        }
        true
    }

    /// KTAP names a suite within its own level, TAP 14 in that of its result: only what follows tells.
    fn subtest(&mut self, indent: usize, name: &str) {
        let outer = self.pending.take();
        let is_new = self.levels.iter().all(|level| level.indent != indent);
        let level = self.at(indent);
        match outer {
            // Two suites, one within the other, before either has a test.
            Some((at, outer)) if at < indent && is_new => {
                level.name = Some(outer);
                level.is_announced = true;
                self.pending = Some((indent, name.to_owned()));
            }
            Some((_, outer)) => {
                self.fault(format!("of `{outer}` nothing is said but its name"));
                self.pending = Some((indent, name.to_owned()));
            }
            None if is_new => {
                level.name = Some(name.to_owned());
                level.is_announced = true;
            }
            None => self.pending = Some((indent, name.to_owned())),
        }
    }

    /// Gives a suite's name to the level that a line of this indentation belongs to.
    fn give_name(&mut self, indent: usize, line: &Line<'_>) {
        let Some((at, name)) = self.pending.take() else { return };
        if indent < at {
            // A suite of which nothing more is said.
            let (name, indent) = (Some(name), at + 1);
            self.levels.push(Level { indent, name, is_announced: true, ..Level::default() });
            return;
        }
        if indent == at && self.levels.len() > 1 && self.at(indent).has_begun {
            // What went on there broke off, unless its tests are counted on.
            if matches!(line, Line::Result(told) if told.number != Some(1)) {
                return;
            }
            self.lose();
            self.levels.push(Level { indent, ..Level::default() });
        }
        let level = self.at(indent);
        level.name = Some(name);
        level.is_announced = true;
    }

    /// A version: of a level that has not begun, or a new one.
    fn header(&mut self, indent: usize) {
        self.at(indent);
        if self.levels.len() > 1 && self.top().has_begun {
            self.lose();
            self.levels.push(Level { indent, ..Level::default() });
        }
        self.top().is_announced = true;
    }

    fn plan(&mut self, indent: usize, count: u64, skip: Option<&str>) {
        let level = self.at(indent);
        level.is_announced = true;
        level.has_begun = true;
        let again = level.tests.plan.replace(count).is_some();
        if again {
            self.fault("a second plan");
        }
        if let (Some(why), 1) = (skip, self.levels.len()) {
            self.report.skipped = Some(why.to_owned());
        }
    }

    fn result(&mut self, indent: usize, told: &Told<'_>) {
        // The tests of the level just below are those of this one; what is deeper has no result.
        let mut below = None;
        while self.levels.len() > 1 && self.top().indent > indent {
            let next = self.levels.len().checked_sub(2).and_then(|nr| self.levels.get(nr));
            let is_ours = next.is_some_and(|level| level.indent <= indent) && self.top().is_announced;
            let name = self.top().name.clone();
            if is_ours && name.as_deref().is_none_or(|name| name == told.name) {
                below = self.levels.pop();
            } else {
                self.lose();
            }
        }
        let level = self.at(indent);
        level.has_begun = true;
        let log = std::mem::take(&mut level.log);
        let expected = level.tests.list.len() as u64 + 1;
        if let Some(number) = told.number
            && number != expected
        {
            self.fault(format!("number {number} where {expected} was to come"));
        }
        let tests = below.map(|level| self.tests_of(level));
        let mut status = match told.directive {
            Some(Directive::Skip) => Status::Skipped,
            Some(Directive::Todo | Directive::Unexpected) => Status::Known,
            Some(Directive::Timeout) => Status::NotOk,
            None if told.ok => Status::Ok,
            None => Status::NotOk,
        };
        match &tests {
            Some(tests) if tests.list.is_empty() && tests.missing() == 0 && status == Status::Ok => {
                status = Status::Empty;
                self.fault(format!("`{}` has no test", told.name));
            }
            Some(tests) if status == Status::Ok && tests.list.iter().any(|one| one.status == Status::NotOk) => {
                self.fault(format!("`{}` is said to be ok, and a test of it is not", told.name));
            }
            Some(tests)
                if status == Status::NotOk
                    && tests.missing() == 0
                    && !tests.list.iter().any(|one| matches!(one.status, Status::NotOk | Status::Lost)) =>
            {
                self.fault(format!("`{}` is not ok, and every test of it is", told.name));
            }
            _ => {}
        }
        let runs = log.iter().rev().find_map(|line| line.strip_prefix("[RUN]"));
        let (what, says) = (runs.map(str::trim), told.name);
        // A kselftest that skips says what it skips behind the word.
        let says = if says.is_empty() { told.reason } else { says };
        let name = match what {
            Some(what) if says.is_empty() => what.to_owned(),
            Some(what) => format!("{what}: {says}"),
            None => says.to_owned(),
        };
        let test = Test { number: told.number, name, status, reason: told.reason.to_owned(), log, tests };
        self.top().tests.list.push(test);
    }

    /// The innermost level is over, and no result came for it.
    fn lose(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        let (name, is_announced, log) = (level.name.clone(), level.is_announced, level.log.clone());
        let tests = self.tests_of(level);
        let Some(above) = self.levels.last_mut() else { return };
        above.has_begun = true;
        if !is_announced {
            // Indented for no reason that it told.
            above.tests.list.extend(tests.list);
            above.log.extend(log);
            return;
        }
        let name = name.unwrap_or_default();
        let log = [std::mem::take(&mut above.log), log].concat();
        let reason = String::new();
        above.tests.list.push(Test {
            number: None,
            name: name.clone(),
            status: Status::Lost,
            reason,
            log,
            tests: Some(tests),
        });
        self.fault(format!("`{name}` has no result"));
    }

    /// The tests of a level that is over.
    fn tests_of(&mut self, level: Level) -> Tests {
        let tests = level.tests;
        let told = tests.list.len() as u64;
        if let Some(plan) = tests.plan.filter(|plan| *plan != told) {
            self.fault(format!("{plan} tests were announced, {told} told of"));
        }
        tests
    }

    fn end(mut self) -> Report {
        if let Some((_, name)) = self.pending.take() {
            self.fault(format!("of `{name}` nothing is said but its name"));
        }
        while self.levels.len() > 1 {
            self.lose();
        }
        if let Some(level) = self.levels.pop() {
            self.report.tests = self.tests_of(level);
        }
        let tests = &self.report.tests;
        if tests.list.is_empty() && tests.missing() == 0 && self.report.skipped.is_none() {
            self.fault("no test is told of");
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::tap::Counts;

    fn lines(report: &Report) -> Vec<String> {
        report.results().into_iter().map(|(path, test)| format!("{path}: {:?}", test.status)).collect()
    }

    fn faults(report: &Report) -> Vec<String> {
        report.faults.iter().map(|fault| format!("{}: {}", fault.line, fault.what)).collect()
    }

    #[test]
    fn tests_are_nested_by_indentation() {
        let report = read(
            "KTAP version 1\n1..2\n  KTAP version 1\n  # Subtest: a\n  1..2\n  ok 1 x\n    # Subtest: y\n    1..1\n    not ok 1 z\n  not ok 2 y\nnot ok 1 a\nok 2 b # SKIP no device\n",
        );
        assert_eq!(lines(&report), ["a/x: Ok", "a/y/z: NotOk", "b: Skipped"]);
        assert_eq!(faults(&report), [""; 0]);
        assert_eq!(report.counts(), Counts { ok: 1, not_ok: 1, skipped: 1, ..Counts::default() });
    }

    #[test]
    fn a_kselftest_is_called_by_what_it_runs() {
        let report = read(
            "# [INFO] huge pages: 2048 KiB\nTAP version 13\n1..3\n# [RUN] pin ... with memfd\nok 1 Should have worked\n# [RUN] pin ... with tmpfile\nnot ok 2 Should have worked\n# [RUN] pin ... with hugetlb\nok 3 # SKIP need more free huge pages\n# 1 skipped test(s) detected.\n# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n",
        );
        let want = [
            "pin ... with memfd: Should have worked: Ok",
            "pin ... with tmpfile: Should have worked: NotOk",
            "pin ... with hugetlb: need more free huge pages: Skipped",
        ];
        assert_eq!(lines(&report), want);
        assert_eq!(faults(&report), [""; 0]);
    }

    #[test]
    fn what_is_known_may_come_out_either_way() {
        let report = read("1..4\nnot ok 1 a # TODO later\nok 2 b # TODO\nok 3 # XFAIL c\nok 4 # XPASS d\n");
        assert_eq!(report.counts(), Counts { known: 4, ..Counts::default() });
        assert!(report.faults.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_a_fault_and_hides_nothing() {
        let table = [
            ("1..3\nok 1 a\n", "3: 3 tests were announced, 1 told of"),
            ("1..1\nok 1 a\nok 2 b\n", "4: 1 tests were announced, 2 told of"),
            ("1..2\nok 1 a\nok 3 b\n", "3: number 3 where 2 was to come"),
            ("1..2\n1..2\nok 1 a\nok 2 b\n", "2: a second plan"),
            ("KTAP version 2\n1..1\nok 1 a\n", "1: KTAP version 2 is not known"),
            ("TAP version 12\n1..1\nok 1 a\n", "1: TAP version 12 is not known"),
            ("1..0\n", "2: no test is told of"),
            ("", "1: no test is told of"),
            ("hello\n", "2: no test is told of"),
            (
                "1..1\n  # Subtest: s\n  1..1\n  not ok 1 c\nok 1 s\n",
                "5: `s` is said to be ok, and a test of it is not",
            ),
            (
                "1..1\n  # Subtest: s\n  1..1\n  ok 1 c\nnot ok 1 s\n",
                "5: `s` is not ok, and every test of it is",
            ),
            ("1..1\n  # Subtest: s\n  1..1\n  ok 1 c\n", "5: `s` has no result"),
        ];
        for (text, want) in table {
            let report = read(text);
            assert!(faults(&report).iter().any(|fault| fault == want), "{text:?}: {:?}", faults(&report));
            let results = text.matches("ok 1").count();
            assert!(report.counts().total() >= u64::from(results > 0), "{text:?}");
        }
    }

    #[test]
    fn a_plan_may_come_last_and_a_program_may_give_up_or_skip_all() {
        assert_eq!(faults(&read("ok 1 a\nnot ok 2 b\n1..2\n")), [""; 0]);
        let report = read("1..2\nok 1 a\nBail out! no memory\nok 2 b\n");
        assert_eq!((report.bailed_out.as_deref(), report.counts().lost), (Some("no memory"), 1));
        let report = read("TAP version 13\n1..0 # SKIP no such device\n");
        assert_eq!((report.skipped.as_deref(), faults(&report).len()), (Some("no such device"), 0));
    }

    #[test]
    fn a_suite_that_broke_off_is_not_taken_for_the_next_one() {
        let report = read(
            "KTAP version 1\n1..2\n  # Subtest: a\n  1..2\n  ok 1 x\n  # Subtest: b\n  1..1\n  ok 1 y\nok 2 b\n",
        );
        assert_eq!(lines(&report), ["a/x: Ok", "a: Lost", "b/y: Ok"]);
        assert_eq!(report.counts(), Counts { ok: 2, lost: 1, ..Counts::default() });
        assert!(faults(&report).contains(&"7: `a` has no result".to_owned()));
    }

    #[test]
    fn the_nesting_of_tap_14_is_understood_and_its_blocks_are_skipped() {
        let report = read(
            "TAP version 14\n# Subtest: a\n    # Subtest: b\n        not ok 1 - c\n          ---\n          stdout: |\n            not ok 1 - inner\n          ...\n        1..1\n    not ok 1 - b\n    # Subtest: d\n        ok 1 - e\n        1..1\n    ok 2 - d\n    1..2\nnot ok 1 - a\n1..1\n",
        );
        assert_eq!(lines(&report), ["a/b/c: NotOk", "a/d/e: Ok"]);
        assert_eq!(faults(&report), [""; 0]);
        // A block that nobody ends hides nothing behind it.
        let report = read("1..2\nok 1 a\n  ---\n  x: y\nnot ok 2 b\n");
        assert_eq!(lines(&report), ["a: Ok", "b: NotOk"]);
    }

    #[test]
    fn somebody_elses_words_are_no_results() {
        let report = read("1..2\nok 1 a\n[   12.3] BUG: \u{fffd}\0ok 2 b\nnot ok 2 - c\n");
        assert_eq!(lines(&report), ["a: Ok", "c: NotOk"]);
        assert!(report.tests.list[1].log[0].contains("BUG"));
    }

    #[test]
    fn stamps_of_a_kernel_log_are_taken_off_where_they_are() {
        let report = read(
            "[    0.06][   T1] TAP version 14\n[    0.06][   T1] 1..2\n[    0.06][   T1] ok 1 - a\nok 2 - b\n[    0.06][   T1] reboot: System halted\n[    0.06][   T1] ok 3 - c\n",
        );
        assert_eq!(lines(&report), ["a: Ok", "b: Ok"]);
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }

    #[test]
    fn absurd_texts_are_bounded() {
        let mut text = String::new();
        for depth in 0..2000 {
            let _ = writeln!(text, "{}# Subtest: {depth}", " ".repeat(depth));
        }
        let report = read(&text);
        assert!(report.results().len() <= 2000);
        let report = read("1..18446744073709551615\n  1..18446744073709551615\n  ok 1 a\nok 1 b\n");
        assert_eq!(report.counts().lost, u64::MAX);
    }

    proptest! {
        #[test]
        fn any_text_has_a_reading(lines in proptest::collection::vec(
            "( {0,4}(ok|not ok|1\\.\\.|# Subtest:|KTAP version|Bail out!|#)[ 0-3]{0,3}[a-c#\\-]{0,4}( # (SKIP|TODO|x).?)?|.{0,12})", 0..24
        )) {
            let text = lines.join("\n");
            let report = read(&text);
            let told = text.lines().filter(|line| line.trim_start().starts_with("ok") || line.trim_start().starts_with("not ok")).count();
            let listed = report.results().iter().filter(|(_, test)| test.status != Status::Lost).count();
            prop_assert!(listed <= told, "{listed} of {told}");
            prop_assert!(report.faults.iter().all(|fault| fault.line >= 1 && fault.line <= text.lines().count() + 1));
        }
    }
}
