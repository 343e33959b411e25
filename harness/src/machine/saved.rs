// SPDX-License-Identifier: MIT OR Apache-2.0
//! Saved machines: a guest that has booted, mounted its file systems and waits for its first order,
//! kept in the cache so that every case begins with a copy of it.
//!
//! `CACHE/machines/KEY/` holds its memory, the rest of its state, its pmem, and a manifest with their
//! digests. The memory is a file that copies map privately, so nothing of it is read before it is used and
//! nothing a copy writes is seen by another. The key is made of all that a machine depends on; what is found
//! under it is believed only when every digest is right, the manifest's own (in `used`) first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use holdfast_protocol::{ConfigMismatch, Hello, Provider};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::accel::{Kind, qemu_version};
use super::command::{Memory, Ports, arguments, kernel_arguments};
use super::vm::{Broken, Cancel, Vm};
use super::{CONSOLE, Machine, pmem, pmem_file, ready};
use crate::home::Home;
use crate::judge::unready;
use crate::kernel::Pruned;
use crate::outcome::Interrupted;
use crate::scratch::{self, Scratch};
use crate::splat::splats;

/// The memory of a machine that is or was saved.
pub(super) const MEMORY: &str = "memory.img";
/// The rest of its state, as QEMU's migration stream.
pub(super) const STATE: &str = "state.bin";
const MANIFEST: &str = "saved.json";
/// Holds the manifest's digest. Its time says when the machine was last asked for; who uses the machine
/// holds a lock on it.
const USED: &str = "used";
/// Version of all this.
const FORMAT: u32 = 1;

/// Boots before a link that is late is taken for one that does not come.
const TRIES: u32 = 2;
/// Writing a state takes 10 ms.
const SAVE_DEADLINE: Duration = Duration::from_secs(30);
/// Room that making one takes: its memory and pmem as far as a boot writes to them, before holes are dug.
const ROOM_MIB: u64 = 256;
/// Machines that stay when another is made: a few kernels with a few images.
const KEPT: usize = 8;

/// All that a saved machine depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inputs {
    format: u32,
    /// SHA-256 of the kernel image.
    kernel: String,
    /// SHA-256 of the initramfs.
    image: String,
    /// What the kernel was told.
    kernel_arguments: String,
    /// QEMU's arguments, accelerator and CPU model among them.
    arguments: Vec<String>,
    /// What QEMU calls itself, and what tells two builds of one version apart.
    qemu: String,
    /// The host's processor, when the guest sees it.
    host_cpu: String,
}

impl Inputs {
    fn of(machine: &Machine) -> Result<Self> {
        // What a copy is given, but for the place of its memory.
        let arguments = arguments(machine, Memory::CopyOf(Path::new("")), Ports::Host);
        Ok(Self {
            format: FORMAT,
            kernel: digest_of(&machine.kernel)?,
            image: digest_of(&machine.initrd)?,
            kernel_arguments: kernel_arguments(machine),
            arguments,
            qemu: qemu_identity(&machine.qemu)?,
            host_cpu: match machine.accelerator.kind {
                Kind::Tcg => String::new(),
                Kind::Kvm => host_cpu(),
            },
        })
    }

    fn key(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn digest_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(digest_of_bytes(&bytes))
}

fn digest_of_bytes(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an open [`USED`] is still the one of the folder.
fn is_at(used: &File, dir: &Path) -> bool {
    let both = fs::metadata(dir.join(USED)).and_then(|there| Ok((there, used.metadata()?)));
    both.is_ok_and(|(there, here)| (there.dev(), there.ino()) == (here.dev(), here.ino()))
}

fn qemu_identity(qemu: &Path) -> Result<String> {
    let version = qemu_version()?;
    let found = if qemu.is_absolute() {
        Some(qemu.to_owned())
    } else {
        crate::image::find_tool(&qemu.to_string_lossy())
    };
    let meta = found.and_then(|path| fs::metadata(path).ok());
    let modified =
        meta.as_ref().and_then(|meta| meta.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok());
    Ok(format!(
        "{version}, {} bytes of {}",
        meta.map_or(0, |meta| meta.len()),
        modified.map_or(0, |modified| modified.as_secs())
    ))
}

/// Model and features of the first processor.
fn host_cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    text.lines().take_while(|line| !line.is_empty()).filter(wanted).collect::<Vec<_>>().join("; ")
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    inputs: Inputs,
    /// Where the kernel image was: without it nobody asks for the machine again.
    kernel: PathBuf,
    hello: Hello,
    config: Vec<ConfigMismatch>,
    /// How slow its guest was, against the reference.
    pace: f64,
    /// Digest of every file.
    files: BTreeMap<String, String>,
}

/// A machine to make copies of. Nobody prunes it as long as this lives.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub(super) dir: PathBuf,
    /// Its state without its memory.
    pub(super) state: Vec<u8>,
    manifest: Manifest,
    used: File,
}

