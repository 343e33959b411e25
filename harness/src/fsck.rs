// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the two file systems of a case on its pmem images, once the guest has unmounted them.
//!
//! On the host, because the checkers take a tenth of a second and more under emulation and a hundredth
//! here, because a kernel that went wrong has no part in it, and because a checker that hangs can be
//! ended. The images show what the guest wrote: its pmem is a shared mapping of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_protocol::{Hello, Place, UmountFact};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use crate::image::find_tool;
use crate::machine::{copy, pmem_file};

/// How the checker of one file system ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckFact {
    /// Which file system.
    pub on: Place,
    /// The command.
    pub command: String,
    /// Its exit status; 0 means clean. `None` when it did not run, or was killed.
    pub status: Option<i32>,
    /// The end of what it printed.
    pub output: String,
}

/// A damaged file system may keep a checker going for a while, not for ever.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much of a checker's output is kept, in bytes: the end, where the findings are.
const OUTPUT_BYTES: usize = 2048;
/// The part of the XFS image that is the file system: xfs_repair takes no offset.
const XFS_DATA: &str = "xfs-data.img";

/// Checks every file system that was unmounted, both at once.
///
/// # Errors
/// When a checker cannot be run at all: that is a fault of the host, not of a file system.
pub async fn check(folder: &Path, hello: &Hello, umounts: &[UmountFact]) -> Result<Vec<FsckFact>> {
    let mut facts = Vec::new();
    let [first, second] = [Place::Ext4, Place::Xfs].map(|on| check_one(folder, hello, umounts, on));
    let (first, second) = tokio::join!(first, second);
    facts.extend(first?);
    facts.extend(second?);
    Ok(facts)
}

/// Nothing where nothing was to be unmounted.
async fn check_one(
    folder: &Path,
    hello: &Hello,
    umounts: &[UmountFact],
    on: Place,
) -> Result<Option<FsckFact>> {
    let (Some(umount), Some(pmem)) =
        (umounts.iter().find(|one| one.on == on), hello.pmem.iter().find(|one| one.place == on))
    else {
        return Ok(None);
    };
    let image = pmem_file(on);
    let (tool, arguments) = match on {
        Place::Ext4 => ("e2fsck", vec!["-fn".to_owned(), format!("{image}?offset={}", pmem.data_at)]),
        _ => ("xfs_repair", vec!["-n".to_owned(), "-f".to_owned(), XFS_DATA.to_owned()]),
    };
    let command = format!("{tool} {}", arguments.join(" "));
    if umount.errno != 0 {
        let output = "not run: the file system could not be unmounted".to_owned();
        return Ok(Some(FsckFact { on, command, status: None, output }));
    }
    let copied = match on {
        Place::Xfs => copy(&folder.join(image), pmem.data_at, &folder.join(XFS_DATA)),
        _ => Ok(()),
    };
    let run = match copied {
        Ok(()) => run(folder, tool, &arguments).await,
        Err(error) => Err(error),
    };
    if on == Place::Xfs {
        let _ = std::fs::remove_file(folder.join(XFS_DATA));
    }
    let (status, output) = run?;
    Ok(Some(FsckFact { on, command, status, output }))
}

async fn run(folder: &Path, tool: &str, arguments: &[String]) -> Result<(Option<i32>, String)> {
    let program = find_tool(tool).with_context(|| format!("{tool} is not on this machine"))?;
    // Nothing ends it with its host: it takes a hundredth of a second, and writes nothing.
    let child = Command::new(&program)
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for Holdfast: a checker it reached would have found nothing.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    match timeout(DEADLINE, child.wait_with_output()).await {
        Ok(output) => {
            let output = output.with_context(|| format!("cannot wait for {tool}"))?;
            let text = tail(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
            // Killed: the host's trouble says nothing about the file system.
            match output.status.code() {
                None => bail!("{tool}: {}: {}", output.status, text.trim()),
                Some(code) => Ok((Some(code), text)),
            }
        }
        Err(_) => Ok((None, format!("ended after {} s", DEADLINE.as_secs()))),
    }
}

fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(OUTPUT_BYTES);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[from..].to_owned()
}
