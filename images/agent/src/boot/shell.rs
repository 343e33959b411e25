// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shell: on the console, for a guest that nobody drives, or on the virtio console of one that is held where
//! a case failed.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_protocol::Hello;

use super::say;

/// The first virtio console (drivers/char/virtio_console.c init_port_console()).
const VIRTIO_CONSOLE: &str = "/dev/hvc0";

/// Shells by preference. busybox makes the terminal its controlling one, so that Ctrl-C works; behind `/dev/console`
/// it has to look for the terminal first.
const SHELLS: [&[&str]; 2] =
    [&["/bin/busybox", "setsid", "cttyhack", "/bin/busybox", "sh", "-i"], &["/bin/sh", "-i"]];
const SHELLS_ASIDE: [&[&str]; 2] =
    [&["/bin/busybox", "setsid", "-c", "/bin/busybox", "sh", "-i"], &["/bin/sh", "-i"]];

/// Says on the console what a host would have been told, then runs a shell until it ends.
pub(crate) fn run(hello: &Hello) {
    say(&format!("kernel {} {}", hello.kernel, hello.build));
    for pmem in &hello.pmem {
        let state = if pmem.trouble.is_empty() { "ready" } else { &pmem.trouble };
        say(&format!("{:?} on {} {}: {state}", pmem.place, pmem.device, pmem.mount));
    }
    for rdma in &hello.rdma {
        let state = if rdma.trouble.is_empty() { "ready" } else { &rdma.trouble };
        say(&format!("{} GID index {:?}: {state}", rdma.device, rdma.gid_index));
    }
    say(&format!("ready after {} ms; the machine goes off when the shell ends", hello.ready_ms));
    if let Err(why) = spawn(&SHELLS, [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]) {
        say(&why);
    }
}

/// Runs a shell on [`VIRTIO_CONSOLE`] until it ends.
pub(crate) fn run_aside() -> Result<(), String> {
    let said = |error: std::io::Error| format!("{VIRTIO_CONSOLE}: {error}");
    let port = OpenOptions::new().read(true).write(true).open(VIRTIO_CONSOLE).map_err(said)?;
    let copy = || port.try_clone().map(Stdio::from).map_err(said);
    spawn(&SHELLS_ASIDE, [copy()?, copy()?, copy()?])
}

fn spawn(shells: &[&[&str]], [input, output, errors]: [Stdio; 3]) -> Result<(), String> {
    let words = shells.iter().find(|words| Path::new(words[0]).exists()).ok_or("no shell in this image")?;
    // Its commands, behind the tools of the same name in /sbin.
    let _ = Command::new("/bin/busybox").args(["--install", "-s", "/bin"]).status();
    let shell = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", "/sbin:/bin")
        .env("HOME", "/tmp")
        .env("PS1", "holdfast# ")
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .status();
    shell.map(drop).map_err(|error| format!("{}: {error}", words[0]))
}
