// SPDX-License-Identifier: MIT OR Apache-2.0
//! What fuzzing found worth keeping, read once more: a regression test without a fuzzer.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

#[test]
fn the_kept_corpora_do_nothing_to_their_readers() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, reader) in fuzz::READERS {
        let files = fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"));
        let mut count = 0;
        for file in files {
            let file = file.unwrap().path();
            let bytes = fs::read(&file).unwrap();
            // The one that panics is the last that is named.
            println!("{}", file.strip_prefix(&corpora).unwrap().display());
            reader(&bytes);
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
