// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration fragments: requests, and whether the resolved configuration honours them.
//!
//! `olddefconfig` drops an option without a word when one of its parents is missing. A guest that
//! silently lacks what a case needs would give false results, so each request is compared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::outcome::bad_input;

/// One line of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// With its `CONFIG_`.
    pub(super) option: String,
    /// `y`, `m`, `n`, a number or a quoted string.
    pub(super) value: String,
    /// `FILE:LINE`.
    pub(super) place: String,
    /// Who needs it, by the fragment's own word; empty where that says nothing.
    pub(super) needed_by: String,
}

/// What stands before who needs the lines below, in a comment.
const NEEDED_BY: &str = "Needed by: ";

/// A request the resolved configuration does not honour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) asked: Asked,
    /// What it became; `n` when it is not there.
    pub(super) got: String,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { option, value, place, .. } = &self.asked;
        write!(f, "{place}: {option}={value} was asked for, {} is what it became", self.got)
    }
}

/// Reads one fragment file; `named` is what messages call it.
///
/// # Errors
/// Bad input for a line that is no request.
pub(super) fn read_fragment(path: &Path, named: &str) -> Result<Vec<Asked>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text, named)
}

fn parse(text: &str, named: &str) -> Result<Vec<Asked>> {
    let mut asked = Vec::new();
    let mut needed_by = "";
    for (index, line) in text.lines().enumerate() {
        let place = format!("{named}:{}", index + 1);
        match request(line) {
            Some((option, value)) => asked.push(Asked {
                option: option.to_owned(),
                value: value.to_owned(),
                place,
                needed_by: needed_by.to_owned(),
            }),
            None if line.trim().is_empty() => {}
            None if line.starts_with('#') => {
                if let Some((_, who)) = line.split_once(NEEDED_BY) {
                    needed_by = who.trim_end().trim_end_matches('.');
                }
            }
            None => {
                return Err(bad_input(format!(
                    "{place}: `{line}` is no request; `CONFIG_X=y` or `CONFIG_X=n` is"
                )));
            }
        }
    }
    Ok(asked)
}

/// `CONFIG_X=v`, or `# CONFIG_X is not set` for `n`.
fn request(line: &str) -> Option<(&str, &str)> {
    if let Some(option) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return Some((option, "n")).filter(|_| is_option(option));
    }
    line.trim_end().split_once('=').filter(|(option, value)| is_option(option) && !value.is_empty())
}

fn is_option(word: &str) -> bool {
    word.strip_prefix("CONFIG_")
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// A resolved configuration: what is not in it is `n`.
pub(super) fn values(config: &str) -> BTreeMap<&str, &str> {
    config.lines().filter_map(request).collect()
}

/// The last request for each option, in order of the options: a later fragment overrules.
pub(super) fn effective(asked: &[Asked]) -> Vec<Asked> {
    let last: BTreeMap<&str, &Asked> = asked.iter().map(|asked| (asked.option.as_str(), asked)).collect();
    last.into_values().cloned().collect()
}

/// The requests that were dropped or changed.
pub(super) fn dropped(asked: &[Asked], config: &str) -> Vec<Dropped> {
    let values = values(config);
    let wrong = asked.iter().filter_map(|asked| {
        let got = values.get(asked.option.as_str()).copied().unwrap_or("n");
        (got != asked.value).then(|| Dropped { asked: asked.clone(), got: got.to_owned() })
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_compared() {
        let asked = parse(
            "# a comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_D=8\nCONFIG_E=\"x y\"\nCONFIG_F=y\nCONFIG_G=y\n# CONFIG_H is not set\n",
            "f.config",
        )
        .unwrap();
        let config =
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=16\nCONFIG_E=\"x y\"\nCONFIG_F=m\nCONFIG_H=y\n";
        let dropped: Vec<String> = dropped(&asked, config).iter().map(ToString::to_string).collect();
        assert_eq!(
            dropped,
            [
                "f.config:5: CONFIG_D=8 was asked for, 16 is what it became",
                "f.config:7: CONFIG_F=y was asked for, m is what it became",
                "f.config:8: CONFIG_G=y was asked for, n is what it became",
                "f.config:9: CONFIG_H=n was asked for, y is what it became",
            ]
        );
    }

    #[test]
    fn who_needs_a_request_stands_above_it() {
        let text =
            "# What for.\n# Needed by: every case.\n\nCONFIG_A=y\n# Pins. Needed by: pin/x (a).\nCONFIG_B=y\n";
        let asked = parse(text, "f").unwrap();
        assert_eq!(
            asked.iter().map(|one| one.needed_by.as_str()).collect::<Vec<_>>(),
            ["every case", "pin/x (a)"]
        );
    }

    #[test]
    fn a_later_fragment_overrules() {
        let asked = parse("CONFIG_A=y\nCONFIG_B=y\nCONFIG_A=n\n", "f").unwrap();
        let effective = effective(&asked);
        assert_eq!(effective.len(), 2);
        assert_eq!((effective[0].value.as_str(), effective[0].place.as_str()), ("n", "f:3"));
    }

    #[test]
    fn a_line_that_is_no_request_is_refused_with_its_place() {
        for line in ["CONFIG_A", "CONFIG_A=", "COFNIG_A=y", "CONFIG_A-B=y"] {
            let error = parse(&format!("CONFIG_OK=y\n{line}\n"), "rdma.config").unwrap_err().to_string();
            assert!(error.starts_with("rdma.config:2: "), "{error}");
        }
    }
}
