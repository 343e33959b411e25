// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the kernel's hand-over to the session: mounts, modules, pmem, file systems, RDMA links, hello.
//!
//! What waits runs in threads of its own: on one emulated processor only waiting can overlap.
//! Trouble goes into the hello; nothing here panics, because PID 1 must not.

mod features;
pub(crate) mod filesystems;
mod modules;
mod mounts;
mod pmem;
pub(crate) mod rdma_link;
pub(crate) mod shell;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use holdfast_protocol::{
    Hello, MODULES, PROGRAM_FOLDERS, Place, PmemFact, RdmaFact, Reply, UnloadedModule, VERSION, write_frame,
};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::clock::now_ms;
use crate::oracles::mark_log;
use crate::port::{self, Port};
use crate::procfs;
use crate::progress::Progress;
use crate::session::{Session, Stage};
use crate::wire::Link;

/// Kernel argument: power off at once. For measuring what the machine itself costs.
const FLOOR: &str = "holdfast.floor";

/// Kernel argument: a shell on the console, also where a host listens.
const SHELL: &str = "holdfast.shell";

/// The agent's first line in the kernel log.
pub(crate) const MARK: &str = "holdfast: the agent begins";

/// Where the kernel tells time from.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// How long a provisional clock source may stay; it is no fault if it does.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// How often to look.
const CLOCK_STEP: Duration = Duration::from_millis(4);

/// The life of PID 1. `words` are what the kernel handed on from behind `--`.
pub(crate) fn run(words: &[&str]) -> ! {
    let started_ms = now_ms();
    if words.contains(&FLOOR) {
        power_off();
    }
    let mount_trouble = mounts::mount_all();
    let arguments = procfs::command_line();
    if arguments.iter().any(|word| word == FLOOR) {
        power_off();
    }
    if !mount_trouble.is_empty() {
        say(&mount_trouble.join("; "));
    }
    // Marks in the kernel log must not fall to its rate limit, nor pins to a limit of this process.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let _ = mark_log(&format!("<6>{MARK}\n"));
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let unloaded = timed("modules", || modules::load_all(Path::new(MODULES)));
    for module in &unloaded {
        say(&format!("the module {} is not loaded: {}", module.name, module.why));
    }
    let progress = match Progress::start() {
        Ok(progress) => progress,
        Err(error) => {
            say(&format!("starting the ticker: {error}"));
            power_off()
        }
    };
    let (hello, session) = get_ready(started_ms, unloaded, &progress);
    let alone = arguments.iter().any(|word| word == SHELL) || !port::is_wired();
    match port::find(&progress) {
        _ if alone => shell::run(&hello),
        Some(node) => serve(&node, &hello, session),
        // Nobody can be told but the console, and a host that listens need not wait.
        None => say("the kernel has no driver for the port to the host"),
    }
    power_off()
}

