// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine needs and does not have, and what installs it.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::home::Home;
use crate::outcome::bad_input;
use crate::progress::Progress;

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To compile Holdfast and its agent.
    Holdfast,
    /// To fetch and unpack a kernel's source.
    Source,
    /// To build a kernel.
    Kernel,
    /// To make and run a guest.
    Guest,
    /// To run `test`, and nothing else.
    Test,
}

/// Something a machine must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program on the PATH, or a library the C compiler must find (`libNAME.a`, `NAME.h`).
    pub what: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// What it is needed for.
    pub stage: Stage,
    /// What would not work without it.
    pub reason: &'static str,
}

const fn need(what: &'static str, package: &'static str, stage: Stage, reason: &'static str) -> Need {
    Need { what, package, stage, reason }
}

/// Everything, on Debian 12 and 13. `rustup` brings the rest.
pub const NEEDS: &[Need] = &[
    need("gcc", "gcc", Stage::Kernel, "compiles kernels and the agent's shim over verbs.h"),
    need("stdio.h", "libc6-dev", Stage::Holdfast, "compiles everything"),
    need("make", "make", Stage::Kernel, "builds kernels"),
    need("flex", "flex", Stage::Kernel, "builds kernels: kconfig"),
    need("bison", "bison", Stage::Kernel, "builds kernels: kconfig"),
    need("bc", "bc", Stage::Kernel, "builds kernels: time constants"),
    need("perl", "perl", Stage::Kernel, "builds kernels: generated headers"),
    need("libelf.h", "libelf-dev", Stage::Kernel, "builds kernels: objtool"),
    need("git", "git", Stage::Kernel, "applies series, reads trees"),
    need("xz", "xz-utils", Stage::Source, "unpacks kernel sources"),
    need("tar", "tar", Stage::Source, "unpacks kernel sources"),
    need("dpkg-deb", "dpkg", Stage::Source, "unpacks kernel sources"),
    need("apt-get", "apt", Stage::Source, "fetches kernel sources"),
    need("qemu-system-x86_64", "qemu-system-x86", Stage::Guest, "runs guests"),
    need("setpriv", "util-linux", Stage::Guest, "ends guests with their parent"),
    need("choom", "util-linux", Stage::Guest, "ends guests first when memory runs out"),
    need("infiniband/verbs.h", "libibverbs-dev", Stage::Holdfast, "the agent's RDMA"),
    need("libibverbs.a", "libibverbs-dev", Stage::Holdfast, "the agent's RDMA, static"),
    need("libnl-3.a", "libnl-3-dev", Stage::Holdfast, "the agent's RDMA, static"),
    need("libnl-route-3.a", "libnl-route-3-dev", Stage::Holdfast, "the agent's RDMA, static"),
    need("mkfs.ext4", "e2fsprogs", Stage::Guest, "makes a guest's ext4"),
    need("e2fsck", "e2fsprogs", Stage::Guest, "checks a case's ext4"),
    need("mkfs.xfs", "xfsprogs", Stage::Guest, "makes a guest's XFS"),
    need("xfs_repair", "xfsprogs", Stage::Guest, "checks a case's XFS"),
    need("ibv_rc_pingpong", "ibverbs-utils", Stage::Guest, "goes into the guest"),
    need(
        "python3",
        "python3",
        Stage::Test,
        "runs the kernel's own reader of KTAP, which ours is compared with",
    ),
    need("busybox", "busybox", Stage::Guest, "the guest's shell"),
];

/// Free room in the cache's file system that a first run needs: sources 1.7 GiB, two object folders,
/// two kernels, the image.
pub const DISK_GIB: u64 = 8;
/// What Debian 12 ships; nothing older is tried.
const QEMU_OLDEST: (u32, u32) = (7, 2);
/// Memory a guest and a compiler need side by side.
const MEMORY_GIB: u64 = 2;

/// What is missing here.
#[must_use]
pub fn missing() -> Vec<Need> {
    NEEDS.iter().filter(|need| !is_there(need.what)).copied().collect()
}

