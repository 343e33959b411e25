// SPDX-License-Identifier: MIT OR Apache-2.0
//! What takes minutes: only with `cargo xtask test --full`, which leaves no module of this name out.

use std::fs;

use super::{MAINLINE, latest, run};

#[test]
#[ignore = "waits for the whole deadline of a boot"]
fn a_guest_that_never_says_hello_is_given_up_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) =
        run(folder.path(), &["controls/anonymous", "--kernel", MAINLINE, "--append", "rdinit=/bin/sh"]);
    assert_eq!(code, 125, "{text}");
    for word in ["did not boot", "no hello within", "console.log", "evidence"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
#[ignore = "builds a kernel"]
fn what_the_kernel_traced_stands_between_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let case = "truncate/held-by-vmsplice[fs=ext4]";
    let traced = |events: &str| run(folder.path(), &[case, "--kernel", MAINLINE, "--trace", events]);
    let (code, text) = traced("ext4:ext4_truncate");
    assert_eq!(code, 125, "{text}");
    for word in ["trace event `ext4:ext4_truncate`", "there is none; its subsystem has: ext4_truncate_enter, "]
    {
        assert!(text.contains(word), "there is no `{word}`:\n{text}");
    }
    let (code, text) = traced("ext4:ext4_truncate_enter");
    assert_eq!(code, 0, "{text}");
    let kernel = latest(folder.path()).join("cases").join(format!("{MAINLINE}-trace"));
    let case = kernel.join(case.replace('/', "."));
    let text = fs::read_to_string(case.join("timeline.txt")).unwrap();
    let at = |word: &str| text.lines().position(|line| line.contains(word));
    let (cut, traced) = (at("truncate"), at("ext4_truncate_enter:"));
    assert!(cut.is_some() && traced.is_some() && cut < traced, "{text}");
}
