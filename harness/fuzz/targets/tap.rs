// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever a program prints has a reading, whose size that of the text bounds.
#![no_main]

use holdfast::tap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let report = tap::read(&text);
    let lines = text.lines().count();
    assert!(report.results().len() <= lines, "more results than lines");
    assert!(report.faults.len() <= 3 * lines + 1, "more faults than lines");
    assert!(report.faults.iter().all(|fault| (1..=lines + 1).contains(&fault.line)));
    let counts = report.counts();
    assert!(counts.total() >= counts.ok);
});