/// What is missing here for one stage.
#[must_use]
pub fn missing_for(stage: Stage) -> Vec<Need> {
    missing().into_iter().filter(|need| need.stage == stage).collect()
}

/// Refuses to go on without what a stage needs.
///
/// # Errors
/// Bad input with the command that installs it.
pub fn require(stage: Stage) -> Result<()> {
    let missing = missing_for(stage);
    if missing.is_empty() { Ok(()) } else { Err(bad_input(refusal(&missing, false))) }
}

/// What is missing, why it matters, and what installs it.
fn refusal(missing: &[Need], install: bool) -> String {
    let mut message = list(missing);
    let root = nix::unistd::geteuid().is_root();
    let who = if root { "" } else { " as root" };
    let or = match (install, root) {
        (true, _) => "",
        (false, true) => ", or add --install to `run`",
        (false, false) => ", or, as root, add --install to `run`",
    };
    let _ = write!(message, "run{who}: {}{or}", install_command(&packages(missing)));
    message
}

fn list(missing: &[Need]) -> String {
    let mut message = String::from("this machine lacks what a run needs:\n");
    for need in missing {
        let _ = writeln!(message, "  {:20} {}", need.what, need.reason);
    }
    message
}

fn is_there(what: &str) -> bool {
    if what.ends_with(".h") {
        return header(what);
    }
    if what.ends_with(".a") {
        let answer = Command::new("gcc").arg(format!("-print-file-name={what}")).output();
        // gcc prints the bare name back when it does not find the file.
        return answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim().contains('/'));
    }
    program(what).is_some()
}

fn header(name: &str) -> bool {
    ["/usr/include", "/usr/include/x86_64-linux-gnu"].iter().any(|root| Path::new(root).join(name).exists())
}

