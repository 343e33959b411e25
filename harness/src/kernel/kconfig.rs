// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a request was dropped: a look into the tree's Kconfig files, only after the fact.
//!
//! Not a Kconfig interpreter. It finds the option's blocks, says which terms of what they depend on
//! are not met and who selects what was to be off; when it cannot tell, it says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::config::{self, Dropped};
use super::files;
use crate::yaml::nearest;

/// What is known of one option from all Kconfig files.
#[derive(Debug, Default, PartialEq)]
struct Known {
    /// What each block of it depends on: one expression per block, its own and those around it.
    depends: Vec<String>,
    /// Who selects it, as `OPTION` or `OPTION if EXPR`.
    selected_by: Vec<String>,
}

/// The dropped request, with the unmet dependency or the selecting option where that can be known.
pub(super) fn explain(tree: &Path, dropped: &Dropped, resolved: &str) -> String {
    let values = config::values(resolved);
    let is_on = |option: &str| values.get(format!("CONFIG_{option}").as_str()).copied().unwrap_or("n");
    let option = dropped.asked.option.trim_start_matches("CONFIG_");
    let all = read_all(tree);
    let reason = match all.get(option).filter(|known| **known != Known::default()) {
        None => match nearest(option, all.keys().map(String::as_str)) {
            Some(near) if !all.contains_key(option) => {
                format!(": no such option in this kernel; CONFIG_{near} is one")
            }
            _ if all.contains_key(option) => String::new(),
            _ => ": no such option in this kernel".to_owned(),
        },
        Some(known) if dropped.asked.value == "n" => {
            let term = |by: &&String| is_on(by.split(' ').next().unwrap_or(by)) != "n";
            let by: Vec<&str> = known.selected_by.iter().filter(term).map(String::as_str).collect();
            if by.is_empty() { String::new() } else { format!("; selected by {}", by.join(", ")) }
        }
        Some(known) => unmet(known, &is_on).map(|unmet| format!("; it depends on {unmet}")).unwrap_or_default(),
    };
    format!("{dropped}{reason}")
}

/// The terms that are not met, of the block that misses fewest.
fn unmet<'v>(known: &Known, is_on: &impl Fn(&str) -> &'v str) -> Option<String> {
    let of_block = |expression: &String| -> Vec<String> {
        let terms = terms(expression);
        terms.into_iter().filter(|term| truth(term, is_on) == Some(false)).collect()
    };
    let least = known.depends.iter().map(of_block).min_by_key(Vec::len)?;
    let said: Vec<String> = least
        .iter()
        .map(|term| {
            let symbols: Vec<String> =
                symbols(term).map(|symbol| format!("{symbol}={}", is_on(symbol))).collect();
            format!("{term} ({})", symbols.join(", "))
        })
        .collect();
    (!said.is_empty()).then(|| said.join(" and "))
}

fn read_all(tree: &Path) -> BTreeMap<String, Known> {
    let mut all = BTreeMap::new();
    for path in files::walk(tree).unwrap_or_default() {
        let name = path.rsplit('/').next().unwrap_or_default();
        // Other architectures define options of the same names.
        let is_foreign =
            path.starts_with("arch/") && path.matches('/').count() > 1 && !path.starts_with("arch/x86/");
        if name.starts_with("Kconfig") && !is_foreign {
            let text = fs::read(tree.join(&path)).unwrap_or_default();
            read_file(&String::from_utf8_lossy(&text), &mut all);
        }
    }
    all
}

