// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds splats in a kernel log and gives each a stable title: no addresses, lines, pids or times,
//! so that the same bug has the same title on every run and kernel.

use serde::{Deserialize, Serialize};

/// One splat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// Its stable title.
    pub title: String,
    /// The line of the log it was read from.
    pub line: String,
}

/// All splats of a log, in order. Lines may carry the console's `[   12.345678] ` stamp.
pub fn splats<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Splat> {
    lines
        .into_iter()
        .filter_map(|line| {
            let text = unstamped(line);
            title(text).map(|title| Splat { title, line: text.to_owned() })
        })
        .collect()
}

fn unstamped(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, text)) if stamp.trim().chars().all(|c| c.is_ascii_digit() || c == '.') => text.trim(),
        _ => line,
    }
}

fn title(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix("WARNING: ") {
        // kernel/panic.c __warn(): with a place it is a WARN_ON, otherwise a report's own head line.
        let warn_on = rest.starts_with("CPU: ") || rest.contains(" at ") && rest.contains("+0x");
        return Some(match function(rest).filter(|_| warn_on) {
            Some(function) => format!("WARNING in {function}"),
            None => text.to_owned(),
        });
    }
    if let Some(rest) = text.strip_prefix("BUG: ") {
        let head = rest.split([',', '(']).next().unwrap_or(rest).trim();
        let head = head.split(" at ").next().unwrap_or(head);
        let head = head.split(" for address").next().unwrap_or(head);
        return Some(match head.split_once(" in ") {
            Some((what, place)) => format!("BUG: {what} in {}", place.split('+').next().unwrap_or(place)),
            None => format!("BUG: {}", head.split(": 0x").next().unwrap_or(head)),
        });
    }
    if let Some(place) = text.strip_prefix("kernel BUG at ") {
        return Some(format!("kernel BUG at {}", place.split(':').next().unwrap_or(place)));
    }
    if let Some(rest) = text.strip_prefix("Kernel panic - not syncing: ") {
        let rest = rest.split(" exitcode=").next().unwrap_or(rest);
        return Some(format!("Kernel panic - not syncing: {}", rest.trim()));
    }
    if let Some(rest) = text.strip_prefix("INFO: ") {
        if rest.starts_with("task ") && rest.contains(" blocked for more than ") {
            return Some("INFO: task blocked for too long".to_owned());
        }
        if rest.contains("detected stall") || rest.contains("self-detected stall") {
            return Some("INFO: RCU stall".to_owned());
        }
        return None;
    }
    if text.starts_with("rcu: INFO: ") && text.contains("stall") {
        return Some("INFO: RCU stall".to_owned());
    }
    let known = [
        "general protection fault",
        "UBSAN: ",
        "divide error",
        "invalid opcode",
        "double fault",
        "stack segment",
    ];
    let known =
        known.into_iter().find(|head| text.starts_with(head) || text.starts_with(&format!("Oops: {head}")))?;
    Some(match known {
        "UBSAN: " => text.split(" in ").next().unwrap_or(text).to_owned(),
        head => head.to_owned(),
    })
}

/// `dax_disassociate_entry` of `... at fs/dax.c:404 dax_disassociate_entry+0x5a/0xc0`.
fn function(text: &str) -> Option<&str> {
    let word = text.split_whitespace().find(|word| word.contains("+0x"))?;
    word.split('+').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_stable() {
        let table = [
            (
                "[    3.141592] WARNING: CPU: 0 PID: 77 at fs/dax.c:404 dax_disassociate_entry+0x5a/0xc0",
                Some("WARNING in dax_disassociate_entry"),
            ),
            (
                "WARNING: fs/dax.c:404 at dax_disassociate_entry+0x5a/0xc0, CPU#0: cat/77",
                Some("WARNING in dax_disassociate_entry"),
            ),
            (
                "WARNING: possible circular locking dependency detected",
                Some("WARNING: possible circular locking dependency detected"),
            ),
            (
                "BUG: KASAN: slab-use-after-free in dax_lock_folio+0x12/0x80",
                Some("BUG: KASAN: slab-use-after-free in dax_lock_folio"),
            ),
            (
                "BUG: kernel NULL pointer dereference, address: 0000000000000008",
                Some("BUG: kernel NULL pointer dereference"),
            ),
            (
                "BUG: unable to handle page fault for address: ffffc90000000000",
                Some("BUG: unable to handle page fault"),
            ),
            (
                "BUG: sleeping function called from invalid context at mm/x.c:12",
                Some("BUG: sleeping function called from invalid context"),
            ),
            ("kernel BUG at fs/dax.c:123!", Some("kernel BUG at fs/dax.c")),
            ("Kernel panic - not syncing: dumptest", Some("Kernel panic - not syncing: dumptest")),
            (
                "INFO: task truncate:80 blocked for more than 120 seconds.",
                Some("INFO: task blocked for too long"),
            ),
            (
                "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
                Some("general protection fault"),
            ),
            ("rxe_reg_user_mr: returned err = -95", None),
            ("INFO: lkdtm: something harmless", None),
            ("EXT4-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk", None),
        ];
        for (line, want) in table {
            let found = splats([line]);
            assert_eq!(found.first().map(|splat| splat.title.as_str()), want, "{line}");
        }
    }
}
