// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line of TAP or KTAP, by what it says.

/// What a line says; its indentation is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `TAP version 13`, `KTAP version 1`.
    Version {
        /// KTAP, not TAP.
        is_ktap: bool,
        number: u64,
    },
    /// `# Subtest: NAME`.
    Subtest(&'a str),
    /// `1..N`, with the reason where everything is skipped.
    Plan { count: u64, skip: Option<&'a str> },
    /// `ok 3 - name # SKIP why`.
    Result(Told<'a>),
    /// `Bail out! why`.
    BailOut(&'a str),
    /// A comment, without its sign.
    Comment(&'a str),
    /// Anything else: what the program says besides, or somebody else in between.
    Other,
}

/// What a result line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) ok: bool,
    pub(super) number: Option<u64>,
    pub(super) name: &'a str,
    pub(super) directive: Option<Directive>,
    /// What stands behind the directive, or behind a lone `#`.
    pub(super) reason: &'a str,
}

/// What a result line says besides ok and not ok.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// It was not run.
    Skip,
    /// It is known not to work (TAP's TODO, the kselftests' XFAIL).
    Todo,
    /// It was known not to work, and does (the kselftests' XPASS).
    Unexpected,
    /// It took too long (the kselftests' runner).
    Timeout,
}

const DIRECTIVES: [(&str, Directive); 6] = [
    // Also SKIPPED and the like, which TAP allows.
    ("SKIP", Directive::Skip),
    ("TODO", Directive::Todo),
    ("XFAIL", Directive::Todo),
    ("XPASS", Directive::Unexpected),
    ("TIMEOUT", Directive::Timeout),
    ("TIME OUT", Directive::Timeout),
];

const BAIL_OUT: &str = "Bail out!";

/// The line's indentation, in characters, and what it says.
pub(super) fn read(line: &str) -> (usize, Line<'_>) {
    let text = line.trim_start();
    let indent = line.chars().count() - text.chars().count();
    (indent, say(text.trim_end()))
}

fn say(text: &str) -> Line<'_> {
    for (head, is_ktap) in [("KTAP version ", true), ("TAP version ", false)] {
        if let Some(number) = text.strip_prefix(head).and_then(whole_number) {
            return Line::Version { is_ktap, number };
        }
    }
    if let Some(comment) = text.strip_prefix('#') {
        let comment = comment.trim_start();
        return match comment.strip_prefix("Subtest:") {
            Some(name) => Line::Subtest(name.trim()),
            None => Line::Comment(comment),
        };
    }
    if let Some((head, why)) = text.split_at_checked(BAIL_OUT.len())
        && head.eq_ignore_ascii_case(BAIL_OUT)
    {
        return Line::BailOut(why.trim());
    }
    plan(text).or_else(|| result(text)).unwrap_or(Line::Other)
}

fn plan(text: &str) -> Option<Line<'_>> {
    let rest = text.strip_prefix("1..")?;
    let (count, rest) = leading_number(rest)?;
    let (directive, reason) = directive(rest.trim_start().strip_prefix('#').unwrap_or(""), true);
    Some(Line::Plan { count, skip: (directive == Some(Directive::Skip)).then_some(reason) })
}

/// A result that is ok has a number, or a hyphen before its name, or nothing at all: `ok then` is talk. One that is
/// not ok needs none of that: nobody says so by the way.
fn result(text: &str) -> Option<Line<'_>> {
    let (ok, rest) = match text.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok")?),
    };
    if rest.chars().next().is_some_and(|next| !next.is_whitespace()) {
        return None;
    }
    let rest = rest.trim_start();
    let (number, rest) = match leading_number(rest) {
        Some((number, rest)) if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
            (Some(number), rest.trim_start())
        }
        _ if !ok || rest.is_empty() || rest.starts_with("- ") || rest.starts_with('#') => (None, rest),
        _ => return None,
    };
    let rest = rest.strip_prefix("- ").unwrap_or(rest).trim_start();
    let (name, directive, reason) = match remark(rest, ok) {
        Some((name, remark)) => {
            let (directive, reason) = directive(remark, ok);
            (name.trim_end(), directive, reason)
        }
        None => (rest, None, ""),
    };
    Some(Line::Result(Told { ok, number, name, directive, reason }))
}