/// A program on the PATH or in the system folders that are not on everybody's PATH.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The packages of what is missing, each once.
#[must_use]
pub fn packages(missing: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The command that installs packages.
#[must_use]
pub fn install_command(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Sees to it that nothing is missing, what `test` alone needs only for it: installs with `install` and root,
/// otherwise refuses.
///
/// # Errors
/// Bad input with the command to run, when something is missing and must not or cannot be installed.
pub fn provide(install: bool, test: bool, progress: &Progress) -> Result<()> {
    let wanted = || missing().into_iter().filter(|need| test || need.stage != Stage::Test).collect::<Vec<_>>();
    let missing = wanted();
    if missing.is_empty() {
        return Ok(());
    }
    if !install || !nix::unistd::geteuid().is_root() {
        return Err(bad_input(refusal(&missing, install)));
    }
    let packages = packages(&missing);
    progress.say(format!("{}installing {}", list(&missing), packages.join(", ")));
    let status = Command::new("sh")
        .args(["-c", &install_command(&packages)])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run sh")?;
    anyhow::ensure!(
        status.success(),
        "the packages could not be installed ({status}; what apt-get said is above): {}",
        install_command(&packages)
    );
    let left = wanted();
    anyhow::ensure!(
        left.is_empty(),
        "still missing after installing {}: {}",
        packages.join(", "),
        left.iter().map(|need| need.what).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// One finding of [`examine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Nothing to do about it.
    pub good: bool,
    /// What it is about.
    pub what: String,
    /// What was found, and the remedy if it is not good.
    pub found: String,
}

/// Everything worth knowing about this machine before a run.
#[must_use]
pub fn examine(home: &Home) -> Vec<Finding> {
    let mut findings: Vec<Finding> = NEEDS
        .iter()
        .map(|need| {
            let good = is_there(need.what);
            let found = if good {
                "there".to_owned()
            } else {
                format!("missing ({}): package {}", need.reason, need.package)
            };
            Finding { good, what: need.what.to_owned(), found }
        })
        .collect();
    let mut say =
        |good: bool, what: &str, found: String| findings.push(Finding { good, what: what.to_owned(), found });
    let (good, found) = room(&home.cache);
    say(good, "room", found);
    let memory = crate::jobs::available_mib().unwrap_or(0) >> 10;
    say(
        memory >= MEMORY_GIB,
        "memory",
        format!("{memory} GiB available; a guest beside a compiler needs {MEMORY_GIB}"),
    );
    if program(crate::machine::QEMU).is_some() {
        let (good, found) = match crate::machine::accel::qemu_version() {
            Ok(line) => (qemu_is_new_enough(&line), line),
            Err(error) => (false, format!("{error:#}")),
        };
        let (major, minor) = QEMU_OLDEST;
        say(good, "QEMU", format!("{found}; {major}.{minor} or newer is needed"));
        match crate::machine::accel::choose(&home.cache, crate::machine::accel::Wish::Auto) {
            Ok(chosen) if chosen.why.is_empty() => say(true, "accelerator", chosen.kind.name().to_owned()),
            Ok(chosen) => say(true, "accelerator", format!("{}: {}", chosen.kind.name(), chosen.why)),
            Err(error) => say(false, "accelerator", format!("{error:#}")),
        }
    }
    findings
}

/// Whether the cache can be written, and has room for a first run.
fn room(cache: &Path) -> (bool, String) {
    const ELSEWHERE: &str = "HOLDFAST_CACHE names another place";
    let folder = existing(cache);
    let writable = nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK);
    match writable.and_then(|()| nix::sys::statvfs::statvfs(folder)) {
        Ok(stat) => {
            let free = (stat.blocks_available() * stat.fragment_size()) >> 30;
            let good = free >= DISK_GIB || cache.join("kernels").is_dir();
            let remedy = if good { String::new() } else { format!("; {ELSEWHERE}") };
            (good, format!("{free} GiB free for {}; a first run needs {DISK_GIB}{remedy}", cache.display()))
        }
        Err(error) => (false, format!("{} cannot be used: {}; {ELSEWHERE}", cache.display(), error.desc())),
    }
}

/// `QEMU emulator version 7.2.22 (Debian ...)` is; a line that is not understood gets the benefit.
fn qemu_is_new_enough(line: &str) -> bool {
    let version = line.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= QEMU_OLDEST,
        _ => true,
    }
}

fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// True when a word of the PATH is the folder; `install` says so.
#[must_use]
pub fn on_path(folder: &Path) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|one| one.as_os_str() == OsStr::new(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_each_package_once() {
        let missing = [
            NEEDS[0],
            need("setpriv", "util-linux", Stage::Guest, "x"),
            need("choom", "util-linux", Stage::Guest, "y"),
        ];
        assert_eq!(packages(&missing), ["gcc", "util-linux"]);
        assert!(install_command(&packages(&missing)).ends_with(" gcc util-linux"));
        let refusal = refusal(&missing, false);
        for word in ["gcc ", "compiles kernels", "setpriv", "apt-get install", " gcc util-linux", "--install"] {
            assert!(refusal.contains(word), "{refusal}");
        }
    }

    #[test]
    fn an_old_qemu_is_told_from_a_new_one() {
        let check = |line: &str, expect: bool| assert_eq!(qemu_is_new_enough(line), expect, "{line}");
        check("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", true);
        check("QEMU emulator version 10.0.13", true);
        check("QEMU emulator version 7.1.0", false);
        check("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2)", false);
        check("something else", true);
    }

    #[test]
    fn a_cache_with_no_room_says_that_it_may_be_elsewhere() {
        // A file system without blocks, whoever asks.
        let (good, found) = room(Path::new("/proc/no/cache"));
        assert!(!good && found.contains("/proc/no/cache") && found.contains("HOLDFAST_CACHE"), "{found}");
    }

    #[test]
    fn presence_is_looked_at() {
        assert!(is_there("sh") && is_there("stdio.h") && is_there("libc.a"));
        assert!(!is_there("no-such-program") && !is_there("no/such.h") && !is_there("libnosuch.a"));
    }
}
