// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcome grammar: what a step is expected to come back with.
//!
//! ```text
//! OUTCOME := "one of:" ONE ("," ONE)* | ONE
//! ```
//! ONE stands in the module `outcomes`.

use std::fmt;

use holdfast_protocol::Outcome;
use serde::{Deserialize, Serialize};

pub use super::outcomes::describe;
use super::outcomes::{One, Sort, lead};

/// A set of outcomes, any of which is as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expect(Vec<One>);

impl Expect {
    /// Plain success, what a step without an expectation must come back with.
    #[must_use]
    pub fn ok() -> Self {
        Self(vec![One::Ok(None)])
    }

    /// True if the outcome is in the set. `number` is what the step of that id returned: descriptors are
    /// expected by their handles.
    #[must_use]
    pub fn admits(&self, outcome: &Outcome, number: &dyn Fn(&str) -> Option<i64>) -> bool {
        self.0.iter().any(|one| one.admits(outcome, number))
    }

    /// True if everything of another set is in this one.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|one| self.0.contains(one))
    }

    /// Ids of the steps whose numbers are expected.
    pub fn handles(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(One::handle)
    }

    /// Actors whose threads are expected to get a signal.
    pub fn threads(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(One::thread)
    }

    /// True if silence is in the set: the step then watches for as long as it may take.
    #[must_use]
    pub fn admits_silence(&self) -> bool {
        self.0.contains(&One::NoSignal)
    }

    /// Outcomes that differ from one in what this set says something about.
    #[must_use]
    pub fn contraries(&self, outcome: &Outcome) -> Vec<Outcome> {
        self.0.iter().flat_map(|one| one.contraries(outcome)).collect()
    }

    /// True if only errors are in the set: a refusal, whose result no later step can use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.0.iter().all(|one| one.kind() == Sort::Refusal)
    }

    /// True if a refusal is in the set: it needs a twin.
    #[must_use]
    pub fn may_refuse(&self) -> bool {
        self.0.iter().any(|one| one.kind() == Sort::Refusal)
    }

    /// True if the set says one thing: all its members succeed, or refuse, or block, and so on. A
    /// step that proves something with `one of: ok, EPERM` proves nothing.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].kind() == pair[1].kind())
    }

    /// True if a value of success is in the set: then the value that came is worth telling.
    #[must_use]
    pub fn names_a_value(&self) -> bool {
        self.0.iter().any(|one| matches!(one, One::Ok(Some(_))))
    }

    /// True if the operation may still be under way afterwards.
    #[must_use]
    pub fn may_block(&self) -> bool {
        self.0.contains(&One::Blocks)
    }

    /// True if plain success is in the set.
    #[must_use]
    pub fn admits_success(&self) -> bool {
        self.0.iter().any(|one| matches!(one, One::Ok(_)))
    }
}

impl std::str::FromStr for Expect {
    type Err = String;

    /// The message ends with the column, from 1, within the outcome.
    fn from_str(text: &str) -> Result<Self, String> {
        let (list, mut column) = match text.trim_start().strip_prefix("one of:") {
            Some(list) => (list, text.len() - list.len()),
            None => {
                return One::parse(text)
                    .map(|one| Self(vec![one]))
                    .map_err(|why| format!("{why} (column {} of the outcome)", lead(text) + 1));
            }
        };
        let mut set = Vec::new();
        for part in list.split(',') {
            let at = column + lead(part) + 1;
            set.push(One::parse(part).map_err(|why| format!("{why} (column {at} of the outcome)"))?);
            column += part.len() + 1;
        }
        Ok(Self(set))
    }
}