/// What stands before and behind the `#` that begins a remark: at the start or behind a space, followed by a
/// directive, or where there is none by a space. That of `issue #3` begins none.
fn remark(text: &str, ok: bool) -> Option<(&str, &str)> {
    let parts = text.match_indices('#').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let begins = |before: &str| before.is_empty() || before.ends_with(char::is_whitespace);
    let all: Vec<(&str, &str)> = parts.filter(|(before, _)| begins(before)).collect();
    let directed = all.iter().find(|(_, behind)| directive(behind, ok).0.is_some());
    directed.or_else(|| all.iter().find(|(_, behind)| behind.starts_with(' '))).copied()
}

/// The directive at the beginning of a remark, in whatever letters, and the reason.
fn directive(remark: &str, ok: bool) -> (Option<Directive>, &str) {
    let remark = remark.trim();
    let found = DIRECTIVES.iter().find(|(word, directive)| {
        // `ok 5 x # timeouts work`.
        let fits = !ok || *directive != Directive::Timeout;
        fits && remark.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
    });
    let Some((word, directive)) = found else { return (None, remark) };
    let rest = &remark[word.len()..];
    // SKIPPED, TODO:
    let reason = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == ':');
    (Some(*directive), reason.trim_start())
}

/// Decimal digits at the beginning; none where there are none, or more than fit.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn whole_number(text: &str) -> Option<u64> {
    leading_number(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ok, number, name, directive, reason.
    type Parts<'a> = (bool, Option<u64>, &'a str, Option<Directive>, &'a str);

    fn told(text: &str) -> Option<Parts<'_>> {
        match read(text).1 {
            Line::Result(Told { ok, number, name, directive, reason }) => {
                Some((ok, number, name, directive, reason))
            }
            _ => None,
        }
    }

    #[test]
    fn results_of_all_dialects_are_understood() {
        use Directive::{Skip, Timeout, Todo, Unexpected};
        let table = [
            ("ok 1 - a name", (true, Some(1), "a name", None, "")),
            ("not ok 12 a-name", (false, Some(12), "a-name", None, "")),
            ("ok", (true, None, "", None, "")),
            ("ok - b", (true, None, "b", None, "")),
            ("ok 3", (true, Some(3), "", None, "")),
            ("ok 3 # SKIP no huge pages", (true, Some(3), "", Some(Skip), "no huge pages")),
            ("ok 3 x #skipped: why", (true, Some(3), "x", Some(Skip), "why")),
            ("not ok 4 - x # TODO later", (false, Some(4), "x", Some(Todo), "later")),
            ("ok 5 # XFAIL known", (true, Some(5), "", Some(Todo), "known")),
            ("ok 5 # XPASS y", (true, Some(5), "", Some(Unexpected), "y")),
            ("not ok 6 s: t # TIMEOUT 45 seconds", (false, Some(6), "s: t", Some(Timeout), "45 seconds")),
            ("not ok 7 s # exit=1", (false, Some(7), "s", None, "exit=1")),
            ("ok 8 issue #3 is closed", (true, Some(8), "issue #3 is closed", None, "")),
            ("ok 9 x # y # SKIP z", (true, Some(9), "x # y", Some(Skip), "z")),
            ("ok 9 x # y # z", (true, Some(9), "x", None, "y # z")),
            ("ok 10 x # timeouts work", (true, Some(10), "x", None, "timeouts work")),
            ("not ok flushing failed", (false, None, "flushing failed", None, "")),
        ];
        for (text, want) in table {
            assert_eq!(told(text), Some(want), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_result_is_none() {
        for text in [
            "ok, go on",
            "ok then",
            "okay 3",
            "not okay",
            "nok 1",
            "ok 3x",
            "OK 1",
            "ok 99999999999999999999 x",
        ] {
            assert_eq!(read(text).1, Line::Other, "{text}");
        }
    }

    #[test]
    fn the_other_lines_are_understood() {
        let plan = |count, skip| Line::Plan { count, skip };
        let table = [
            ("\t1..8", (1, plan(8, None))),
            ("1..0 # SKIP no such device", (0, plan(0, Some("no such device")))),
            ("  KTAP version 1", (2, Line::Version { is_ktap: true, number: 1 })),
            ("TAP version 13", (0, Line::Version { is_ktap: false, number: 13 })),
            ("TAP version x", (0, Line::Other)),
            ("    # Subtest: a b", (4, Line::Subtest("a b"))),
            ("# [RUN] x", (0, Line::Comment("[RUN] x"))),
            ("Bail out! no memory", (0, Line::BailOut("no memory"))),
            ("bail OUT!", (0, Line::BailOut(""))),
            ("1..", (0, Line::Other)),
            ("", (0, Line::Other)),
        ];
        for (text, want) in table {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
