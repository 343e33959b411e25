// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any text is an outcome or is refused with a column within it; what is understood is written as it was meant.
#![no_main]

use holdfast::scenario::Expect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Expect>() {
        Ok(expect) => {
            let again: Expect = expect.to_string().parse().expect("what is printed is understood");
            assert_eq!(again, expect, "{text:?}");
        }
        Err(why) => {
            let column = why.rsplit_once("(column ").and_then(|(_, rest)| rest.split_once(' '));
            let column: usize = column.and_then(|(column, _)| column.parse().ok()).expect("a column");
            assert!((1..=text.len() + 1).contains(&column), "{text:?}: {why}");
        }
    }
});
