// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that somebody else has built, put into the store as one of ours is: a Debian package, or an image
//! with its modules and its configuration.
//!
//! What a guest needs of it is looked for in its configuration here, because such a kernel seldom carries one;
//! modules travel in the initramfs, unpacked and in order.

mod bzimage;
mod modinfo;
mod modules;
mod needs;
mod order;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use self::modules::{Folder, Module, folder_of};
use self::needs::{Checked, Needs};
use super::spec::{self, Given, Made, Prebuilt};
use super::store::{self, Built, Manifest, ModuleNote};
use super::{Options, Request, Variant, debian, files};
use crate::home::Home;
use crate::outcome::bad_input;
use crate::progress::Progress;
use crate::scratch::{self, Scratch};

/// Counts up when the same kernel would be stored otherwise.
const FORMAT: u32 = 1;
/// A package's files.
const UNPACKED_MIB: u64 = 1_000;

/// What a request names that is not built here; nothing when it is.
///
/// # Errors
/// Bad input when more is asked of it than a kernel can give that is not built here.
pub(super) fn asked(home: &Home, request: &Request) -> Result<Option<Prebuilt>> {
    let prebuilt = match &request.prebuilt {
        Some(prebuilt) => prebuilt.clone(),
        None => match spec::spec(home, &request.base)?.made {
            Made::Here(_) => return Ok(None),
            Made::Elsewhere(prebuilt) => prebuilt,
        },
    };
    let only_built = [
        ("--tree", request.tree.is_some()),
        ("--series", request.series.is_some()),
        ("--config", request.config.is_some()),
        // Whether it can be traced is as it is.
        ("--debug", request.variant == Some(Variant::Debug)),
        ("bench peers", request.variant == Some(Variant::Peers)),
    ];
    match only_built.into_iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(Some(prebuilt)),
        Some((flag, _)) => {
            let name = if request.prebuilt.is_some() { request.name() } else { request.base.clone() };
            Err(bad_input(format!(
                "{flag}: the kernel {name} is not built here, it comes as it is; \
                 `kernel list` shows those that are built"
            )))
        }
    }
}

/// Gives the kernel, putting it into the store unless it is there.
pub(super) fn get(
    home: &Home,
    request: &Request,
    prebuilt: &Prebuilt,
    options: &Options,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Built> {
    let needs = Needs::read(home)?;
    let store = Store { home, request, needs: &needs, progress, cancel };
    let built = match prebuilt {
        Prebuilt::Package { name, place } => {
            let package = package::get(&home.cache, name, place, options.offline, progress)?;
            store.of_package(&package, place)?
        }
        Prebuilt::Files { vmlinuz, modules, config } => {
            let kernel = Files::read(vmlinuz, modules.as_ref(), config.as_ref(), &needs)?;
            let key = key(&[&kernel.identity(), &needs.identity()]);
            let named = vmlinuz.path()?.display().to_string();
            let what = format!("stores {named}");
            store.once(&key, &what, || store.publish(kernel, key.clone(), &named))?
        }
    };
    label(home, request, built)
}

/// As it was asked for, whoever has stored it.
fn label(home: &Home, request: &Request, mut built: Built) -> Result<Built> {
    built.manifest.name = request.name();
    built.manifest.contract = spec::spec(home, &request.base)?.contract;
    Ok(built)
}

fn key(inputs: &[&str]) -> String {
    let text = format!("prebuilt {FORMAT}\n{}", inputs.join("\n"));
    files::hex(&Sha256::digest(text)).split_off(48)
}

struct Store<'a> {
    home: &'a Home,
    request: &'a Request,
    needs: &'a Needs,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
}

