// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcome grammar: what a step is expected to come back with.
//!
//! ```text
//! OUTCOME := "one of:" ONE ("," ONE)* | ONE
//! ONE     := "ok" [NUMBER] | ERRNO | STATUS | "differs" | "blocks" | "killed" SIGNAL | "exited" NUMBER
//! ```
//! ERRNO is a name of errno(3), STATUS an `IBV_WC_` name without its prefix.

use std::fmt;

use holdfast_protocol::Outcome;
use serde::{Deserialize, Serialize};

use super::names::{completion_errors, errno_name, errno_number, errnos, is_signal, signals};
use crate::yaml::nearest;

/// A set of outcomes, any of which is as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expect(Vec<One>);

/// One expected outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
enum One {
    Ok(Option<i64>),
    Errno(i32),
    Status(&'static str),
    Differs,
    Blocks,
    Killed(String),
    Exited(i32),
}

impl Expect {
    /// Plain success, what a step without an expectation must come back with.
    #[must_use]
    pub fn ok() -> Self {
        Self(vec![One::Ok(None)])
    }

    /// True if the outcome is in the set.
    #[must_use]
    pub fn admits(&self, outcome: &Outcome) -> bool {
        self.0.iter().any(|one| one.admits(outcome))
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

/// What sort of thing an outcome is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Success,
    Refusal,
    /// EINTR is no refusal but an interrupted wait.
    Interrupted,
    Difference,
    Blocked,
    Ended,
}

impl One {
    fn kind(&self) -> Sort {
        match self {
            Self::Ok(_) => Sort::Success,
            Self::Errno(number) if errno_name(*number) == "EINTR" => Sort::Interrupted,
            Self::Errno(_) | Self::Status(_) => Sort::Refusal,
            Self::Differs => Sort::Difference,
            Self::Blocks => Sort::Blocked,
            Self::Killed(_) | Self::Exited(_) => Sort::Ended,
        }
    }

    fn admits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Ok(None), Outcome::Returned(_)) => true,
            (Self::Ok(Some(want)), Outcome::Returned(got)) => want == got,
            (Self::Errno(want), Outcome::Errno(got)) => want == got,
            (Self::Status(want), Outcome::Completion(got)) => want == got,
            (Self::Differs, Outcome::Differs { .. }) | (Self::Blocks, Outcome::Blocked { .. }) => true,
            (Self::Killed(want), Outcome::Killed(got)) => want == got,
            (Self::Exited(want), Outcome::Exited(got)) => want == got,
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let first = words.next().ok_or("an outcome is missing")?;
        let argument = words.next();
        if let Some(more) = words.next() {
            return Err(format!("`{more}` is too much"));
        }
        match (first, argument) {
            ("ok", None) => Ok(Self::Ok(None)),
            ("ok", Some(value)) => number(value).map(|value| Self::Ok(Some(value))),
            ("differs", None) => Ok(Self::Differs),
            ("blocks", None) => Ok(Self::Blocks),
            ("killed", Some(name)) if is_signal(name) => Ok(Self::Killed(name.to_owned())),
            ("killed", Some(name)) => Err(unknown("signal", name, &mut signals())),
            ("killed", None) => Err("`killed` wants a signal, as in `killed SIGKILL`".to_owned()),
            ("exited", Some(code)) => number(code).map(Self::Exited),
            ("exited", None) => Err("`exited` wants a status, as in `exited 0`".to_owned()),
            (name, None) => Self::by_name(name),
            (_, Some(extra)) => Err(format!("`{extra}` is too much after `{first}`")),
        }
    }

    fn by_name(name: &str) -> Result<Self, String> {
        if let Some(number) = errno_number(name) {
            return Ok(Self::Errno(number));
        }
        if let Some(status) = completion_errors().find(|status| *status == name) {
            return Ok(Self::Status(status));
        }
        if name.starts_with('E') && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
            let all: Vec<String> = errnos().map(|(_, name)| name).collect();
            return Err(unknown("errno", name, &mut all.iter().map(String::as_str)));
        }
        let words = ["ok", "differs", "blocks", "killed", "exited"];
        Err(unknown("outcome", name, &mut words.into_iter().chain(completion_errors())))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn unknown(what: &str, word: &str, valid: &mut dyn Iterator<Item = &str>) -> String {
    let hint = nearest(word, valid).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("unknown {what} `{word}`{hint}")
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

fn lead(text: &str) -> usize {
    text.len() - text.trim_start().len()
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
            match one {
                One::Ok(None) => f.write_str("ok"),
                One::Ok(Some(value)) => write!(f, "ok {value}"),
                One::Errno(number) => f.write_str(&errno_name(*number)),
                One::Status(status) => f.write_str(status),
                One::Differs => f.write_str("differs"),
                One::Blocks => f.write_str("blocks"),
                One::Killed(signal) => write!(f, "killed {signal}"),
                One::Exited(code) => write!(f, "exited {code}"),
            }?;
        }
        Ok(())
    }
}

/// An outcome as reports print it, in the words of the grammar where it has them.
#[must_use]
pub fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Returned(0) => "ok".to_owned(),
        Outcome::Returned(value) => format!("ok {value}"),
        Outcome::Errno(number) => errno_name(*number),
        Outcome::Completion(status) => status.clone(),
        Outcome::Differs { at, want, got } => {
            format!("differs at byte {at}: {want:#04x} wanted, {got:#04x} there")
        }
        Outcome::Blocked { state, wchan, stack } => {
            let calls: Vec<&str> = stack.iter().filter_map(|line| function(line)).take(4).collect();
            let place = if calls.is_empty() { wchan.clone() } else { calls.join(" < ") };
            format!("blocked ({state}) in {place}")
        }
        Outcome::Exited(code) => format!("exited {code}"),
        Outcome::Killed(signal) => format!("killed {signal}"),
        Outcome::NotIssued { why } => format!("not run: {why}"),
    }
}

/// The function of a `/proc/PID/stack` line, `[<0>] ext4_break_layouts+0x5a/0xc0`.
fn function(line: &str) -> Option<&str> {
    let name = line.rsplit(' ').next()?.split('+').next()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expect(text: &str) -> Expect {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_admits_its_members_and_nothing_else() {
        let blocked = Outcome::Blocked { state: "S".into(), wchan: String::new(), stack: vec![] };
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
            ("ok", Outcome::NotIssued { why: String::new() }, false),
        ];
        for (text, outcome, admitted) in table {
            assert_eq!(expect(text).admits(&outcome), admitted, "{text} / {outcome:?}");
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

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            if let Ok(parsed) = text.parse::<Expect>() {
                prop_assert_eq!(expect(&parsed.to_string()), parsed);
            }
        }
    }
}
