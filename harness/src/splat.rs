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

/// All objects of kmemleak's list (mm/kmemleak.c print_unreferenced()), each by who allocated it.
pub fn leaks<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Splat> {
    let mut found: Vec<Splat> = Vec::new();
    let mut wanted = false;
    for line in lines.into_iter().map(str::trim) {
        if line.starts_with("unreferenced object ") {
            found.push(Splat { title: "memory leak".to_owned(), line: line.to_owned() });
            wanted = false;
        } else if line.starts_with("backtrace") {
            // Before it stands a dump of the object, in which anything may be written.
            wanted = true;
        } else if let (true, Some(last), Some(function)) = (wanted, found.last_mut(), function(line))
            && !ALLOCATORS.iter().any(|head| function.starts_with(head))
        {
            last.title = format!("memory leak in {function}");
            wanted = false;
        }
    }
    found
}

/// What functions are called that allocate for others: the leak is the caller's.
const ALLOCATORS: [&str; 16] = [
    "__alloc_",
    "__kmalloc",
    "__kmem_cache_",
    "__kvmalloc",
    "__vmalloc",
    "alloc_pages",
    "kcalloc",
    "kmalloc",
    "kmem_cache_",
    "kmemdup",
    "kmemleak_",
    "kstrdup",
    "kvmalloc",
    "pcpu_alloc",
    "slab_post_alloc_hook",
    "vmalloc",
];

fn unstamped(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, text)) if stamp.trim().chars().all(|c| c.is_ascii_digit() || c == '.') => text.trim(),
        _ => line,
    }
}

/// Bugs whose head lines go on with a task, an address or a number.
const NAMED_BUGS: [&str; 7] = [
    "Bad page state",
    "Bad rss-counter state",
    "Dentry",
    "scheduling while atomic",
    "soft lockup",
    "spinlock",
    "workqueue leaked atomic, lock or RCU",
];

fn title(text: &str) -> Option<String> {
    let text = text.strip_prefix("watchdog: ").unwrap_or(text);
    if let Some(rest) = text.strip_prefix("WARNING: ") {
        // kernel/panic.c __warn(): with a place it is a WARN_ON, otherwise a report's own head line.
        let warn_on = rest.starts_with("CPU: ") || rest.contains(" at ") && rest.contains("+0x");
        return Some(match function(rest).filter(|_| warn_on) {
            Some(function) => format!("WARNING in {function}"),
            // kernel/locking/lockdep.c debug_check_no_locks_held() begins with the task.
            None if rest.ends_with(" still has locks held!") => {
                "WARNING: task still has locks held!".to_owned()
            }
            None => text.to_owned(),
        });
    }
    // kernel/locking/lockdep.c puts two of its head lines in brackets.
    let bare = text.strip_prefix("[ BUG: ").and_then(|rest| rest.strip_suffix(" ]"));
    if let Some(rest) = bare.or_else(|| text.strip_prefix("BUG: ")) {
        if let Some(head) = NAMED_BUGS.iter().find(|head| rest.starts_with(**head)) {
            return Some(format!("BUG: {head}"));
        }
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
        if rest.starts_with("trying to register non-static key") {
            return Some("INFO: trying to register non-static key".to_owned());
        }
        if rest.contains("detected stall") || rest.contains("self-detected stall") {
            return Some("INFO: RCU stall".to_owned());
        }
        return None;
    }
    if text.starts_with("rcu: INFO: ") && text.contains("stall") {
        return Some("INFO: RCU stall".to_owned());
    }
    if let Some(title) = broken_list(text) {
        return Some(title);
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

/// lib/list_debug.c: `list_add corruption. prev->next should be next (...)`, `list_add double add: ...`.
fn broken_list(text: &str) -> Option<String> {
    let wrong = |rest: &str| rest.starts_with(" corruption") || rest.starts_with(" double add");
    let list = ["list_add", "list_del"].into_iter().find(|list| text.strip_prefix(list).is_some_and(wrong))?;
    Some(format!("{list} corruption"))
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
                "WARNING: possible recursive locking detected",
                Some("WARNING: possible recursive locking detected"),
            ),
            ("WARNING: suspicious RCU usage", Some("WARNING: suspicious RCU usage")),
            ("WARNING: inconsistent lock state", Some("WARNING: inconsistent lock state")),
            (
                "WARNING: lock held when returning to user space!",
                Some("WARNING: lock held when returning to user space!"),
            ),
            ("WARNING: truncate/77 still has locks held!", Some("WARNING: task still has locks held!")),
            ("[ BUG: Invalid wait context ]", Some("BUG: Invalid wait context")),
            ("BUG: MAX_LOCKDEP_CHAINS too low!", Some("BUG: MAX_LOCKDEP_CHAINS too low!")),
            ("INFO: trying to register non-static key.", Some("INFO: trying to register non-static key")),
            ("INFO: lockdep is turned off.", None),
            ("BUG: KASAN: double-free in kfree+0x1a/0x40", Some("BUG: KASAN: double-free in kfree")),
            ("BUG: scheduling while atomic: truncate/77/0x00000002", Some("BUG: scheduling while atomic")),
            ("BUG: spinlock bad magic on CPU#0, truncate/77", Some("BUG: spinlock")),
            ("BUG: Bad page state in process truncate  pfn:12345", Some("BUG: Bad page state")),
            (
                "BUG: Bad rss-counter state mm:0000000012345678 type:MM_FILEPAGES val:1",
                Some("BUG: Bad rss-counter state"),
            ),
            ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [truncate:77]", Some("BUG: soft lockup")),
            (
                "list_add corruption. prev->next should be next (ffff888003c0a400), but was 0. (prev=ffff888003c0a408).",
                Some("list_add corruption"),
            ),
            ("list_add double add: new=ffff888003c0a400, prev=0, next=0.", Some("list_add corruption")),
            ("list_del corruption, ffff888003c0a400->next is NULL", Some("list_del corruption")),
            ("list_add is a function", None),
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
                "INFO: task kworker/0:1:80 blocked for more than 30 seconds.",
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

    #[test]
    fn a_leak_is_called_after_who_allocated() {
        let list = "unreferenced object 0xffff888003c0a400 (size 192):
  comm \"reg_mr\", pid 77, jiffies 4294892401
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 2b 30 78 00 00 00 00 00  ........+0x.....
  backtrace (crc 3a4b1c2d):
    kmemleak_alloc+0x4a/0x90
    __kmalloc_cache_noprof+0x1a0/0x290
    rxe_reg_user_mr+0x12/0x30 [rdma_rxe]
    ib_uverbs_reg_mr+0x1/0x2
unreferenced object 0xffff888003c0a500 (size 8):
  comm \"x\", pid 1, jiffies 1
  backtrace (crc 0):";
        let titles: Vec<String> = leaks(list.lines()).into_iter().map(|splat| splat.title).collect();
        assert_eq!(titles, ["memory leak in rxe_reg_user_mr", "memory leak"]);
        assert!(leaks([]).is_empty());
    }
}
