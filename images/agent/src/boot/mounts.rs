// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mounts of the guest, as a table.

use std::fs;

use nix::mount::{MsFlags, mount};

/// Folder, file system type, options.
const MOUNTS: [(&str, &str, &str); 8] = [
    ("/proc", "proc", ""),
    ("/sys", "sysfs", ""),
    ("/dev", "devtmpfs", "mode=0755"),
    ("/dev/pts", "devpts", "mode=0620,ptmxmode=0666"),
    ("/dev/shm", "tmpfs", "mode=1777"),
    ("/sys/kernel/debug", "debugfs", ""),
    ("/tmp", "tmpfs", "mode=1777"),
    ("/run", "tmpfs", "mode=0755"),
];

/// Mounts all of the table; returns what did not work.
pub(crate) fn mount_all() -> Vec<String> {
    MOUNTS.iter().filter_map(|entry| mount_one(*entry).err()).collect()
}

fn mount_one((folder, kind, options): (&str, &str, &str)) -> Result<(), String> {
    // sysfs and debugfs bring their folders themselves; creating there fails and does not matter.
    let _ = fs::create_dir_all(folder);
    let options = Some(options).filter(|options| !options.is_empty());
    mount(Some(kind), folder, Some(kind), MsFlags::empty(), options)
        .map_err(|errno| format!("mounting {kind} on {folder}: {errno}"))
}