/// Prepares everything and says how it went.
fn get_ready(started_ms: u64, unloaded: Vec<UnloadedModule>, progress: &Progress) -> (Hello, Session) {
    let watch = progress.watch();
    let links = thread::spawn({
        let progress = progress.clone();
        move || timed("rdma", || rdma_link::bring_up(&progress))
    });
    let dimms: Vec<_> = pmem::find()
        .into_iter()
        .map(|dimm| {
            let place = dimm.place;
            (place, thread::spawn(move || timed(&format!("{place:?}"), || prepare(&dimm))))
        })
        .collect();
    let pmem: Vec<PmemFact> = dimms
        .into_iter()
        .map(|(place, thread)| {
            let died = "the agent's preparation died".to_owned();
            thread.join().unwrap_or_else(|_| PmemFact { trouble: died, ..nothing_yet(place) })
        })
        .collect();
    let rdma = links.join().unwrap_or_else(|_| rdma_link::none("the agent's preparation died"));
    let boot_id = procfs::boot_id();
    let stage = Stage { boot_id: boot_id.clone(), ..stage(&pmem, &rdma) };
    let session = timed("session", || Session::new(stage.clone(), progress.clone()));
    let uname = nix::sys::utsname::uname();
    let text = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname.as_ref().map(|uname| of(uname).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let ready_ms = now_ms();
    let hello = Hello {
        protocol: VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: text(|uname| uname.release()),
        build: text(|uname| uname.version()),
        started_ms,
        ready_ms,
        stalled_ms: progress.stopped_ms(started_ms, ready_ms - started_ms),
        boot_id,
        features: timed("features", || features::probe(&stage)),
        unloaded,
        pmem,
        rdma,
        cpus: thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
    };
    for trouble in
        hello.pmem.iter().map(|pmem| &pmem.trouble).chain(hello.rdma.iter().map(|link| &link.trouble))
    {
        if !trouble.is_empty() {
            say(trouble);
        }
    }
    // KERN_INFO: the console need not be written to when a saved machine goes on from here.
    let _ = mark_log(&format!("<6>holdfast: ready, {} ms since the agent started", ready_ms - started_ms));
    // Behind `ready_ms`: this takes all guests equally long, and theirs is to show how fast they are.
    drop(watch);
    (hello, session)
}

/// Waits until the kernel has measured the processor's clock for good, which takes it a second (its work
/// `tsc_refine_calibration_work()`): it then stops the machine to change over to it, and says so in the log.
pub(crate) fn settle_clock(progress: &Progress) {
    let limit = progress.within(CLOCK_TIMEOUT);
    let provisional = || std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc-early");
    while provisional() && !limit.is_over() {
        thread::sleep(CLOCK_STEP);
    }
}

/// What is known of an NVDIMM that was not prepared yet.
fn nothing_yet(place: Place) -> PmemFact {
    let (device, mount, trouble) = (String::new(), String::new(), String::new());
    PmemFact { place, device, mount, data_at: 0, found: false, trouble }
}

/// Makes one NVDIMM what it is to be.
fn prepare(dimm: &pmem::Dimm) -> PmemFact {
    let mut fact = nothing_yet(dimm.place);
    let result = dimm.prepare().and_then(|prepared| {
        fact.device = prepared.node.display().to_string();
        fact.data_at = prepared.data_at;
        let is_there = filesystems::holds(dimm.place, &prepared.node);
        fact.found = prepared.was_there && is_there;
        if dimm.place == Place::Devdax {
            return Ok(());
        }
        let folder = filesystems::mount(dimm.place, &prepared.node, is_there)?;
        fact.mount = folder.display().to_string();
        Ok(())
    });
    if let Err(why) = result {
        fact.trouble = why;
    }
    fact
}

/// Where the session finds what is ready.
fn stage(pmem: &[PmemFact], rdma: &[RdmaFact]) -> Stage {
    let mut stage =
        Stage { in_guest: true, programs: PROGRAM_FOLDERS.map(PathBuf::from).into(), ..Stage::default() };
    for fact in pmem.iter().filter(|fact| fact.trouble.is_empty()) {
        if fact.place == Place::Devdax {
            stage.places.insert(fact.place, PathBuf::from(&fact.device));
        } else {
            stage.places.insert(fact.place, PathBuf::from(&fact.mount));
            stage.devices.insert(fact.place, PathBuf::from(&fact.device));
        }
    }
    let ready = rdma.iter().filter(|fact| fact.trouble.is_empty());
    stage.rdma = ready
        .filter_map(|fact| {
            Some(Link { provider: fact.provider, device: fact.device.clone(), gid_index: fact.gid_index? })
        })
        .collect();
    stage
}

fn serve(node: &PathBuf, hello: &Hello, mut session: Session) {
    let mut port = match Port::open(node) {
        Ok(port) => port,
        Err(error) => return say(&format!("{}: {error}", node.display())),
    };
    if let Err(error) = write_frame(&mut port, &Reply::Hello(hello.clone())) {
        say(&format!("saying hello: {error}"));
    }
    // A port never ends; its host ends the machine.
    loop {
        if let Err(error) = session.serve(&mut port) {
            say(&error.to_string());
            port.drain();
        }
    }
}

/// Runs a phase of the boot and notes in the kernel log how long it took.
fn timed<T>(name: &str, phase: impl FnOnce() -> T) -> T {
    let before = now_ms();
    let result = phase();
    let _ = mark_log(&format!("holdfast: {name} took {} ms", now_ms() - before));
    result
}

/// A line on the console.
fn say(text: &str) {
    eprintln!("holdfast: {text}");
}

/// Switches the machine off. Dirty data is not waited for: the oracles have unmounted what counts,
/// and a file system that hangs must not keep the machine.
fn power_off() -> ! {
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // Not PID 1, or not root: nothing to switch off.
    std::process::exit(1)
}

/// Names of places for folders and messages.
fn place_name(place: Place) -> &'static str {
    match place {
        Place::Ext4 => "ext4",
        Place::Xfs => "xfs",
        Place::Devdax => "devdax",
    }
}

/// All places by the order of their NVDIMMs.
const PLACES: [Place; 3] = [Place::Ext4, Place::Xfs, Place::Devdax];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_protocol::Provider;

    use super::*;

    #[test]
    fn only_what_is_ready_is_on_stage() {
        let fact = |place, trouble: &str| PmemFact {
            place,
            device: format!("/dev/{}", place_name(place)),
            mount: format!("/mnt/{}", place_name(place)),
            data_at: 0,
            found: false,
            trouble: trouble.to_owned(),
        };
        let link = |provider, trouble: &str| RdmaFact {
            provider,
            device: format!("{}0", provider.name()),
            active: true,
            gid_index: Some(1),
            trouble: trouble.to_owned(),
        };
        let stage = stage(
            &[fact(Place::Ext4, ""), fact(Place::Xfs, "no"), fact(Place::Devdax, "")],
            &[link(Provider::Rxe, "no"), link(Provider::Siw, "")],
        );
        let places: BTreeMap<Place, PathBuf> =
            [(Place::Ext4, "/mnt/ext4".into()), (Place::Devdax, "/dev/devdax".into())].into();
        assert_eq!(stage.places, places);
        assert_eq!(stage.devices.keys().collect::<Vec<_>>(), [&Place::Ext4]);
        let siw = Link { provider: Provider::Siw, device: "siw0".into(), gid_index: 1 };
        assert_eq!(stage.rdma, [siw]);
    }
}
