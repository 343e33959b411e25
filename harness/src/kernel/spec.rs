// SPDX-License-Identifier: MIT OR Apache-2.0
//! `kernel-configs/NAME/kernel.yaml`: what a kernel is made of, as it is written down.
//!
//! Parsing only. Nothing here looks at a source, a compiler or the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::home::Home;
use crate::outcome::bad_input;
use crate::path;
use crate::yaml::{Document, Key, unknown_word};

const FILE_NAME: &str = "kernel.yaml";
const FRAGMENTS: &str = "fragments";

/// A kernel as described in its folder.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the folder.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// The contract this kernel claims to keep.
    pub contract: String,
    /// Features it claims to have, declared in `contracts.yaml`.
    pub features: Vec<String>,
    /// How it comes to be.
    pub made: Made,
}

/// How a kernel comes to be.
#[derive(Clone, Debug)]
pub enum Made {
    /// It is built here.
    Here(Recipe),
    /// Somebody else has built it.
    Elsewhere(Prebuilt),
}

/// What a kernel is built from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where its source can come from; the first one this host can use is taken.
    pub sources: Vec<Source>,
    /// The configuration the fragments are put on.
    pub base: Base,
    /// Names of fragments in `kernel-configs/fragments`, in order.
    pub fragments: Vec<String>,
    /// Names of fragments that only take away what costs time: left out on a person's own
    /// configuration, which may select some of it.
    pub trims: Vec<String>,
    /// The series, in order.
    pub patches: Vec<PathBuf>,
}

/// A kernel that somebody else has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prebuilt {
    /// A Debian package of a kernel, or one that only depends on the newest of them.
    Package {
        /// Its name.
        name: String,
        /// Where it is written, for messages.
        place: String,
    },
    /// Files of this machine.
    Files {
        /// The image, as a boot loader takes it.
        vmlinuz: Given,
        /// `lib/modules/RELEASE`, or the folder of it or above that; a kernel in one piece needs none.
        modules: Option<Given>,
        /// What it was built with; where it usually lies unless it is given.
        config: Option<Given>,
    },
}

/// The configuration target everything starts from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// As little as possible, so that what is needed is named.
    TinyConfig,
    /// The architecture's default.
    DefConfig,
}

impl Base {
    /// The make target.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::TinyConfig => "tinyconfig",
            Self::DefConfig => "defconfig",
        }
    }
}

/// One place a source can come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The point release the series was tried on.
    pub tested: String,
    /// How to get it.
    pub origin: Origin,
}

/// How a source is got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Debian source package by name, without root.
    Debian(String),
    /// A commit of a git tree: a path, or `$VARIABLE` that holds one.
    Git {
        /// The tree.
        tree: String,
        /// Anything `git rev-parse` understands.
        rev: String,
    },
    /// A packed tree that lies on this machine.
    Tarball {
        /// The file: a path, relative to the description's folder, or `$VARIABLE` that holds one.
        file: Given,
        /// SHA-256 of the file, in lower-case hexadecimal digits.
        sha256: String,
    },
}

/// A path as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// A path, or `$VARIABLE` that holds one.
    pub text: String,
    /// The folder that a relative path begins at.
    pub folder: PathBuf,
    /// Where it is written, for messages; the field's name included.
    pub place: String,
}

impl Given {
    /// One that was typed, or is known from elsewhere; `place` is what messages call it.
    #[must_use]
    pub fn of(path: &Path, place: &str) -> Self {
        Self { text: path.display().to_string(), folder: PathBuf::new(), place: place.to_owned() }
    }

