// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent's binary: built in a clone, brought along by an installed copy.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::home::Home;
use crate::outcome::bad_input;

/// Named, so that the flags below do not reach build scripts, which run on the host.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// One file, nothing to load: it is PID 1 of a guest that holds little else.
const RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// How much of a failed build is shown, in lines.
const SHOWN_LINES: usize = 60;

/// The bytes of the agent. Its crates come from the network unless `offline`, then from what cargo
/// has already.
///
/// # Errors
/// Bad input when an installed copy lost it or a library to build it with is missing; otherwise when
/// it does not build.
pub fn binary(home: &Home, offline: bool) -> Result<Vec<u8>> {
    let path = if home.is_clone { build(home, offline)? } else { home.data.join("agent") };
    if !path.is_file() {
        return Err(bad_input(format!(
            "{} is missing: run `cargo xtask install` in a clone of Holdfast again",
            path.display()
        )));
    }
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Builds the agent; returns where it is. Says nothing unless it fails or takes long.
fn build(home: &Home, offline: bool) -> Result<PathBuf> {
    let target = home.data.join("target/agent");
    let path = target.join(TARGET).join("release/holdfast-agent");
    if !path.exists() {
        crate::progress::print("building the guest's agent (once; about a minute)");
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "holdfast-agent", "--target", TARGET])
        .args(offline.then_some("--offline"))
        .arg("--manifest-path")
        .arg(home.data.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .context("cannot run cargo")?;
    if output.status.success() {
        return Ok(path);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    if shown.contains("install the Debian packages") {
        return Err(bad_input(format!("the guest's agent does not build\n{shown}")));
    }
    bail!("the guest's agent does not build ({})\n{shown}", output.status)
}
