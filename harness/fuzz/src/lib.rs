// SPDX-License-Identifier: MIT OR Apache-2.0
//! What any bytes may do to the readers of what others write: nothing.
//!
//! Apart from the targets that libFuzzer drives, because Holdfast's own tests feed the same functions with the
//! corpora that are kept (`harness/tests/corpora.rs`).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use holdfast::contract::Contracts;
use holdfast::outcome::BadInput;
use holdfast::scenario::{Expect, explain, load_document};
use holdfast::tap;
use holdfast::yaml::Document;
use holdfast_protocol::{Order, Reply, read_frame, write_frame};

/// Gives any bytes to a reader, and panics where what is said of it below does not hold.
pub type Reader = fn(&[u8]);

/// Each target by its name, which is that of its corpus.
pub const READERS: [(&str, Reader); 4] =
    [("frame", frame), ("outcome", outcome), ("scenario", scenario), ("tap", tap)];

static SCENARIOS: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("scenarios"));
    above.find(|folder| folder.is_dir()).expect("a clone has scenarios")
});
static CONTRACTS: LazyLock<Contracts> =
    LazyLock::new(|| Contracts::load([SCENARIOS.clone()].into_iter()).expect("Holdfast's own are good"));

/// Any bytes on the port are frames or an error, on both sides; what is read is written and read again.
pub fn frame(bytes: &[u8]) {
    let mut stream = bytes;
    while let Ok(order) = read_frame::<Order>(&mut stream) {
        let mut wire = Vec::new();
        write_frame(&mut wire, &order).expect("it fitted before");
        assert_eq!(read_frame::<Order>(&mut wire.as_slice()).expect("it was written"), order);
    }
    let mut stream = bytes;
    while let Ok(reply) = read_frame::<Reply>(&mut stream) {
        let mut wire = Vec::new();
        write_frame(&mut wire, &reply).expect("it fitted before");
        assert!(read_frame::<Reply>(&mut wire.as_slice()).is_ok());
    }
}

/// Any text is an outcome or is refused with a column within it; what is understood is written as it was meant.
pub fn outcome(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
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
}

/// Any text is a scenario or is refused as bad input, with a place; what is good can be planned and explained.
pub fn scenario(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let document = Document { file: "fuzz.yaml".into(), text };
    match load_document(&document, &SCENARIOS.join("fuzz.yaml"), "fuzz", &CONTRACTS) {
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
}

/// Whatever a program prints has a reading, whose size that of the text bounds.
pub fn tap(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let report = tap::read(&text);
    let lines = text.lines().count();
    assert!(report.results().len() <= lines, "more results than lines");
    assert!(report.faults.len() <= 3 * lines + 1, "more faults than lines");
    assert!(report.faults.iter().all(|fault| (1..=lines + 1).contains(&fault.line)));
    let counts = report.counts();
    assert!(counts.total() >= counts.ok);
}