    /// The path; nothing is said of whether it is there.
    ///
    /// # Errors
    /// When it is a variable that is not set.
    pub fn path(&self) -> Result<PathBuf> {
        let Some(variable) = self.text.strip_prefix('$') else {
            return std::path::absolute(self.folder.join(&self.text))
                .context("cannot tell the working directory");
        };
        let value = env::var_os(variable).filter(|value| !value.is_empty());
        let value = value.with_context(|| format!("{}: {} is not set", self.place, self.text))?;
        // What a shell has set is relative to where the shell stands; tools are run elsewhere.
        std::path::absolute(value).context("cannot tell the working directory")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    contract: String,
    #[serde(default)]
    features: Vec<String>,
    prebuilt: Option<PrebuiltEntry>,
    sources: Option<Vec<SourceEntry>>,
    base: Option<Base>,
    fragments: Option<Vec<String>>,
    trims: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrebuiltEntry {
    debian: Option<String>,
    vmlinuz: Option<String>,
    modules: Option<String>,
    config: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceEntry {
    debian: Option<String>,
    git: Option<GitEntry>,
    tarball: Option<TarballEntry>,
    tested: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GitEntry {
    tree: String,
    rev: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TarballEntry {
    file: String,
    sha256: String,
}

/// All kernels, by name.
///
/// # Errors
/// Bad input when one of the descriptions does not parse.
pub fn list(home: &Home) -> Result<Vec<Spec>> {
    names(home)?.iter().map(|name| load(home, name)).collect()
}

/// The kernel of that name.
///
/// # Errors
/// Bad input when there is none (with the nearest name and all of them), or it does not parse.
pub fn spec(home: &Home, name: &str) -> Result<Spec> {
    let names = names(home)?;
    if names.iter().any(|known| known == name) {
        return load(home, name);
    }
    let message = unknown_word("kernel", name, names.iter().map(String::as_str));
    Err(bad_input(message))
}

fn names(home: &Home) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for dir in home.kernel_folders() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{} cannot be read", dir.display()))? {
            let path = entry?.path();
            if path.join(FILE_NAME).is_file() {
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let own = home.own.kernels.as_deref().unwrap_or(Path::new("")).display();
        return Err(bad_input(format!(
            "{own} holds a kernel {}, which Holdfast has already: rename it",
            pair[0]
        )));
    }
    Ok(names)
}

/// The folder of a kernel's description.
#[must_use]
pub fn folder(home: &Home, name: &str) -> PathBuf {
    let described = |dir: &PathBuf| dir.join(name).join(FILE_NAME).is_file();
    home.kernel_folders().find(described).unwrap_or_else(|| home.kernel_configs()).join(name)
}

fn load(home: &Home, name: &str) -> Result<Spec> {
    let dir = folder(home, name);
    let path = dir.join(FILE_NAME);
    let document = Document::read(&path)?;
    let file: File = document.load()?;
    let patches = patch_files(&dir.join("patches"))?;
    let made = match file.prebuilt {
        Some(entry) => {
            let own = [
                ("sources", file.sources.is_some()),
                ("base", file.base.is_some()),
                ("fragments", file.fragments.is_some()),
                ("trims", file.trims.is_some()),
            ];
            if let Some((field, _)) = own.iter().find(|(_, is_there)| *is_there) {
                let message = "a kernel that is prebuilt is not built: leave this out, or `prebuilt`";
                return Err(document.fault(&path![*field], None, message));
            }
            if let Some(patch) = patches.first() {
                let message = format!("nothing can be patched in it: {} is of no use", patch.display());
                return Err(document.fault(&path!["prebuilt"], None, &message));
            }
            Made::Elsewhere(prebuilt(&document, &dir, entry)?)
        }
        None => {
            let missing = |field: &str| {
                document.fault(&[], None, &format!("missing field `{field}`; or `prebuilt` instead of all"))
            };
            let fragments = file.fragments.ok_or_else(|| missing("fragments"))?;
            let trims = file.trims.unwrap_or_default();
            known_fragments_only(home, &document, &fragments, &trims)?;
            Made::Here(Recipe {
                sources: sources(&document, &dir, file.sources.ok_or_else(|| missing("sources"))?)?,
                base: file.base.ok_or_else(|| missing("base"))?,
                fragments,
                trims,
                patches,
            })
        }
    };
    let (name, about) = (name.to_owned(), file.about);
    Ok(Spec { name, about, contract: file.contract, features: file.features, made })
}

fn known_fragments_only(
    home: &Home,
    document: &Document,
    fragments: &[String],
    trims: &[String],
) -> Result<()> {
    for (list, fragments) in [("fragments", fragments), ("trims", trims)] {
        if let Some(fragment) = fragments.iter().find(|fragment| !fragment_path(home, fragment).is_file()) {
            let known = known_fragments(home)?;
            let message = unknown_word("fragment", fragment, known.iter().map(String::as_str));
            return Err(document.fault(&path![list], Some(fragment), &message));
        }
    }
    Ok(())
}

fn prebuilt(document: &Document, dir: &Path, entry: PrebuiltEntry) -> Result<Prebuilt> {
    let given = |field: &str, text| given(document, dir, &path!["prebuilt", field], text);
    match entry {
        PrebuiltEntry { debian: Some(name), vmlinuz: None, modules: None, config: None } => {
            Ok(Prebuilt::Package { name, place: document.place(&path!["prebuilt", "debian"]) })
        }
        PrebuiltEntry { debian: None, vmlinuz: Some(vmlinuz), modules, config } => Ok(Prebuilt::Files {
            vmlinuz: given("vmlinuz", vmlinuz),
            modules: modules.map(|text| given("modules", text)),
            config: config.map(|text| given("config", text)),
        }),
        _ => {
            let message = "either `debian` alone is needed, or `vmlinuz` with `modules` and `config`";
            Err(document.fault(&path!["prebuilt"], None, message))
        }
    }
}

fn sources(document: &Document, dir: &Path, entries: Vec<SourceEntry>) -> Result<Vec<Source>> {
    if entries.is_empty() {
        return Err(document.fault(&path!["sources"], None, "at least one is needed"));
    }
    let mut sources = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let origin = match (entry.debian, entry.git, entry.tarball) {
            (Some(package), None, None) => Origin::Debian(package),
            (None, Some(git), None) => Origin::Git { tree: git.tree, rev: git.rev },
            (None, None, Some(tarball)) => {
                let at = path!["sources", index, "tarball", "sha256"];
                let sha256 = tarball.sha256.to_ascii_lowercase();
                if sha256.len() != 64 || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    let message = "a SHA-256 has 64 hexadecimal digits, as `sha256sum FILE` prints them";
                    return Err(document.fault(&at, None, message));
                }
                let file = given(document, dir, &path!["sources", index, "tarball", "file"], tarball.file);
                Origin::Tarball { file, sha256 }
            }
            _ => {
                let message = "exactly one of `debian`, `git` and `tarball` is needed";
                return Err(document.fault(&path!["sources", index], None, message));
            }
        };
        sources.push(Source { tested: entry.tested, origin });
    }
    Ok(sources)
}

fn given(document: &Document, dir: &Path, at: &[Key], text: String) -> Given {
    Given { text, folder: dir.to_owned(), place: document.place(at) }
}

/// Where a fragment lies.
pub(super) fn fragment_path(home: &Home, fragment: &str) -> PathBuf {
    let all = || home.kernel_folders().map(|dir| dir.join(FRAGMENTS).join(format!("{fragment}.config")));
    let ours = all().next().unwrap_or_default();
    all().find(|path| path.is_file()).unwrap_or(ours)
}

fn known_fragments(home: &Home) -> Result<Vec<String>> {
    let folders = home.kernel_folders().map(|dir| dir.join(FRAGMENTS)).filter(|dir| dir.is_dir());
    let found: Vec<Vec<String>> = folders.map(|dir| stems(&dir, "config")).collect::<Result<_>>()?;
    Ok(found.concat())
}

/// `*.patch` in `dir`, sorted by name; a folder that is not there holds none.
pub(crate) fn patch_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let stems = stems(dir, "patch")?;
    Ok(stems.iter().map(|stem| dir.join(format!("{stem}.patch"))).collect())
}

fn stems(dir: &Path, extension: &str) -> Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            stems.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    stems.sort();
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Own;

