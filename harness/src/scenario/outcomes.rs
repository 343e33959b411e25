// SPDX-License-Identifier: MIT OR Apache-2.0
//! One outcome: how it is written, what it admits, and how reports print one that came.
//!
//! ```text
//! ONE  := "ok" [NUMBER] | ERRNO | STATUS | "differs" | "blocks" | "killed" SIGNAL | "exited" NUMBER
//!       | "faults" SIGNAL | "shows" TEXT | "lacks" TEXT
//!       | "signal" SIGNAL ["code" CODE] ["fd" (HANDLE | NUMBER)] ["thread" ACTOR] | "no signal"
//! ```
//! ERRNO is a name of errno(3), STATUS an `IBV_WC_` name without its prefix, CODE an `si_code` of a signal
//! that is sent (`POLL_MSG`, `SI_KERNEL`), HANDLE a step that resulted in a descriptor. TEXT goes on to the
//! end, or to the comma of a set.

use std::fmt;

use holdfast_protocol::{Outcome, ProgramEnd, Ran, SHOWN_CUT, SIGNAL_CODES, Signalled};

use super::names::{completion_errors, errno_name, errno_number, errnos, is_signal, signals};
use crate::yaml::nearest;

/// One expected outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum One {
    Ok(Option<i64>),
    Errno(i32),
    Status(&'static str),
    Differs,
    Blocks,
    Killed(String),
    Exited(i32),
    Faults(String),
    Shows(String),
    Lacks(String),
    Signal { signal: String, code: Option<&'static str>, fd: Option<Number>, thread: Option<String> },
    NoSignal,
}

/// The number of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// What the step of this id returned.
    Of(String),
    /// Itself.
    Is(i32),
}

/// What sort of thing an outcome is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Success,
    Refusal,
    /// EINTR is no refusal but an interrupted wait.
    Interrupted,
    Difference,
    Blocked,
    Ended,
    Faulted,
    Seen,
    Signalled,
    Silence,
}

impl One {
    pub(super) fn kind(&self) -> Sort {
        match self {
            Self::Ok(_) => Sort::Success,
            Self::Errno(number) if errno_name(*number) == "EINTR" => Sort::Interrupted,
            Self::Errno(_) | Self::Status(_) => Sort::Refusal,
            Self::Differs => Sort::Difference,
            Self::Blocks => Sort::Blocked,
            Self::Killed(_) | Self::Exited(_) => Sort::Ended,
            Self::Faults(_) => Sort::Faulted,
            Self::Shows(_) | Self::Lacks(_) => Sort::Seen,
            Self::Signal { .. } => Sort::Signalled,
            Self::NoSignal => Sort::Silence,
        }
    }

    pub(super) fn admits(&self, outcome: &Outcome, number: &dyn Fn(&str) -> Option<i64>) -> bool {
        match (self, outcome) {
            (Self::Ok(None), Outcome::Returned(_)) => true,
            (Self::Ok(None), Outcome::Ran(ran)) => ran.end == ProgramEnd::Exited(0),
            (Self::Killed(want), Outcome::Ran(ran)) => {
                matches!(&ran.end, ProgramEnd::Killed(got) if want == got)
            }
            (Self::Exited(want), Outcome::Ran(ran)) => ran.end == ProgramEnd::Exited(*want),
            (Self::Ok(Some(want)), Outcome::Returned(got)) => want == got,
            (Self::Errno(want), Outcome::Errno(got)) => want == got,
            (Self::Status(want), Outcome::Completion(got)) => want == got,
            (Self::Differs, Outcome::Differs { .. }) | (Self::Blocks, Outcome::Blocked { .. }) => true,
            (Self::Killed(want), Outcome::Killed(got)) => want == got,
            (Self::Exited(want), Outcome::Exited(got)) => want == got,
            (Self::Faults(want), Outcome::Faulted { signal, .. }) => want == signal,
            (Self::Shows(text), Outcome::Shown(seen)) => seen.contains(text.as_str()),
            // What is cut off may have it.
            (Self::Lacks(text), Outcome::Shown(seen)) => {
                !seen.contains(text.as_str()) && !seen.contains(SHOWN_CUT)
            }
            (Self::Signal { signal, code, fd, thread }, Outcome::Signalled(got)) => {
                let same_fd = |want: &Number| {
                    let want = match want {
                        Number::Is(want) => Some(i64::from(*want)),
                        Number::Of(id) => number(id),
                    };
                    want.is_some() && want == got.fd.map(i64::from)
                };
                *signal == got.signal
                    && code.is_none_or(|code| code == got.code)
                    && fd.as_ref().is_none_or(same_fd)
                    && thread.as_ref().is_none_or(|name| comm(name) == got.thread)
            }
            (Self::NoSignal, Outcome::NoSignal) => true,
            _ => false,
        }
    }

    /// The actor whose thread is expected to get a signal.
    pub(super) fn thread(&self) -> Option<&str> {
        match self {
            Self::Signal { thread, .. } => thread.as_deref(),
            _ => None,
        }
    }