impl Saved {
    /// What the guest said of itself before it was saved.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.manifest.hello
    }

    /// Requested options that its kernel has otherwise.
    #[must_use]
    pub fn config(&self) -> &[ConfigMismatch] {
        &self.manifest.config
    }

    /// How slow its guest was to be ready, against the reference.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.manifest.pace
    }

    /// Bytes of disk it takes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.manifest.files.keys().map(|name| pmem::disk_bytes(&self.dir.join(name))).sum()
    }

    /// Throws it away: it is no good. Copies that run keep what they have; one that somebody made in its
    /// place meanwhile stays.
    pub fn discard(&self) {
        if is_at(&self.used, &self.dir) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What is in the cache under a machine's key.
#[derive(Debug)]
pub enum Found {
    /// A good one.
    Good(Box<Saved>),
    /// None; the place to make it, which nobody else makes one at meanwhile.
    None(Site),
    /// One that was damaged, and why; it is gone.
    Bad(Site, String),
}

/// A machine that can be made, under its lock.
#[derive(Debug)]
pub struct Site {
    inputs: Inputs,
    dir: PathBuf,
    _making: File,
}

/// Looks for a machine in the cache, waiting for another process that makes it just now.
///
/// # Errors
/// When the cache cannot be used, or the machine's parts cannot be read.
pub fn find(home: &Home, machine: &Machine, wait: impl FnOnce(&str) -> Result<File>) -> Result<Found> {
    let inputs = Inputs::of(machine)?;
    let key = inputs.key();
    let dir = root(home).join(&key);
    // A good one is only looked at, without the lock of those who make one.
    if let Ok(Some(saved)) = open(&dir, &inputs) {
        return Ok(Found::Good(Box::new(saved)));
    }
    let making = wait(&format!("machine-{key}"))?;
    let site = |dir| Site { inputs: inputs.clone(), dir, _making: making };
    match open(&dir, &inputs) {
        Ok(Some(saved)) => Ok(Found::Good(Box::new(saved))),
        Ok(None) => Ok(Found::None(site(dir))),
        Err(why) => {
            scratch::remove_tree(&dir)?;
            Ok(Found::Bad(site(dir), format!("{why:#}")))
        }
    }
}

fn root(home: &Home) -> PathBuf {
    home.cache.join("machines")
}

/// The machine of a folder: nothing where there is none, an error when it is not what it should be.
fn open(dir: &Path, inputs: &Inputs) -> Result<Option<Saved>> {
    if !dir.exists() {
        return Ok(None);
    }
    let mut used = File::open(dir.join(USED)).with_context(|| format!("{USED} is missing"))?;
    used.lock_shared().context("it cannot be locked")?;
    // It may have been removed, and another put in its place, while we waited.
    if !is_at(&used, dir) {
        return Ok(None);
    }
    let text = fs::read(dir.join(MANIFEST)).with_context(|| format!("{MANIFEST} cannot be read"))?;
    let mut seal = String::new();
    used.read_to_string(&mut seal).with_context(|| format!("{USED} cannot be read"))?;
    ensure!(seal == digest_of_bytes(&text), "{MANIFEST} is damaged");
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{MANIFEST} cannot be understood"))?;
    ensure!(
        manifest.inputs == *inputs,
        "it was made of another {}",
        first_difference(&manifest.inputs, inputs)
    );
    for (name, want) in &manifest.files {
        let got = pmem::digest(&dir.join(name))?;
        ensure!(got == *want, "{name} is damaged");
    }
    // QEMU opens it for writing, although a copy never writes to it.
    File::options()
        .read(true)
        .write(true)
        .open(dir.join(MEMORY))
        .with_context(|| format!("QEMU could not open its {MEMORY}"))?;
    let state = fs::read(dir.join(STATE)).with_context(|| format!("{STATE} cannot be read"))?;
    let _ =
        File::options().write(true).open(dir.join(USED)).and_then(|used| used.set_modified(SystemTime::now()));
    Ok(Some(Saved { dir: dir.to_owned(), state, manifest, used }))
}

fn first_difference(then: &Inputs, now: &Inputs) -> &'static str {
    match (then, now) {
        _ if then.format != now.format => "version of Holdfast",
        _ if then.kernel != now.kernel => "kernel",
        _ if then.image != now.image => "image",
        _ if then.qemu != now.qemu => "QEMU",
        _ if then.host_cpu != now.host_cpu => "processor",
        _ => "machine",
    }
}

