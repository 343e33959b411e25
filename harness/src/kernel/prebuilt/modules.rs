// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel's folder of modules: found, put in order, unpacked.
//!
//! Unpacked here and not in the guest, whose kernel need not know how (CONFIG_MODULE_DECOMPRESS), and which has
//! no modprobe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::tools;
use super::modinfo::{self, canonical};
use super::order::{Found, Loaded, order};
use crate::doctor;
use crate::outcome::bad_input;

/// How files are packed: their first bytes, what unpacks them, and its Debian package.
const PACKED: [(&[u8], &str, &str); 3] =
    [(b"\xfd7zXZ\0", "xz", "xz-utils"), (b"\x28\xb5\x2f\xfd", "zstd", "zstd"), (b"\x1f\x8b", "gzip", "gzip")];

/// A module, unpacked.
pub(super) struct Module {
    pub(super) name: String,
    /// Nobody misses it where it does not load.
    pub(super) if_possible: bool,
    pub(super) bytes: Vec<u8>,
}

/// The folder of a release's modules: `given` is it, or `lib/modules`, or what that lies in.
pub(super) fn folder_of(given: &Path, release: &str) -> PathBuf {
    let below = ["lib/modules", "usr/lib/modules", ""].map(|part| given.join(part).join(release));
    below.into_iter().find(|path| path.is_dir()).unwrap_or_else(|| given.to_owned())
}

/// A folder of modules.
pub(super) struct Folder {
    path: PathBuf,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    aliases: BTreeMap<String, Vec<String>>,
}

impl Folder {
    /// The modules of a release.
    ///
    /// # Errors
    /// Bad input when there are none.
    pub(super) fn open(given: &Path, release: &str) -> Result<Self> {
        let path = folder_of(given, release);
        let mut files = BTreeMap::new();
        for part in ["extra", "kernel", "updates"] {
            collect(&path.join(part), &mut files)?;
        }
        if files.is_empty() {
            return Err(bad_input(format!(
                "{}: no modules of {release} (nothing in kernel/); lib/modules/{release} is meant, as \
                 `make modules_install INSTALL_MOD_PATH=DIR` makes it",
                given.display()
            )));
        }
        let lines = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        let built_in = lines("modules.builtin").lines().filter_map(|line| name_of(Path::new(line))).collect();
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines("modules.alias").lines() {
            let mut words = line.split_whitespace().skip(1);
            // Patterns are for devices, and a module that likes another one names it.
            if let (Some(alias), Some(module)) = (words.next(), words.next())
                && !alias.contains([':', '*'])
            {
                aliases.entry(canonical(alias)).or_default().push(canonical(module));
            }
        }
        Ok(Self { path, files, built_in, aliases })
    }

    /// The modules that are wanted, each by the name of its names that there is, and all that they use, in the order
    /// in which they are loaded.
    ///
    /// # Errors
    /// Bad input when one is missing, is no module, or is of another kernel.
    pub(super) fn ordered(&self, wanted: &[Vec<String>], release: &str) -> Result<Vec<Module>> {
        let is_there = |name: &&String| self.files.contains_key(*name) || self.built_in.contains(*name);
        let wanted: Vec<String> = wanted
            .iter()
            .filter_map(|names| names.iter().find(is_there).or_else(|| names.first()).cloned())
            .collect();
        let mut read: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut look = |name: &str| -> Result<Found> {
            if self.built_in.contains(name) {
                return Ok(Found::BuiltIn);
            }
            let Some(file) = self.files.get(name) else {
                return Ok(self.aliases.get(name).cloned().map_or(Found::Nothing, Found::Alias));
            };
            let bytes = unpacked(file)?;
            let Some(info) = modinfo::read(&bytes) else { bail!("{} is no module", file.display()) };
            if info.release != release {
                bail!("{} is a module of {}, and the kernel is {release}", file.display(), info.release);
            }
            read.insert(name.to_owned(), bytes);
            Ok(Found::Module(info))
        };
        let order = order(&wanted, &mut look)
            .map_err(|error| bad_input(format!("modules in {}: {error:#}", self.path.display())))?;
        let module = |Loaded { name, if_possible }| {
            let bytes = read.remove(&name).unwrap_or_default();
            Module { name, if_possible, bytes }
        };
        Ok(order.into_iter().map(module).collect())
    }
}