    const GOOD: &str = "about: x\ncontract: mainline\nsources:\n  - debian: linux-source-6.12\n    tested: 6.12.117\nbase: tinyconfig\nfragments: [base]\n";

    fn home(dir: &Path, yaml: &str) -> Home {
        let kernel = dir.join("kernel-configs/mine-6.12");
        fs::create_dir_all(kernel.join("patches")).unwrap();
        fs::create_dir_all(dir.join("kernel-configs/fragments")).unwrap();
        fs::write(dir.join("kernel-configs/fragments/base.config"), "").unwrap();
        fs::write(dir.join("kernel-configs/fragments/rdma.config"), "").unwrap();
        fs::write(kernel.join(FILE_NAME), yaml).unwrap();
        for patch in ["0002-b.patch", "0001-a.patch", "README"] {
            fs::write(kernel.join("patches").join(patch), "").unwrap();
        }
        Home {
            data: dir.to_owned(),
            is_clone: true,
            cache: dir.join("cache"),
            runs: dir.join("runs"),
            own: Own::default(),
        }
    }

    fn recipe(home: &Home) -> Recipe {
        match spec(home, "mine-6.12").unwrap().made {
            Made::Here(recipe) => recipe,
            Made::Elsewhere(prebuilt) => panic!("it is built: {prebuilt:?}"),
        }
    }