/// Adds what one Kconfig file says. Blocks around an option (`if`, `menu`, `choice`) count as far as
/// they are in the same file.
fn read_file(text: &str, all: &mut BTreeMap<String, Known>) {
    let joined = text.replace("\\\n", " ");
    // Conditions of the blocks around, the innermost last; of an entry, its own.
    let mut around: Vec<Vec<String>> = Vec::new();
    let mut option: Option<String> = None;
    let mut own: Vec<String> = Vec::new();
    let mut in_block_head = false;
    let mut help = Help::default();
    for line in joined.lines().filter(|line| !help.covers(line)) {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let is_entry = matches!(word, "config" | "menuconfig");
        let is_block =
            matches!(word, "if" | "menu" | "choice" | "endif" | "endmenu" | "endchoice" | "comment" | "source");
        if is_entry || is_block {
            close(&mut option, &mut own, &around, all);
            in_block_head = matches!(word, "menu" | "choice");
        }
        match word {
            "config" | "menuconfig" => option = Some(rest.to_owned()),
            "if" => around.push(vec![rest.to_owned()]),
            "menu" | "choice" => around.push(Vec::new()),
            "endif" | "endmenu" | "endchoice" => drop(around.pop()),
            "depends" => {
                let expression = rest.trim_start_matches("on").trim().to_owned();
                match around.last_mut().filter(|_| in_block_head) {
                    Some(block) => block.push(expression),
                    None => own.push(expression),
                }
            }
            "select" => {
                if let Some(selecting) = &option {
                    let (selected, condition) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    let by = format!("{selecting} {}", condition.trim()).trim().to_owned();
                    all.entry(selected.to_owned()).or_default().selected_by.push(by);
                }
            }
            _ => {}
        }
    }
    close(&mut option, &mut own, &around, all);
}

/// Tells help texts from the language: their words (`if`, `depends on`) mean nothing.
#[derive(Default)]
struct Help {
    begins: bool,
    indent: Option<usize>,
}

impl Help {
    fn covers(&mut self, line: &str) -> bool {
        let text = line.trim_start();
        if text.is_empty() {
            return true;
        }
        // A tab counts as eight, and nobody mixes them within one text.
        let indent: usize = line
            .chars()
            .map_while(|c| [('\t', 8), (' ', 1)].iter().find(|known| known.0 == c))
            .map(|known| known.1)
            .sum();
        if std::mem::take(&mut self.begins) {
            self.indent = Some(indent).filter(|indent| *indent > 0);
        }
        if self.indent.is_some_and(|least| indent >= least) {
            return true;
        }
        self.indent = None;
        self.begins = text.trim_end() == "help";
        false
    }
}

/// Ends an option's block.
fn close(
    option: &mut Option<String>,
    own: &mut Vec<String>,
    around: &[Vec<String>],
    all: &mut BTreeMap<String, Known>,
) {
    let own = std::mem::take(own);
    let Some(option) = option.take() else { return };
    let terms: Vec<String> = around.iter().flatten().chain(&own).map(|term| format!("({term})")).collect();
    let known = all.entry(option).or_default();
    if !terms.is_empty() {
        known.depends.push(terms.join(" && "));
    }
}

/// The terms of a conjunction, at its top level, bare of outer parentheses.
fn terms(expression: &str) -> Vec<String> {
    let expression = bare(expression);
    let parts = split(expression, "&&");
    if parts.len() == 1 {
        return vec![expression.to_owned()];
    }
    parts.into_iter().flat_map(terms).collect()
}

/// Without comment and without parentheses around the whole.
fn bare(expression: &str) -> &str {
    let mut expression = expression.split(" #").next().unwrap_or(expression).trim();
    while let Some(inner) = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        let mut depth = 0;
        let is_around = inner.chars().all(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth >= 0
        });
        if !is_around {
            break;
        }
        expression = inner.trim();
    }
    expression
}

/// Splits at an operator outside of parentheses.
fn split<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (index, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && index >= begin && expression[index..].starts_with(operator) => {
                parts.push(&expression[begin..index]);
                begin = index + operator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[begin..]);
    parts
}