/// The name of a module's file, however packed.
fn name_of(path: &Path) -> Option<String> {
    let (name, packed) = path.file_name()?.to_str()?.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"].contains(&packed).then(|| canonical(name))
}

/// All modules below a folder; links lead elsewhere (`build`, `source`).
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let cannot = || format!("{} cannot be read", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(cannot)?);
        if kind.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let Some((_, tool, package)) = PACKED.iter().find(|(magic, ..)| bytes.starts_with(magic)) else {
        return Ok(bytes);
    };
    if doctor::program(tool).is_none() {
        bail!("{} is packed, and {tool} is missing: apt-get install {package}", path.display());
    }
    let shell = tools::shell(Path::new("/"))?;
    let file = std::path::absolute(path).context("cannot tell the working directory")?;
    tools::read(tools::clean(&shell, tool).args(["--decompress", "--stdout", "--quiet"]).arg(file))
        .with_context(|| format!("{} cannot be unpacked", path.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::modinfo::module_of;
    use super::*;
    use crate::outcome::BadInput;

    const RELEASE: &str = "6.1.0-51-amd64";

    fn put(folder: &Path, name: &str, words: &[&str]) -> PathBuf {
        let path = folder.join("kernel").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let magic = format!("vermagic={RELEASE} SMP");
        fs::write(&path, module_of(&[&[magic.as_str()], words].concat())).unwrap();
        path
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn modules_are_found_below_and_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lib/modules").join(RELEASE);
        let plain = put(&folder, "fs/xfs/xfs.ko", &["depends=libcrc32c", "softdep=pre: crypto-crc32c"]);
        let libcrc = put(&folder, "lib/libcrc32c.ko", &["depends="]);
        put(&folder, "crypto/crc32c-generic.ko", &[]);
        put(&folder, "crypto/unwanted.ko", &[]);
        fs::write(folder.join("modules.alias"), "# x\nalias crypto-crc32c crc32c_generic\nalias fs-* xfs\n")
            .unwrap();
        fs::write(folder.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let bytes = fs::read(&libcrc).unwrap();
        for tool in ["xz", "gzip"] {
            assert!(Command::new(tool).arg(&libcrc).status().unwrap().success());
            for given in [dir.path(), &dir.path().join("lib/modules"), &folder] {
                let modules = Folder::open(given, RELEASE).unwrap();
                let modules = modules
                    .ordered(&[vec!["older".into(), "ext4".into()], vec!["xfs".into()]], RELEASE)
                    .unwrap();
                assert_eq!(names(&modules), ["crc32c_generic", "libcrc32c", "xfs"]);
                assert!(modules[0].if_possible && !modules[1].if_possible);
                assert_eq!(modules[1].bytes, bytes);
                assert_eq!(modules[2].bytes, fs::read(&plain).unwrap());
            }
            let packed = libcrc.with_extension(if tool == "xz" { "ko.xz" } else { "ko.gz" });
            assert!(Command::new(tool).arg("-d").arg(packed).status().unwrap().success());
        }
    }

    #[test]
    fn what_is_wrong_with_modules_is_told_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let check = |release: &str, wanted: &str, words: &[&str]| {
            let found = Folder::open(folder, release)
                .and_then(|all| all.ordered(&[vec![wanted.into(), "other".into()]], release));
            let error = found.err().unwrap();
            assert!(error.is::<BadInput>(), "{error:#}");
            for word in words {
                assert!(format!("{error:#}").contains(word), "{error:#} lacks {word}");
            }
        };
        check(RELEASE, "nfit", &["no modules of 6.1.0-51-amd64", "modules_install", folder.to_str().unwrap()]);
        let nfit = put(folder, "nfit.ko", &["depends=libnvdimm"]);
        check(RELEASE, "xfs", &["there is no module xfs"]);
        check(RELEASE, "nfit", &["there is no module libnvdimm, which nfit uses"]);
        check("6.12.1", "nfit", &["nfit.ko is a module of 6.1.0-51-amd64, and the kernel is 6.12.1"]);
        let whole = fs::read(&nfit).unwrap();
        fs::write(&nfit, &whole[..whole.len() - 30]).unwrap();
        check(RELEASE, "nfit", &["nfit.ko is no module"]);
        fs::write(&nfit, b"\xfd7zXZ\0 and then nothing of the kind").unwrap();
        check(RELEASE, "nfit", &["nfit.ko cannot be unpacked", "xz"]);
    }
}
