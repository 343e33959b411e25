// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: PID 1 of the guest. It prepares the guest, plays scenarios, reports facts.
//!
//! One program in several roles, told apart by the first argument:
//! nothing, as PID 1: [`boot`], then a [`session`] on the virtio-serial port;
//! `actor`: one [`actor`] of a session; `keeper`: what outlives an actor on purpose;
//! `session`: a session as an ordinary process, for tests.

mod actor;
mod boot;
mod clock;
mod handlers;
mod iwarp;
mod legacy;
mod netlink;
mod ops;
mod oracles;
mod port;
mod procfs;
mod progress;
mod repeat;
mod session;
mod signals;
mod stress;
mod survey;
mod sys;
mod trace;
mod verbs;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::exit;

use holdfast_protocol::Place;

use crate::progress::Progress;
use crate::session::{Session, Stage};
use crate::wire::Patient;

/// Exit status for arguments that make no sense.
const EXIT_USAGE: i32 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if std::process::id() == 1 {
        boot::run(&words);
    }
    match words.as_slice() {
        ["actor"] => actor::run(),
        ["actor", "--resume", fd] => match fd.parse().ok().and_then(|fd| sys::inherited_fd(fd).ok()) {
            Some(legacy) => legacy::resume(legacy),
            None => fail(&format!("{fd} is no descriptor")),
        },
        ["keeper", what @ ..] => ops::violate::run_keeper(what),
        ["session", "--port-fd", fd, "--root", root] => match fd.parse() {
            Ok(fd) => session_for_tests(fd, Path::new(root)),
            Err(_) => fail(&format!("{fd} is no descriptor")),
        },
        _ => fail("this is the guest's PID 1; outside one: holdfast-agent session --port-fd N --root DIR"),
    }
}

fn fail(why: &str) -> ! {
    eprintln!("holdfast-agent: {why}");
    exit(EXIT_USAGE)
}

/// A session whose places are folders below `root`.
fn session_for_tests(fd: i32, root: &Path) -> ! {
    let names = [(Place::Ext4, "ext4"), (Place::Xfs, "xfs"), (Place::Devdax, "devdax")];
    let places: BTreeMap<_, _> = names.map(|(place, name)| (place, root.join(name))).into();
    let programs = vec![root.join("programs")];
    let stage = Stage { places, programs, boot_id: procfs::boot_id(), ..Stage::default() };
    let progress = Progress::start().unwrap_or_else(|error| fail(&format!("the ticker: {error}")));
    match sys::inherited_fd(fd) {
        Ok(stream) => match Session::new(stage, progress).serve(&mut Patient(File::from(stream))) {
            Ok(()) => exit(0),
            Err(error) => fail(&error.to_string()),
        },
        Err(errno) => fail(&format!("descriptor {fd}: {errno}")),
    }
}