impl Store<'_> {
    fn of_package(&self, package: &package::Package, place: &str) -> Result<Built> {
        let (cache, named) = (&self.home.cache, &package.named);
        let key = key(&[&package.identity, &self.needs.identity()]);
        self.once(&key, &format!("unpacks {named}"), || {
            scratch::check_space(cache, UNPACKED_MIB, "unpacking a kernel's package")?;
            self.progress.say(format!("unpacking {named}"));
            let work = Scratch::new(cache, "package")?;
            debian::unpack(&package.deb, work.path())?;
            let vmlinuz = image_in(&work.path().join("boot"))
                .ok_or_else(|| bad_input(format!("{place}: {named} holds no kernel (boot/vmlinuz-RELEASE)")))?;
            let given = |path: &Path| Given::of(path, named);
            let kernel = Files::read(&given(&vmlinuz), Some(&given(work.path())), None, self.needs)?;
            self.publish(kernel, key.clone(), named)
        })
    }

    /// What the store holds, or what `make` puts there while no other process does: a guest boots from it by then.
    fn once(&self, key: &str, what: &str, make: impl FnOnce() -> Result<Built>) -> Result<Built> {
        let cache = &self.home.cache;
        if let Some(built) = store::find(cache, key) {
            return Ok(built);
        }
        let _lock = scratch::lock_and_say(cache, &format!("kernel-{key}"), what, self.progress, self.cancel)?;
        match store::find(cache, key) {
            Some(built) => Ok(built),
            None => make(),
        }
    }

    fn publish(&self, kernel: Files, key: String, source: &str) -> Result<Built> {
        let Files { release, image, config, modules, checked, begun, .. } = kernel;
        let work = Scratch::new(&self.home.cache, "kernel")?;
        let put = |name: &Path, bytes: &[u8]| {
            fs::write(work.path().join(name), bytes)
                .with_context(|| format!("{} cannot be stored", name.display()))
        };
        put(Path::new("bzImage"), &image)?;
        put(Path::new("config"), config.as_bytes())?;
        fs::create_dir(work.path().join(store::MODULES))?;
        for module in &modules {
            put(&Path::new(store::MODULES).join(format!("{}.ko", module.name)), &module.bytes)?;
        }
        // What it carries can be asked of the running kernel too.
        let carries = needs::text_of(&config, "CONFIG_IKCONFIG_PROC").is_some_and(|value| value == "y");
        let note = |module: &Module| ModuleNote { name: module.name.clone(), if_possible: module.if_possible };
        let manifest = Manifest {
            name: self.request.name(),
            key,
            version: needs::version_of(&config).unwrap_or(&release).to_owned(),
            release,
            source: source.to_owned(),
            tested: None,
            contract: spec::spec(self.home, &self.request.base)?.contract,
            patches: Vec::new(),
            requests: if carries { checked.as_it_is } else { Vec::new() },
            lacks: checked.lacks,
            modules: modules.iter().map(note).collect(),
            arguments: self.needs.arguments.clone(),
            compiler: needs::text_of(&config, "CONFIG_CC_VERSION_TEXT").unwrap_or_default(),
            selftests: Vec::new(),
            steps: 0,
            build_s: begun.elapsed().as_secs_f64(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        store::publish(&self.home.cache, work, manifest)
    }
}

/// A kernel as it lies on this machine, read and looked at.
struct Files {
    release: String,
    image: Vec<u8>,
    config: String,
    modules: Vec<Module>,
    checked: Checked,
    begun: Instant,
}

impl Files {
    fn read(vmlinuz: &Given, modules: Option<&Given>, config: Option<&Given>, needs: &Needs) -> Result<Self> {
        let begun = Instant::now();
        let path = vmlinuz.path()?;
        let at = |given: &Given, path: &Path, what: String| {
            bad_input(format!("{}: {}: {what}", given.place, path.display()))
        };
        let image = fs::read(&path).map_err(|error| at(vmlinuz, &path, error.to_string()))?;
        let release = bzimage::release(&image).map_err(|error| at(vmlinuz, &path, error.to_string()))?;
        let modules = modules.map(|given| Ok::<_, anyhow::Error>((given, given.path()?))).transpose()?;
        let config_path = match config {
            Some(given) => given.path()?,
            None => usual_config(&path, &release, modules.as_ref().map(|(_, path)| path.as_path()))
                .map_err(|tried| at(vmlinuz, &path, tried))?,
        };
        let named = config_path.display().to_string();
        let text = needs::read_config(&config_path).map_err(|error| match config {
            Some(given) => bad_input(format!("{}: {error:#}", given.place)),
            None => error,
        })?;
        if let Some(version) = needs::version_of(&text).filter(|version| !are_related(version, &release)) {
            return Err(bad_input(format!(
                "{named} is the configuration of Linux {version}, and {} is {release}",
                path.display()
            )));
        }
        let checked = needs.check(&text, &named)?;
        let modules = match modules {
            _ if checked.modules.is_empty() => Vec::new(),
            Some((_, folder)) => Folder::open(&folder, &release)?.ordered(&checked.modules, &release)?,
            None => {
                let list: Vec<&str> = checked.modules.iter().map(|names| names[0].as_str()).collect();
                let list = list.join(", ");
                let what = format!(
                    "by {named} it is not in one piece, and where its modules are is not said \
                     (--modules, or `modules` of a description): {list}"
                );
                return Err(at(vmlinuz, &path, what));
            }
        };
        Ok(Self { release, image, config: text, modules, checked, begun })
    }

    /// All of it, for keys.
    fn identity(&self) -> String {
        let sum = |bytes: &[u8]| files::hex(&Sha256::digest(bytes));
        let modules = self.modules.iter().map(|module| format!("{} {}", module.name, sum(&module.bytes)));
        [sum(&self.image), sum(self.config.as_bytes())]
            .into_iter()
            .chain(modules)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The only image of a package.
fn image_in(boot: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(boot).ok()?.flatten();
    let mut images = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
    images.next().map(|entry| entry.path())
}

/// Where a configuration lies when nobody says: beside the image as in /boot, with the modules, or above an
/// image that was just built.
fn usual_config(vmlinuz: &Path, release: &str, modules: Option<&Path>) -> Result<PathBuf, String> {
    let name = format!("config-{release}");
    let beside = vmlinuz.parent().map(|folder| folder.join(&name));
    let with_modules = modules.map(|folder| folder_of(folder, release).join("config"));
    let built = vmlinuz.ancestors().nth(4).filter(|_| vmlinuz.ends_with("arch/x86/boot/bzImage"));
    let tried: Vec<PathBuf> =
        [beside, with_modules, built.map(|top| top.join(".config"))].into_iter().flatten().collect();
    tried.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
        format!(
            "with which configuration it was built is not known (there is no {}); say it",
            tried.join(", no ")
        )
    })
}

/// Of one version and patch level; what a distribution calls a release says no more.
fn are_related(version: &str, release: &str) -> bool {
    let two = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_digit()).take(2).map(str::to_owned).collect()
    };
    two(version) == two(release)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::BadInput;

    #[test]
    fn a_configuration_is_found_where_it_usually_lies() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            path
        };
        let (image, modules) = (at("o/arch/x86/boot/bzImage"), dir.path().join("m"));
        let tried = usual_config(&image, "6.12.1", Some(&modules)).unwrap_err();
        for word in ["boot/config-6.12.1", "m/config", "o/.config"] {
            assert!(tried.contains(word), "{tried}");
        }
        for path in ["o/.config", "m/config", "o/arch/x86/boot/config-6.12.1"] {
            let path = at(path);
            assert_eq!(usual_config(&image, "6.12.1", Some(&modules)).unwrap(), path);
        }
        let top = dir.path().join("top");
        let with_modules = at("top/lib/modules/6.12.1/config");
        let elsewhere = dir.path().join("x/bzImage");
        assert_eq!(usual_config(&elsewhere, "6.12.1", Some(&top)).unwrap(), with_modules);
    }

    #[test]
    fn a_configuration_of_another_kernel_is_told() {
        let check = |version, release, expect| assert_eq!(are_related(version, release), expect, "{release}");
        check("6.1.177", "6.1.0-51-amd64", true);
        check("6.12.117", "6.12.117+deb12-amd64", true);
        check("6.12.0-rc3", "6.12.0-rc3-g1234", true);
        check("6.12.117", "6.1.0-51-amd64", false);
    }

    #[test]
    fn files_that_are_no_kernel_are_refused_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let own = crate::home::Own::default();
        let home = Home { cache: dir.path().join("cache"), runs: data.join("no"), data, is_clone: true, own };
        let needs = Needs::read(&home).unwrap();
        let given = |name: &str| Given::of(&dir.path().join(name), &format!("--{name}"));
        let check = |config: bool, words: &[&str]| {
            let config = config.then(|| given("config"));
            let error = Files::read(&given("vmlinuz"), None, config.as_ref(), &needs).err().unwrap();
            assert!(error.is::<BadInput>(), "{error:#}");
            for word in words {
                assert!(format!("{error:#}").contains(word), "{error:#} lacks {word}");
            }
        };
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        check(false, &["--vmlinuz: ", "vmlinuz: No such file"]);
        write("vmlinuz", b"\x7fELF");
        check(false, &["--vmlinuz: ", "bzImage"]);
        write("vmlinuz", &bzimage::image_of("6.1.0-51-amd64"));
        check(false, &["config-6.1.0-51-amd64"]);
        check(true, &["--config: ", "cannot be read"]);
        write("config", b"nothing\n");
        check(true, &["--config: ", "no CONFIG_ line"]);
        write("config", b"# Linux/x86 6.12.117 Kernel Configuration\nCONFIG_A=y\n");
        check(true, &["is the configuration of Linux 6.12.117, and ", "vmlinuz is 6.1.0-51-amd64"]);
        write("config", b"# Linux/x86 6.1.177 Kernel Configuration\nCONFIG_A=y\n");
        check(true, &["no guest can be made of this kernel", "CONFIG_FS_DAX is n"]);
    }
}