/// Boots the machine, saves it when it is ready, with the links that its kernel has drivers of, and puts it into the
/// cache.
///
/// # Errors
/// When the guest does not become ready or cannot be saved, or the cache cannot hold it.
pub async fn make(
    home: &Home,
    site: Site,
    machine: &Machine,
    requests: &[(String, String)],
    links: &[Provider],
    cancel: Cancel,
) -> Result<Saved> {
    make_room(home);
    let folder = Scratch::new(&home.cache, "machine")?;
    // A write beyond the end of the disk is SIGBUS for QEMU.
    scratch::check_space(folder.path(), ROOM_MIB, "saving a machine")?;
    let dir = folder.path();
    let size = machine.memory_mib;
    pmem::create(&dir.join(MEMORY), size)?;
    let mut tries = TRIES;
    let (hello, config, pace) = loop {
        tries -= 1;
        let mut vm = Vm::boot_to_save(machine, dir, cancel.clone())?;
        let made = get_ready_and_save(&mut vm, requests).await;
        vm.stop().await;
        let made = made.map_err(|broken| in_words(broken, dir))?;
        // What was late once would be missing in every copy; on a host that is busy for a moment it may not be again.
        match links.iter().find_map(|link| unready(&made.0, *link)) {
            None => break made,
            Some(why) if tries == 0 => bail!(why),
            Some(_) => {
                for name in images(machine).chain([STATE, CONSOLE]) {
                    let _ = fs::remove_file(dir.join(name));
                }
                pmem::create(&dir.join(MEMORY), size)?;
            }
        }
    };
    let console = fs::read(dir.join(CONSOLE)).unwrap_or_default();
    // Every copy would have it, and every case would be a kernel bug because of one boot.
    if let Some(splat) = splats(String::from_utf8_lossy(&console).lines()).first() {
        bail!("its boot has a splat: {}", splat.title);
    }
    for name in images(machine) {
        pmem::dig_holes(&dir.join(name))?;
    }
    let (inputs, kernel) = (site.inputs.clone(), machine.kernel.clone());
    seal(dir, Manifest { inputs, kernel, hello, config, pace, files: digests(dir, machine)? })?;
    scratch::create_dir(&root(home))?;
    fs::rename(dir, &site.dir).with_context(|| format!("{} could not be published", site.dir.display()))?;
    open(&site.dir, &site.inputs)?.context("it went away again")
}

/// The files of a machine but its state.
fn images(machine: &Machine) -> impl Iterator<Item = &'static str> {
    machine.pmem.iter().map(|device| pmem_file(device.place)).chain([MEMORY])
}

fn digests(dir: &Path, machine: &Machine) -> Result<BTreeMap<String, String>> {
    images(machine).chain([STATE]).map(|name| Ok((name.to_owned(), pmem::digest(&dir.join(name))?))).collect()
}