impl TryFrom<String> for Expect {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Expect> for String {
    fn from(expect: Expect) -> Self {
        expect.to_string()
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            f.write_str("one of: ")?;
        }
        for (nr, one) in self.0.iter().enumerate() {
            f.write_str(if nr == 0 { "" } else { ", " })?;
            one.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::{SHOWN_CUT, Signalled};
    use proptest::prelude::*;

    /// One of each kind of outcome.
    const ATOMS: [&str; 13] = [
        "ok",
        "ok 4096",
        "ok -3",
        "ETXTBSY",
        "REM_ACCESS_ERR",
        "differs",
        "blocks",
        "killed SIGRTMIN+1",
        "exited 3",
        "faults SIGBUS",
        "shows a  b",
        "signal SIGIO code POLL_MSG fd $fd thread owner",
        "no signal",
    ];

    fn expect(text: &str) -> Expect {
        text.parse().unwrap()
    }

    /// The step `fd` returned 9.
    fn nine(id: &str) -> Option<i64> {
        (id == "fd").then_some(9)
    }

    fn signalled(code: &str, fd: Option<i32>) -> Outcome {
        let (signal, code) = ("SIGIO".to_owned(), code.to_owned());
        Outcome::Signalled(Signalled {
            signal,
            code,
            fd,
            count: 1,
            thread: "owner".into(),
            ..Default::default()
        })
    }

    #[test]
    fn a_set_admits_its_members_and_nothing_else() {
        let blocked = Outcome::Blocked { state: "S".into(), wchan: String::new(), stack: vec![] };
        let faulted = |signal: &str| Outcome::Faulted { signal: signal.into(), code: "BUS_ADRERR".into() };
        let table = [
            ("ok", Outcome::Returned(0), true),
            ("ok", Outcome::Returned(4096), true),
            ("ok 4096", Outcome::Returned(0), false),
            ("ok", Outcome::Errno(4), false),
            ("EINTR", Outcome::Errno(4), true),
            ("EINTR", Outcome::Errno(5), false),
            ("ENOTSUP", Outcome::Errno(95), true),
            ("one of: ok, EINTR", Outcome::Errno(4), true),
            ("one of: ok, EINTR", blocked.clone(), false),
            ("blocks", blocked, true),
            ("blocks", Outcome::Returned(0), false),
            ("REM_ACCESS_ERR", Outcome::Completion("REM_ACCESS_ERR".into()), true),
            ("REM_ACCESS_ERR", Outcome::Completion("WR_FLUSH_ERR".into()), false),
            ("killed SIGKILL", Outcome::Killed("SIGKILL".into()), true),
            ("killed SIGKILL", Outcome::Killed("SIGIO".into()), false),
            ("differs", Outcome::Differs { at: 0, want: 1, got: 2 }, true),
            ("faults SIGBUS", faulted("SIGBUS"), true),
            ("faults SIGBUS", faulted("SIGSEGV"), false),
            ("faults SIGBUS", Outcome::Killed("SIGBUS".into()), false),
            ("shows LEASE  ACTIVE", Outcome::Shown("1: LEASE  ACTIVE".into()), true),
            ("shows LEASE", Outcome::Shown("none".into()), false),
            ("shows LEASE", Outcome::Returned(0), false),
            ("lacks LEASE", Outcome::Shown("none".into()), true),
            ("lacks LEASE", Outcome::Shown("LEASE".into()), false),
            ("lacks LEASE", Outcome::Errno(2), false),
            ("lacks LEASE", Outcome::Shown(format!("none{SHOWN_CUT}1 of 2 bytes)")), false),
            ("signal SIGIO", signalled("POLL_MSG", Some(9)), true),
            ("signal SIGUSR1", signalled("POLL_MSG", Some(9)), false),
            ("signal SIGIO code POLL_MSG fd $fd", signalled("POLL_MSG", Some(9)), true),
            ("signal SIGIO code POLL_MSG fd $fd", signalled("POLL_MSG", Some(8)), false),
            ("signal SIGIO code POLL_MSG fd $fd", signalled("POLL_MSG", None), false),
            ("signal SIGIO fd $unknown", signalled("POLL_MSG", Some(9)), false),
            ("signal SIGIO code SI_KERNEL", signalled("POLL_MSG", None), false),
            ("signal SIGIO fd 9", signalled("POLL_MSG", Some(9)), true),
            ("signal SIGIO fd 9 thread owner", signalled("POLL_MSG", Some(9)), true),
            ("signal SIGIO thread other", signalled("POLL_MSG", Some(9)), false),
            ("no signal", Outcome::NoSignal, true),
            ("no signal", signalled("POLL_MSG", None), false),
            ("signal SIGIO", Outcome::NoSignal, false),
            ("ok", Outcome::NotIssued { why: String::new() }, false),
        ];
        for (text, outcome, admitted) in table {
            assert_eq!(expect(text).admits(&outcome, &nine), admitted, "{text} / {outcome:?}");
        }
    }

    #[test]
    fn faults_name_word_column_and_remedy() {
        let fault = |text: &str| text.parse::<Expect>().unwrap_err();
        assert_eq!(
            fault("ETXBSY"),
            "unknown errno `ETXBSY`; did you mean `ETXTBSY`? (column 1 of the outcome)"
        );
        assert_eq!(
            fault("one of: ok, EINTER"),
            "unknown errno `EINTER`; did you mean `EINTR`? (column 13 of the outcome)"
        );
        assert_eq!(
            fault("blocked"),
            "unknown outcome `blocked`; did you mean `blocks`? (column 1 of the outcome)"
        );
        assert!(fault("killed SIGFOO").contains("unknown signal `SIGFOO`"));
        let table = [
            ("signal SIGOI", "unknown signal `SIGOI`; did you mean `SIGIO`? (column 1 of the outcome)"),
            (
                "one of: ok, signal SIGIO code POLL_MSK",
                "unknown code `POLL_MSK`; did you mean `POLL_MSG`? (column 13",
            ),
            ("signal", "`signal` wants a signal"),
            ("signal SIGIO band 3", "unknown part of a signal `band`"),
            ("signal SIGIO fd", "`fd` wants"),
            ("signal SIGIO fd x", "`x` is neither a handle nor a number"),
            ("faults SIGKILL", "only SIGBUS and SIGSEGV"),
            ("no signals", "`no` goes on"),
            ("shows", "`shows` wants a text"),
            ("lacks ", "`lacks` wants a text"),
        ];
        for (text, about) in table {
            assert!(fault(text).contains(about), "{text}: {}", fault(text));
        }
        assert!(fault("").contains("missing"));
        assert!(fault("ok 1 2").contains("too much"));
        assert!(fault("one of: ok,").contains("missing"));
    }

    #[test]
    fn refusals_are_errors_but_not_interrupted_waits() {
        assert!(expect("EOPNOTSUPP").is_refusal() && expect("REM_ACCESS_ERR").is_refusal());
        for text in ["EINTR", "ok", "blocks", "one of: ok, EPERM"] {
            assert!(!expect(text).is_refusal(), "{text}");
        }
        assert!(expect("one of: ok, EPERM").may_refuse() && expect("one of: EPERM, EINTR").may_refuse());
        assert!(expect("one of: EPERM, EACCES").is_definite() && expect("ok").is_definite());
        for text in ["one of: ok, EPERM", "one of: EPERM, EINTR", "one of: ok, blocks"] {
            assert!(!expect(text).is_definite(), "{text}");
        }
    }

    #[test]
    fn a_stack_is_told_innermost_first() {
        let outcome = Outcome::Blocked {
            state: "S".into(),
            wchan: "x".into(),
            stack: vec!["[<0>] ext4_break_layouts+0x5a/0xc0".into(), "[<0>] ext4_setattr+0x1/0x2".into()],
        };
        assert_eq!(describe(&outcome), "blocked (S) in ext4_break_layouts < ext4_setattr");
    }

    #[test]
    fn a_contrary_is_not_admitted() {
        let table = [
            ("signal SIGIO code POLL_MSG fd $fd", signalled("POLL_MSG", Some(9)), 4),
            ("signal SIGIO thread owner", signalled("POLL_MSG", Some(9)), 3),
            ("signal SIGIO", signalled("POLL_MSG", Some(9)), 2),
            ("no signal", Outcome::NoSignal, 1),
            ("shows LEASE", Outcome::Shown("LEASE".into()), 1),
            ("lacks LEASE", Outcome::Shown("x".into()), 1),
            ("faults SIGBUS", Outcome::Faulted { signal: "SIGBUS".into(), code: "BUS_ADRERR".into() }, 1),
            ("ok", Outcome::Returned(0), 0),
        ];
        for (text, outcome, number) in table {
            assert!(expect(text).admits(&outcome, &nine), "{text}");
            let contraries = expect(text).contraries(&outcome);
            assert_eq!(contraries.len(), number, "{text}: {contraries:?}");
            for other in contraries {
                assert!(!expect(text).admits(&other, &nine), "{text} admits {other:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(picks in proptest::collection::vec(0..ATOMS.len(), 1..4)) {
            let text = picks.iter().map(|nr| ATOMS[*nr]).collect::<Vec<_>>().join(", ");
            let text = if picks.len() > 1 { format!("one of: {text}") } else { text };
            prop_assert_eq!(expect(&text).to_string(), text);
        }


        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            if let Ok(parsed) = text.parse::<Expect>() {
                prop_assert_eq!(expect(&parsed.to_string()), parsed);
            }
        }
    }
}
