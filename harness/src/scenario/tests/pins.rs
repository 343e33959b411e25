// SPDX-License-Identifier: MIT OR Apache-2.0
//! A pin is shown alive before anything is expected of it.

use super::{GOOD, load};

const LIVE: &str =
    "  - {by: peer, do: {rdma_write: {mr: $mr, at_kib: 0, len_kib: 4, pattern: 1}}, expect: ok}\n";

#[test]
fn what_a_region_blocks_is_proved_only_behind_a_transfer_through_it() {
    let fault = load(&GOOD.replace(LIVE, "")).unwrap_err().to_string();
    assert!(
        fault.starts_with("s.yaml:14:5: steps[6]: it proves blocks of file `data`, which `mr` pins"),
        "{fault}"
    );
    assert!(fault.ends_with("through `$mr` expected to succeed before it"), "{fault}");
    // One that is expected to fail shows nothing, nor does one that comes after.
    load(&GOOD.replace(LIVE, &LIVE.replace("expect: ok", "expect: REM_ACCESS_ERR"))).unwrap_err();
    let after = GOOD.replace(LIVE, "").replace("  - {await: cut", &format!("{LIVE}  - {{await: cut"));
    load(&after).unwrap_err();
    // One through anonymous memory is no pin of the file.
    load(&GOOD.replace(LIVE, &LIVE.replace("$mr", "$twin"))).unwrap_err();
    load(GOOD).unwrap();
}

#[test]
fn every_pin_of_the_file_is_to_be_alive_and_none_that_is_gone() {
    let second = "  - {id: mr2, by: owner, do: {reg_mr: {map: $map, access: []}}, needs: [mr], expect: ok}\n";
    let both = GOOD.replace(LIVE, &format!("{second}{LIVE}"));
    let fault = load(&both).unwrap_err().to_string();
    assert!(fault.contains("which `mr2` pins"), "{fault}");
    let gone = "  - {by: owner, do: {dereg_mr: {mr: $mr2}}, needs: [mr]}\n";
    load(&GOOD.replace(LIVE, &format!("{second}{LIVE}{gone}"))).unwrap();
}

#[test]
fn a_pin_of_gup_test_is_shown_by_reading_it() {
    let gup = GOOD
        .replace(
            "{reg_mr: {map: $memory, access: []}}",
            "{gup_pin: {map: $memory, at_kib: 0, len_kib: 4, write: true}}",
        )
        .replace(
            "{reg_mr: {map: $map, access: []}}",
            "{gup_pin: {map: $map, at_kib: 0, len_kib: 4, write: true}}",
        );
    let fault = load(&gup.replace(LIVE, "")).unwrap_err().to_string();
    assert!(fault.contains("put a `gup_read` expected to succeed before it"), "{fault}");
    let read =
        "  - {by: owner, do: {gup_read: {at_kib: 0, len_kib: 4, pattern: 1}}, needs: [mr], expect: ok}\n";
    load(&gup.replace(LIVE, read)).unwrap();
}
