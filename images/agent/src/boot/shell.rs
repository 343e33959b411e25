// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shell on the console, for a guest that nobody drives.

use std::path::Path;
use std::process::Command;

use holdfast_protocol::Hello;

use super::say;

/// Shells by preference. busybox opens the console as its controlling terminal, so that Ctrl-C
/// works.
const SHELLS: [&[&str]; 2] =
    [&["/bin/busybox", "setsid", "cttyhack", "/bin/busybox", "sh", "-i"], &["/bin/sh", "-i"]];

/// Says on the console what a host would have been told, then runs a shell until it ends.
pub(crate) fn run(hello: &Hello) {
    say(&format!("kernel {} {}", hello.kernel, hello.build));
    for pmem in &hello.pmem {
        let state = if pmem.trouble.is_empty() { "ready" } else { &pmem.trouble };
        say(&format!("{:?} on {} {}: {state}", pmem.place, pmem.device, pmem.mount));
    }
    let rdma = &hello.rdma;
    let state = if rdma.trouble.is_empty() { "ready" } else { &rdma.trouble };
    say(&format!("{} GID index {:?}: {state}", rdma.device, rdma.gid_index));
    say(&format!("ready after {} ms; the machine goes off when the shell ends", hello.ready_ms));
    let Some(words) = SHELLS.iter().find(|words| Path::new(words[0]).exists()) else {
        return say("no shell in this image");
    };
    // Its commands, behind the tools of the same name in /sbin.
    let _ = Command::new("/bin/busybox").args(["--install", "-s", "/bin"]).status();
    let shell = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", "/sbin:/bin")
        .env("HOME", "/tmp")
        .env("PS1", "holdfast# ")
        .status();
    if let Err(error) = shell {
        say(&format!("{}: {error}", words[0]));
    }
}