    #[test]
    fn a_description_is_read_with_its_series_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = recipe(&home(dir.path(), GOOD));
        assert_eq!(recipe.sources[0].origin, Origin::Debian("linux-source-6.12".into()));
        assert_eq!(recipe.base, Base::TinyConfig);
        let patches: Vec<_> =
            recipe.patches.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(patches, ["0001-a.patch", "0002-b.patch"]);
    }

    #[test]
    fn a_tarball_lies_beside_its_description_or_where_a_variable_says() {
        let dir = tempfile::tempdir().unwrap();
        let sum = "0123456789abcdef".repeat(4);
        let origin = |file: &str| {
            let tarball = format!("tarball: {{file: {file}, sha256: {}}}", sum.to_uppercase());
            let home = home(dir.path(), &GOOD.replace("debian: linux-source-6.12", &tarball));
            let Origin::Tarball { file, sha256 } = recipe(&home).sources.remove(0).origin else {
                panic!("it is a tarball");
            };
            assert_eq!(sha256, sum);
            file.path().map_err(|error| error.to_string())
        };
        let beside = dir.path().join("kernel-configs/mine-6.12/up/linux.tar.xz");
        assert_eq!(origin("up/linux.tar.xz").unwrap(), beside);
        assert_eq!(origin("/a/linux.tar.xz").unwrap(), Path::new("/a/linux.tar.xz"));
        assert!(origin("$HOME").unwrap().is_absolute());
        let error = origin("$NO_SUCH_VARIABLE_HERE").unwrap_err();
        assert!(error.contains("mine-6.12/kernel.yaml:4:21: sources[0].tarball.file: $NO_SUCH"), "{error}");
    }

    #[test]
    fn mistakes_are_told_with_place_and_the_nearest_word() {
        let check = |from: &str, to: &str, place: &str, expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            let yaml = GOOD.replace(from, to);
            let error = spec(&home(dir.path(), &yaml), "mine-6.12").unwrap_err();
            assert!(error.is::<crate::outcome::BadInput>());
            let error = error.to_string();
            assert!(error.contains(&format!("mine-6.12/kernel.yaml:{place}")), "{error}");
            assert!(error.contains(expect), "{error}");
        };
        check("fragments", "fragmnets", "7:1", "did you mean `fragments`?");
        check("contract: mainline\n", "", "1:1", "missing field `contract`");
        check("tinyconfig", "tinyconfg", "6:7", "did you mean `tinyconfig`?");
        check("fragments: [base]", "fragments: [base]\nfeatrues: [odp]", "8:1", "did you mean `features`?");
        check("debian", "debain", "4:5", "did you mean `debian`?");
        check("[base]", "[base, rmda]", "7:19", "did you mean `rdma`?");
        check(
            "  - debian: linux-source-6.12\n  ",
            "  -",
            "4:6",
            "exactly one of `debian`, `git` and `tarball`",
        );
        let debian = "debian: linux-source-6.12";
        check(debian, "tarball: {file: linux-6.12.tar.xz}", "4:14", "missing field `sha256`");
        check(debian, "tarball: {file: linux-6.12.tar.xz, sha256: 12ab}", "4:48", "64 hexadecimal digits");
        check(debian, "tarball: {path: x, sha256: 12ab}", "4:15", "valid: file, sha256");
    }

    const PREBUILT: &str = "about: x\ncontract: mainline\nprebuilt: {debian: linux-image-amd64}\n";

    fn prebuilt_of(dir: &Path, yaml: &str) -> Result<Prebuilt> {
        let home = home(dir, yaml);
        fs::remove_dir_all(dir.join("kernel-configs/mine-6.12/patches")).unwrap();
        match spec(&home, "mine-6.12")?.made {
            Made::Elsewhere(prebuilt) => Ok(prebuilt),
            Made::Here(recipe) => panic!("it is not built: {recipe:?}"),
        }
    }

    #[test]
    fn a_kernel_may_be_prebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let Prebuilt::Package { name, place } = prebuilt_of(dir.path(), PREBUILT).unwrap() else {
            panic!("it is a package");
        };
        assert_eq!(name, "linux-image-amd64");
        assert!(place.ends_with("mine-6.12/kernel.yaml:3:20: prebuilt.debian"), "{place}");
        let files = PREBUILT.replace("debian: linux-image-amd64", "vmlinuz: boot/vmlinuz, modules: /lib/x");
        let Prebuilt::Files { vmlinuz, modules, config } = prebuilt_of(dir.path(), &files).unwrap() else {
            panic!("these are files");
        };
        assert_eq!(vmlinuz.path().unwrap(), dir.path().join("kernel-configs/mine-6.12/boot/vmlinuz"));
        assert_eq!(modules.unwrap().path().unwrap(), Path::new("/lib/x"));
        assert_eq!(config, None);
    }

    #[test]
    fn a_prebuilt_kernel_is_not_built_as_well() {
        let check = |from: &str, to: &str, place: &str, expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            let error = prebuilt_of(dir.path(), &PREBUILT.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(&format!("mine-6.12/kernel.yaml:{place}")), "{error}");
            assert!(error.contains(expect), "{error}");
        };
        let and = "prebuilt: {debian: linux-image-amd64}\nfragments: [base]";
        check("prebuilt: {debian: linux-image-amd64}", and, "4:12: fragments: ", "leave this out");
        check("debian", "debain", "3:12", "did you mean `debian`?");
        check("debian: linux-image-amd64", "modules: /lib/x", "3:11", "`vmlinuz` with `modules`");
        check("debian: linux-image-amd64", "debian: x, vmlinuz: y", "3:11", "`debian` alone");
        check("prebuilt: {debian: linux-image-amd64}\n", "", "1:1", "missing field `fragments`; or `prebuilt`");
        let dir = tempfile::tempdir().unwrap();
        let error = spec(&home(dir.path(), PREBUILT), "mine-6.12").unwrap_err().to_string();
        assert!(
            error.contains("3:11: prebuilt: nothing can be patched") && error.contains("0001-a"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_kernel_is_told_with_the_nearest_and_all() {
        let dir = tempfile::tempdir().unwrap();
        let error = spec(&home(dir.path(), GOOD), "mine-6.2").unwrap_err().to_string();
        assert_eq!(error, "unknown kernel `mine-6.2`; did you mean `mine-6.12`? (valid: mine-6.12)");
    }
}
