// SPDX-License-Identifier: MIT OR Apache-2.0
//! `doctor`: what is missing here and what installs it.

use anyhow::Result;
use clap::Args;
use holdfast::doctor::{examine, install_command, missing, packages, provide};
use holdfast::home::Home;
use holdfast::outcome::Exit;
use holdfast::progress::Progress;

/// Say what is missing on this machine and what installs it
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Install what is missing (needs root)
    #[arg(long)]
    install: bool,
}

/// Prints every finding; 2 when something is missing.
pub(crate) fn main(doctor: &Doctor, home: &Home) -> Result<Exit> {
    if doctor.install {
        provide(true, true, &Progress::new(false))?;
    }
    let findings = examine(home);
    for finding in &findings {
        let mark = if finding.good { "ok  " } else { "MISS" };
        outln!("{mark} {:22} {}", finding.what, finding.found);
    }
    let missing = missing();
    if !missing.is_empty() {
        outln!("\nas root: {}", install_command(&packages(&missing)));
    }
    Ok(if findings.iter().all(|finding| finding.good) { Exit::AsExpected } else { Exit::BadInput })
}