/// Whether an expression holds, `m` counting as held; none for what is not understood (macros).
fn truth<'v>(expression: &str, is_on: &impl Fn(&str) -> &'v str) -> Option<bool> {
    let expression = bare(expression);
    if expression.contains("$(") {
        return None;
    }
    for (operator, is_or) in [("||", true), ("&&", false)] {
        let parts = split(expression, operator);
        if parts.len() > 1 {
            let truths: Vec<Option<bool>> = parts.iter().map(|part| truth(part, is_on)).collect();
            if truths.contains(&Some(is_or)) {
                return Some(is_or);
            }
            return truths.into_iter().collect::<Option<Vec<bool>>>().map(|_| !is_or);
        }
    }
    if let Some((left, right)) = expression.split_once("!=") {
        return Some(value(left, is_on) != value(right, is_on));
    }
    if let Some(rest) = expression.strip_prefix('!') {
        return truth(rest, is_on).map(|truth| !truth);
    }
    if expression.contains(['<', '>']) {
        return None;
    }
    if let Some((left, right)) = expression.split_once('=') {
        return Some(value(left, is_on) == value(right, is_on));
    }
    Some(value(expression, is_on) != "n")
}

fn value<'v>(word: &str, is_on: &impl Fn(&str) -> &'v str) -> &'v str {
    match word.trim().trim_matches('"') {
        "y" => "y",
        "m" => "m",
        "n" => "n",
        option => is_on(option),
    }
}

fn symbols(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() > 1 && word.bytes().any(|b| b.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::super::config::Asked;
    use super::*;

    const KCONFIG: &str = "menu \"Memory\"\n\tdepends on MMU\n\nconfig ZONE_DEVICE\n\tbool \"Device memory\"\n\tdepends on MEMORY_HOTPLUG && \\\n\t\t(SPARSEMEM_VMEMMAP || FLATMEM)\n\tselect XARRAY_MULTI\n\thelp\n\t  depends on nothing, really.\n\nendmenu\n\
        if BLOCK\nconfig FS_DAX\n\tbool\n\tdepends on ZONE_DEVICE=y && !HIGHMEM\nendif\nconfig FREE\n\tbool\n";

    fn check(option: &str, value: &str, got: &str, resolved: &str, expect: &str) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Kconfig"), KCONFIG).unwrap();
        let asked = Asked {
            option: format!("CONFIG_{option}"),
            value: value.into(),
            place: "f:1".into(),
            needed_by: String::new(),
        };
        let text = explain(dir.path(), &Dropped { asked, got: got.into() }, resolved);
        let reason = text.split_once("what it became").unwrap().1;
        assert_eq!(reason, expect);
    }

    #[test]
    fn the_unmet_dependency_is_named() {
        check(
            "ZONE_DEVICE",
            "y",
            "n",
            "CONFIG_MMU=y\nCONFIG_SPARSEMEM_VMEMMAP=y\n",
            "; it depends on MEMORY_HOTPLUG (MEMORY_HOTPLUG=n)",
        );
        check(
            "ZONE_DEVICE",
            "y",
            "n",
            "CONFIG_MMU=y\nCONFIG_MEMORY_HOTPLUG=y\n",
            "; it depends on SPARSEMEM_VMEMMAP || FLATMEM (SPARSEMEM_VMEMMAP=n, FLATMEM=n)",
        );
        check(
            "FS_DAX",
            "y",
            "n",
            "CONFIG_BLOCK=y\nCONFIG_ZONE_DEVICE=m\n",
            "; it depends on ZONE_DEVICE=y (ZONE_DEVICE=m)",
        );
        check(
            "FS_DAX",
            "y",
            "n",
            "CONFIG_ZONE_DEVICE=y\nCONFIG_HIGHMEM=y\n",
            "; it depends on BLOCK (BLOCK=n) and !HIGHMEM (HIGHMEM=y)",
        );
        check("FREE", "y", "n", "", "");
    }

    #[test]
    fn the_selecting_option_is_named() {
        check("XARRAY_MULTI", "n", "y", "CONFIG_ZONE_DEVICE=y\n", "; selected by ZONE_DEVICE");
        check("XARRAY_MULTI", "n", "y", "", "");
    }

    #[test]
    fn a_mistyped_option_is_told() {
        check("ZONE_DEVCE", "y", "n", "", ": no such option in this kernel; CONFIG_ZONE_DEVICE is one");
        check("QQQ", "y", "n", "", ": no such option in this kernel");
    }
}
