// SPDX-License-Identifier: MIT OR Apache-2.0
//! `install`: the same program as `holdfast` on the PATH, with what it reads beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use holdfast::home::Home;
use holdfast::outcome::{Exit, bad_input};
use holdfast::{doctor, image};

/// Install this program as `holdfast`, to be used from any folder
#[derive(Args, Debug)]
pub(crate) struct Install {
    /// Folder of the program [default: where cargo installs programs]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// The program's name once installed.
const NAME: &str = "holdfast";

/// Copies the program and its data; what was installed before is replaced as a whole.
pub(crate) fn main(install: &Install, home: &Home) -> Result<Exit> {
    if !home.is_clone {
        return Err(bad_input("install works in a clone of Holdfast: run `cargo xtask install` there"));
    }
    let folder = match &install.to {
        Some(folder) => folder.clone(),
        None => cargo_bin()?,
    };
    let data = Home::installed_data()?;
    let (fresh, old) = (data.with_extension("new"), data.with_extension("old"));
    // What an install that was killed left behind.
    for left in [&fresh, &old].into_iter().filter(|left| left.exists()) {
        fs::remove_dir_all(left).with_context(|| format!("cannot remove {}", left.display()))?;
    }
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    for name in ["kernel-configs", "scenarios", "images"] {
        copy_data(&home.data.join(name), &fresh.join(name))?;
    }
    put(&fresh.join("agent"), &image::agent(home, false)?)?;
    if data.exists() {
        fs::rename(&data, &old).with_context(|| format!("cannot replace {}", data.display()))?;
    }
    fs::rename(&fresh, &data).with_context(|| format!("cannot make {}", data.display()))?;
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let program = folder.join(NAME);
    let bytes = fs::read(&own).with_context(|| format!("cannot read {}", own.display()))?;
    put(&program, &bytes)?;
    outln!("installed {} with its data in {}", program.display(), data.display());
    if !doctor::on_path(&folder) {
        outln!("{} is not on your PATH", folder.display());
    }
    Ok(Exit::AsExpected)
}

fn cargo_bin() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    Ok(home.context("neither CARGO_HOME nor HOME is set: use --to DIR")?.join("bin"))
}

/// Writes a program under another name first: the one there may be running.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let written = fs::write(&fresh, bytes)
        .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&fresh, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Copies what Holdfast reads and leaves out source code: the agent goes along built.
fn copy_data(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", from.display()))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.join("Cargo.toml").is_file() {
            continue;
        }
        if path.is_dir() {
            copy_data(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