/// Writes down what a folder holds, and the digest of that.
fn seal(dir: &Path, manifest: Manifest) -> Result<()> {
    let text = serde_json::to_vec_pretty(&manifest)?;
    fs::write(dir.join(MANIFEST), &text).context("cannot write the machine's manifest")?;
    fs::write(dir.join(USED), digest_of_bytes(&text)).context("cannot write the machine's lock")
}

/// Seals a machine's folder anew, whatever it holds now: for tests of what no digest can find.
///
/// # Errors
/// When the folder is no saved machine's.
pub fn seal_again(dir: &Path) -> Result<()> {
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST))?)?;
    for (name, digest) in &mut manifest.files {
        *digest = pmem::digest(&dir.join(name))?;
    }
    seal(dir, manifest)
}

async fn get_ready_and_save(
    vm: &mut Vm,
    requests: &[(String, String)],
) -> Result<(Hello, Vec<ConfigMismatch>, f64), Broken> {
    let hello = ready::hello(vm).await?;
    let pace = ready::pace(vm);
    let config = ready::check_config(vm, requests).await?;
    ready::settle(vm, pace).await?;
    vm.save(SAVE_DEADLINE).await?;
    Ok((hello, config, pace))
}

/// Why a machine was not made; with the end of what QEMU said, which goes away with the folder.
fn in_words(broken: Broken, dir: &Path) -> anyhow::Error {
    match broken {
        Broken::Cancelled => Interrupted.into(),
        other => anyhow!(other.in_words(dir)),
    }
}

/// A saved machine as a folder of the cache.
#[derive(Clone, Debug)]
struct Stored {
    path: PathBuf,
    /// The kernel image it was booted from; `None` when its manifest says nothing.
    kernel: Option<PathBuf>,
    /// Time since it was last asked for.
    unused_for: Duration,
}

/// All saved machines, the most recently used first.
fn all(home: &Home) -> Vec<Stored> {
    let entries = fs::read_dir(root(home)).into_iter().flatten().flatten();
    let mut all: Vec<Stored> = entries
        .map(|entry| {
            let path = entry.path();
            let used = fs::metadata(path.join(USED)).and_then(|meta| meta.modified());
            let unused_for = used.ok().and_then(|used| used.elapsed().ok()).unwrap_or_default();
            let manifest = fs::read(path.join(MANIFEST)).ok();
            let manifest: Option<Manifest> = manifest.and_then(|text| serde_json::from_slice(&text).ok());
            Stored { path, kernel: manifest.map(|manifest| manifest.kernel), unused_for }
        })
        .collect();
    all.sort_by_key(|one| one.unused_for);
    all
}

/// Removes a saved machine unless somebody uses it, under the lock that keeps others from beginning to;
/// says whether it went, or would go.
fn remove(path: &Path, dry_run: bool) -> bool {
    let used = File::open(path.join(USED));
    match &used {
        Ok(used) if used.try_lock().is_err() => false,
        // Without the file that is locked it is no machine that anybody can use.
        _ => dry_run || fs::remove_dir_all(path).is_ok(),
    }
}

/// Every change of the agent makes another image, and every image another machine.
fn make_room(home: &Home) {
    for old in all(home).iter().skip(KEPT - 1) {
        remove(&old.path, false);
    }
}

/// Removes the saved machines that nobody asked for in so many days (zero takes all), and those whose
/// kernel is gone. What a live process uses stays.
pub fn prune(home: &Home, unused_days: Option<u64>, dry_run: bool) -> Vec<Pruned> {
    let limit = unused_days.map(|days| Duration::from_secs(days.saturating_mul(24 * 60 * 60)));
    let mut pruned = Vec::new();
    for one in all(home) {
        let is_old = limit.is_some_and(|limit| one.unused_for >= limit);
        let is_orphan = one.kernel.as_ref().is_none_or(|kernel| !kernel.exists());
        if !(is_old || is_orphan) {
            continue;
        }
        let bytes = scratch::freed_by_removing(&one.path);
        if remove(&one.path, dry_run) {
            pruned.push(Pruned { what: "saved machine".to_owned(), path: one.path, bytes });
        }
    }
    pruned
}
