// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Debian package of a kernel in the cache, packed as it came: unpacked it takes five times the room, and a
//! guest needs little of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::source::{self, Label};
use super::super::{debian, files};
use crate::outcome::bad_input;
use crate::progress::Progress;
use crate::scratch::{self, Scratch};
use crate::yaml::nearest;

/// The package's name in its folder.
const DEB: &str = "package.deb";
/// The package, fetched and stored.
const PACKAGE_MIB: u64 = 300;
/// What all packages of kernels are called.
const PREFIX: &str = "linux-image-";
/// A package that stands for the newest kernel depends on one that may itself do so.
const MOST_STEPS: usize = 4;

/// A package in the cache.
pub(super) struct Package {
    /// What it is, for keys.
    pub(super) identity: String,
    /// What it is, for people.
    pub(super) named: String,
    pub(super) deb: PathBuf,
}

/// Gives the package of a kernel, fetching it unless it is in the cache.
///
/// # Errors
/// Bad input when apt does not know it; otherwise when it is not in the cache and cannot be fetched.
pub(super) fn get(
    cache: &Path,
    name: &str,
    place: &str,
    offline: bool,
    progress: &Progress,
) -> Result<Package> {
    if let Some(found) = cached(cache, name) {
        return Ok(found);
    }
    debian::check_tools(name)?;
    let real = real(name, place, &debian::known)?;
    if let Some(found) = cached(cache, &real) {
        return Ok(found);
    }
    if offline {
        bail!(
            "{place}: {real}: not in the cache; without --offline `apt-get download {real}` would fetch it (100 MB)"
        );
    }
    let what = format!("fetches {real}");
    let _lock = scratch::lock_and_say(cache, &format!("source-{real}"), &what, progress, &source::NEVER)?;
    if let Some(found) = cached(cache, &real) {
        return Ok(found);
    }
    scratch::check_space(cache, PACKAGE_MIB, "fetching a kernel's package")?;
    let work = Scratch::new(cache, "package")?;
    let deb = debian::download(work.path(), &real, "100 MB", progress)?;
    let version = debian::field(&deb, "Version")?;
    let identity = format!("debian {real} {version} {}", files::sum(&deb)?);
    fs::rename(&deb, work.path().join(DEB)).with_context(|| format!("{} cannot be stored", deb.display()))?;
    let label = Label { identity, named: format!("{real} {version}") };
    source::put(cache, work, &format!("{real}_{}", source::file_name(&version)), &label)?;
    cached(cache, &real).with_context(|| format!("{real} went away again"))
}

fn cached(cache: &Path, name: &str) -> Option<Package> {
    let found = source::cached(cache, &format!("{name}_"))?;
    let deb = found.file(DEB);
    Some(Package { identity: found.identity, named: found.named, deb }).filter(|package| package.deb.is_file())
}

/// The package that holds a kernel: this one, or the one it depends on.
fn real(name: &str, place: &str, known: &dyn Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let mut name = name.to_owned();
    for _ in 0..MOST_STEPS {
        let Some(fields) = known(&name)? else {
            let names = debian::names(PREFIX);
            let hint = nearest(&name, names.iter().map(String::as_str));
            let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(bad_input(format!(
                "{place}: apt knows no package {name}{hint} (`apt-cache search ^{PREFIX}` lists them, \
                 `apt-get update` as root renews what apt knows)"
            )));
        };
        match depends_on(&fields) {
            Some(next) => name = next,
            None => return Ok(name),
        }
    }
    bail!("{place}: {name}: one package depends on the other, and none holds a kernel")
}

/// The first kernel's package that a package depends on.
fn depends_on(fields: &str) -> Option<String> {
    let list = fields.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = list.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    names.into_iter().find(|name| name.starts_with(PREFIX)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::BadInput;

    #[test]
    fn a_package_that_stands_for_the_newest_is_followed() {
        let known = |name: &str| {
            let depends = match name {
                "linux-image-amd64" => "linux-image-6.1.0-51-amd64 (= 6.1.192-2)",
                "linux-image-6.1.0-51-amd64" => {
                    "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool"
                }
                "linux-image-a" => "linux-image-b",
                "linux-image-b" => "linux-image-a",
                _ => return Ok(None),
            };
            Ok(Some(format!("Package: {name}\nVersion: 1\nDepends: {depends}\nSection: kernel\n")))
        };
        assert_eq!(real("linux-image-amd64", "p", &known).unwrap(), "linux-image-6.1.0-51-amd64");
        assert_eq!(real("linux-image-6.1.0-51-amd64", "p", &known).unwrap(), "linux-image-6.1.0-51-amd64");
        assert!(real("linux-image-a", "p", &known).unwrap_err().to_string().contains("none holds a kernel"));
        let error = real("linux-image-7", "--package", &known).unwrap_err();
        assert!(error.is::<BadInput>() && error.to_string().starts_with("--package: apt knows no"), "{error}");
    }

    #[test]
    fn a_package_in_the_cache_is_taken_without_asking_apt() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, progress) = (dir.path().join("cache"), Progress::new(true));
        let name = "linux-image-0.0-none";
        let work = Scratch::new(&cache, "package").unwrap();
        fs::write(work.path().join(DEB), "deb").unwrap();
        let label = Label { identity: "debian x".into(), named: format!("{name} 1") };
        source::put(&cache, work, &format!("{name}_1"), &label).unwrap();
        let package = get(&cache, name, "--package", true, &progress).unwrap();
        assert_eq!((package.identity.as_str(), package.named.as_str()), ("debian x", "linux-image-0.0-none 1"));
        assert_eq!(fs::read_to_string(package.deb).unwrap(), "deb");
    }
}