    /// The id of the step whose number is expected.
    pub(super) fn handle(&self) -> Option<&str> {
        match self {
            Self::Signal { fd: Some(Number::Of(id)), .. } => Some(id),
            _ => None,
        }
    }

    /// Outcomes of the same sort, or the opposite one, that differ in what this one says something about.
    pub(super) fn contraries(&self, outcome: &Outcome) -> Vec<Outcome> {
        match (self, outcome) {
            (Self::Signal { code, fd, thread, .. }, Outcome::Signalled(got)) => {
                let mut all = vec![Outcome::NoSignal];
                let mut with = |change: &dyn Fn(&mut Signalled)| {
                    let mut other = got.clone();
                    change(&mut other);
                    all.push(Outcome::Signalled(other));
                };
                with(&|other| other.signal = "SIGUSR2".into());
                if code.is_some() {
                    with(&|other| other.code = "SI_TKILL".into());
                }
                if fd.is_some() {
                    with(&|other| other.fd = other.fd.map(|fd| fd + 1));
                }
                if thread.is_some() {
                    with(&|other| other.thread.push('x'));
                }
                all
            }
            (Self::NoSignal, Outcome::NoSignal) => {
                let (signal, code) = ("SIGUSR2".to_owned(), "SI_USER".to_owned());
                vec![Outcome::Signalled(Signalled {
                    signal,
                    code,
                    fd: None,
                    band: None,
                    pid: None,
                    count: 1,
                    thread: String::new(),
                })]
            }
            (Self::Shows(_), Outcome::Shown(_)) => vec![Outcome::Shown(String::new())],
            (Self::Lacks(text), Outcome::Shown(seen)) => vec![Outcome::Shown(format!("{seen}{text}"))],
            (Self::Faults(_), Outcome::Faulted { code, .. }) => {
                vec![Outcome::Faulted { signal: "SIGILL".into(), code: code.clone() }]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        match (first, rest) {
            ("", _) => Err("an outcome is missing".to_owned()),
            ("shows" | "lacks", "") => Err(format!("`{first}` wants a text, as in `{first} LEASE`")),
            ("shows", rest) => Ok(Self::Shows(rest.to_owned())),
            ("lacks", rest) => Ok(Self::Lacks(rest.to_owned())),
            ("signal", rest) => Self::signal(rest),
            ("no", "signal") => Ok(Self::NoSignal),
            ("no", _) => Err("`no` goes on with `signal`".to_owned()),
            (first, rest) => Self::words(first, rest),
        }
    }

    fn words(first: &str, rest: &str) -> Result<Self, String> {
        let mut words = rest.split_whitespace();
        let argument = words.next();
        if let Some(more) = words.next() {
            return Err(format!("`{more}` is too much"));
        }
        match (first, argument) {
            ("ok", None) => Ok(Self::Ok(None)),
            ("ok", Some(value)) => number(value).map(|value| Self::Ok(Some(value))),
            ("differs", None) => Ok(Self::Differs),
            ("blocks", None) => Ok(Self::Blocks),
            ("killed", Some(name)) => known_signal(name).map(Self::Killed),
            ("killed", None) => Err("`killed` wants a signal, as in `killed SIGKILL`".to_owned()),
            ("faults", Some(name @ ("SIGBUS" | "SIGSEGV"))) => Ok(Self::Faults(name.to_owned())),
            ("faults", _) => Err("an access faults with a signal: only SIGBUS and SIGSEGV are".to_owned()),
            ("exited", Some(code)) => number(code).map(Self::Exited),
            ("exited", None) => Err("`exited` wants a status, as in `exited 0`".to_owned()),
            (name, None) => Self::by_name(name),
            (_, Some(extra)) => Err(format!("`{extra}` is too much after `{first}`")),
        }
    }

    fn signal(rest: &str) -> Result<Self, String> {
        let mut words = rest.split_whitespace();
        let name = words.next().ok_or("`signal` wants a signal, as in `signal SIGIO code POLL_MSG fd $fd`")?;
        let signal = known_signal(name)?;
        let (mut code, mut fd, mut thread) = (None, None, None);
        while let Some(part) = words.next() {
            let value = words.next();
            match (part, value) {
                ("code", Some(word)) => {
                    let known = SIGNAL_CODES.iter().find(|(name, _)| *name == word);
                    let known = known.map(|(name, _)| *name);
                    code = Some(known.ok_or_else(|| {
                        unknown("code", word, &mut SIGNAL_CODES.iter().map(|(name, _)| *name))
                    })?);
                }
                ("fd", Some(word)) => {
                    fd = Some(match (word.strip_prefix('$'), word.parse()) {
                        (Some(id), _) if !id.is_empty() => Number::Of(id.to_owned()),
                        (_, Ok(number)) => Number::Is(number),
                        _ => return Err(format!("`{word}` is neither a handle nor a number")),
                    });
                }
                ("thread", Some(word)) => thread = Some(word.to_owned()),
                ("code" | "fd" | "thread", None) => return Err(format!("`{part}` wants what it is to be")),
                (part, _) => {
                    return Err(unknown("part of a signal", part, &mut ["code", "fd", "thread"].into_iter()));
                }
            }
        }
        Ok(Self::Signal { signal, code, fd, thread })
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
        let words = ["ok", "differs", "blocks", "killed", "exited", "faults", "shows", "lacks", "signal", "no"];
        Err(unknown("outcome", name, &mut words.into_iter().chain(completion_errors())))
    }
}

/// As much of a thread's name as the kernel keeps (TASK_COMM_LEN).
fn comm(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn unknown(what: &str, word: &str, valid: &mut dyn Iterator<Item = &str>) -> String {
    let hint = nearest(word, valid).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("unknown {what} `{word}`{hint}")
}

fn known_signal(name: &str) -> Result<String, String> {
    if is_signal(name) { Ok(name.to_owned()) } else { Err(unknown("signal", name, &mut signals())) }
}

/// How many blanks a text begins with.
pub(super) fn lead(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

impl fmt::Display for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(None) => f.write_str("ok"),
            Self::Ok(Some(value)) => write!(f, "ok {value}"),
            Self::Errno(number) => f.write_str(&errno_name(*number)),
            Self::Status(status) => f.write_str(status),
            Self::Differs => f.write_str("differs"),
            Self::Blocks => f.write_str("blocks"),
            Self::Killed(signal) => write!(f, "killed {signal}"),
            Self::Exited(code) => write!(f, "exited {code}"),
            Self::Faults(signal) => write!(f, "faults {signal}"),
            Self::Shows(text) => write!(f, "shows {text}"),
            Self::Lacks(text) => write!(f, "lacks {text}"),
            Self::Signal { signal, code, fd, thread } => {
                write!(f, "signal {signal}")?;
                if let Some(code) = code {
                    write!(f, " code {code}")?;
                }
                match fd {
                    None => {}
                    Some(Number::Of(id)) => write!(f, " fd ${id}")?,
                    Some(Number::Is(number)) => write!(f, " fd {number}")?,
                }
                thread.as_ref().map_or(Ok(()), |name| write!(f, " thread {name}"))
            }
            Self::NoSignal => f.write_str("no signal"),
        }
    }
}

/// How much of what was seen a report prints, in characters.
const MOST_PRINTED: usize = 400;

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
        Outcome::Blocked { state, wchan, stack } => format!("blocked ({state}) in {}", place(wchan, stack)),
        Outcome::Ran(ran) => {
            let Ran { end, output, errors, left, .. } = &**ran;
            let end = match end {
                ProgramEnd::Exited(code) => format!("exited {code}"),
                ProgramEnd::Killed(signal) => format!("killed {signal}"),
                ProgramEnd::Overdue { state, wchan, stack } => {
                    format!("had not ended, and was ended: it was ({state}) in {}", place(wchan, stack))
                }
            };
            let left = if *left > 0 { format!(", {left} processes left behind") } else { String::new() };
            let last = [errors, output].into_iter().find_map(|text| text.trim_end().lines().last());
            let last = last.map(|line| format!("; its last line: {}", shortened(line)));
            format!("{end}{left}{}", last.unwrap_or_default())
        }
        Outcome::Exited(code) => format!("exited {code}"),
        Outcome::Killed(signal) => format!("killed {signal}"),
        Outcome::Faulted { signal, code } => format!("faults {signal} ({code})"),
        Outcome::Shown(text) => {
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            format!("shows {}", shortened(&lines.join(" | ")))
        }
        Outcome::Signalled(Signalled { signal, code, fd, pid, thread, .. }) => {
            let fd = fd.map(|fd| format!(" fd {fd}")).unwrap_or_default();
            let pid = pid.map(|pid| format!(" from {pid}")).unwrap_or_default();
            let thread = if thread.is_empty() { String::new() } else { format!(" thread {thread}") };
            format!("signal {signal} code {code}{fd}{pid}{thread}")
        }
        Outcome::NoSignal => "no signal".to_owned(),
        Outcome::Within(step) => format!("success with `{step}` there all the time"),
        Outcome::Tally(counts) if counts.is_empty() => "never drawn".to_owned(),
        Outcome::Tally(counts) => {
            let counts = counts.iter().map(|one| format!("{} times {}", one.times, describe(&one.outcome)));
            counts.collect::<Vec<_>>().join(", ")
        }
        Outcome::NotIssued { why } => format!("not run: {why}"),
    }
}

/// As much of a text as a report prints.
fn shortened(text: &str) -> String {
    let cut = text.char_indices().nth(MOST_PRINTED).map(|(at, _)| format!("{} ...", &text[..at]));
    cut.unwrap_or_else(|| text.to_owned())
}

/// Where a task waits: its innermost calls, where they can be told.
fn place(wchan: &str, stack: &[String]) -> String {
    let calls: Vec<&str> = stack.iter().filter_map(|line| function(line)).take(4).collect();
    if calls.is_empty() { wchan.to_owned() } else { calls.join(" < ") }
}

/// The function of a `/proc/PID/stack` line, `[<0>] ext4_break_layouts+0x5a/0xc0`.
fn function(line: &str) -> Option<&str> {
    let name = line.rsplit(' ').next()?.split('+').next()?;
    (!name.is_empty()).then_some(name)
}
