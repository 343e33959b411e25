// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is inside the guest: from `images/NAME.yaml` to an initramfs in the cache.
//!
//! An image is named by the SHA-256 of its bytes, and the same inputs give the same bytes: an
//! unchanged image is found again, a changed one never replaces one that a machine is booting from.

mod agent;
mod archive;
mod spec;
mod tools;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use holdfast_protocol::{MODULE_IF_POSSIBLE, MODULE_ORDER, MODULES, PROGRAM_FOLDERS};
use sha2::{Digest, Sha256};

pub use agent::binary as agent;
pub use tools::find as find_tool;

use crate::home::Home;
use crate::scratch::Scratch;

/// The image every case runs on.
pub const DEFAULT: &str = "default";

/// The image a boot is measured against: the agent alone.
pub const FLOOR: &str = "floor";

/// An initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The archive.
    pub path: PathBuf,
    /// SHA-256 of the archive, in hexadecimal digits.
    pub key: String,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// A program of a person's own, or of a kernel, that goes into the image beside those of its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// What scenarios call it.
    pub name: String,
    /// The file; what it loads goes with it.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

impl Extra {
    /// A program of a person's own.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_file(name: String, path: PathBuf) -> std::io::Result<Self> {
        let sha256 = hex(&Sha256::digest(fs::read(&path)?));
        Ok(Self { name, path, sha256 })
    }
}

/// A module of a kernel, unpacked, which its guests load before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Nobody misses it where it does not load.
    pub if_possible: bool,
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What all guests of a run have in common.
#[derive(Clone, Debug)]
pub struct Parts(Vec<archive::Entry>);

impl Parts {
    /// Collects what an image is made of, the agent included; never from the network with `offline`.
    ///
    /// # Errors
    /// Bad input when there is no such image, its description has a fault, or a tool is missing;
    /// otherwise when the agent does not build.
    pub fn collect(home: &Home, name: &str, offline: bool) -> Result<Self> {
        let spec = spec::Spec::read(home, name)?;
        let mut files = tools::collect(&spec)?;
        files.push(archive::Entry::program("/init", agent::binary(home, offline)?));
        Ok(Self(files))
    }

    /// Gives the image with these programs and modules, making it unless it is in the cache already.
    ///
    /// # Errors
    /// Bad input when a program cannot be read or loads a library that is not there; otherwise when a module
    /// cannot be read or the cache cannot be written.
    pub fn with(&self, home: &Home, extras: &[Extra], modules: &[Module]) -> Result<Image> {
        let mut files = tools::programs(extras)?;
        files.extend(modules_of(modules)?);
        // Of two files with one path the later one counts.
        files.extend(self.0.iter().cloned());
        let archive = archive::write(&files).context("cannot write the initramfs")?;
        let key = hex(&Sha256::digest(&archive));
        let path = home.cache.join("images").join(format!("{key}.cpio"));
        if !path.is_file() {
            publish(home, &path, &archive).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Image { path, key, bytes: archive.len() as u64 })
    }
}

/// The modules, and the file that says in which order they are loaded.
fn modules_of(modules: &[Module]) -> Result<Vec<archive::Entry>> {
    let mut entries = Vec::new();
    let mut order = String::new();
    for module in modules {
        let bytes = fs::read(&module.path).with_context(|| format!("cannot read {}", module.path.display()))?;
        entries.push(archive::Entry::program(format!("{MODULES}/{}.ko", module.name), bytes));
        let word = if module.if_possible { format!(" {MODULE_IF_POSSIBLE}") } else { String::new() };
        order.push_str(&format!("{}.ko{word}\n", module.name));
    }
    if !modules.is_empty() {
        entries.push(archive::Entry::program(format!("{MODULES}/{MODULE_ORDER}"), order.into_bytes()));
    }
    Ok(entries)
}

/// Names of the programs that an image is to bring: a host that lacks one is told so when the image is made.
///
/// # Errors
/// Bad input when there is no such image, or its description has a fault.
pub fn programs(home: &Home, name: &str) -> Result<Vec<String>> {
    let spec = spec::Spec::read(home, name)?;
    let found = spec.tools.iter().filter_map(|tool| tool.to.rsplit_once('/'));
    let found = found.filter(|(folder, _)| PROGRAM_FOLDERS.contains(folder));
    Ok(found.map(|(_, name)| name.to_owned()).collect())
}

/// Writes a file elsewhere in the cache, then gives it its name: nobody ever sees a part of it.
fn publish(home: &Home, path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let scratch = Scratch::new(&home.cache, "image")?;
    let fresh = scratch.path().join("image");
    fs::write(&fresh, bytes)?;
    fs::create_dir_all(path.parent().context("it has no folder")?)?;
    fs::rename(&fresh, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let module = |name: &str, if_possible| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            Module { name: name.to_owned(), path, if_possible }
        };
        let entries = modules_of(&[module("nd", false), module("crc", true), module("a", false)]).unwrap();
        let found: Vec<(&str, &[u8])> =
            entries.iter().map(|entry| (entry.path.as_str(), entry.bytes.as_slice())).collect();
        let order: &[u8] = b"nd.ko\ncrc.ko if-possible\na.ko\n";
        let want: [(&str, &[u8]); 4] = [
            ("/modules/nd.ko", b"nd"),
            ("/modules/crc.ko", b"crc"),
            ("/modules/a.ko", b"a"),
            ("/modules/order", order),
        ];
        assert_eq!(found, want);
        assert_eq!(modules_of(&[]).unwrap(), []);
    }

    #[test]
    fn a_published_file_is_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().to_owned();
        let home = Home {
            data: cache.clone(),
            is_clone: false,
            runs: cache.join("runs"),
            cache,
            own: crate::home::Own::default(),
        };
        let path = folder.path().join("images/k.cpio");
        publish(&home, &path, b"bytes").unwrap();
        publish(&home, &path, b"bytes").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
