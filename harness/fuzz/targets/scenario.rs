// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any text is a scenario or is refused as bad input, with a place; what is good can be planned and explained.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use holdfast::contract::Contracts;
use holdfast::outcome::BadInput;
use holdfast::scenario::{explain, load_document};
use holdfast::yaml::Document;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios"));
static CONTRACTS: LazyLock<Contracts> =
    LazyLock::new(|| Contracts::load([FOLDER.clone()].into_iter()).expect("Holdfast's own are good"));

fuzz_target!(|text: &str| {
    let document = Document { file: "fuzz.yaml".into(), text: text.into() };
    match load_document(&document, &FOLDER.join("fuzz.yaml"), "fuzz", &CONTRACTS) {
        Ok(cases) => cases.iter().for_each(|case| drop(explain(case, &CONTRACTS))),
        Err(error) => {
            assert!(error.is::<BadInput>(), "{error:#}");
            // Of this file, or of one that it includes.
            let text = error.to_string();
            let (_, place) = text.split_once(".yaml:").expect("a file");
            let line = place.split(':').next().and_then(|line| line.parse::<u32>().ok());
            assert!(line.is_some_and(|line| line > 0), "{error:#}");
        }
    }
});
