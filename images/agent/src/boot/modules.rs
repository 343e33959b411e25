// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules of the kernel, which the initramfs brings where the kernel is not all in one piece.
//!
//! Before everything else, because the agent's own port may be one of them. The host has put them in order and
//! unpacked them: there is no modprobe here, neither for us nor for the kernel's own requests.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use holdfast_protocol::{MODULE_IF_POSSIBLE, MODULE_ORDER, UnloadedModule};
use nix::errno::Errno;

use crate::sys;

/// Loads all of a folder; gives those that the kernel did not take.
pub(super) fn load_all(folder: &Path) -> Vec<UnloadedModule> {
    load(folder, |file| sys::load_module(file.as_fd()))
}

fn load(folder: &Path, mut load_one: impl FnMut(&File) -> Result<(), Errno>) -> Vec<UnloadedModule> {
    // Most kernels are in one piece.
    let Ok(order) = fs::read_to_string(folder.join(MODULE_ORDER)) else { return Vec::new() };
    let mut unloaded = Vec::new();
    for line in order.lines() {
        let (file, if_possible) = match line.split_once(' ') {
            Some((file, word)) => (file, word == MODULE_IF_POSSIBLE),
            None => (line, false),
        };
        let loaded = File::open(folder.join(file)).map_err(|error| error.to_string()).and_then(|file| {
            match load_one(&file) {
                // Another one has asked for it.
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno.to_string()),
            }
        });
        if let Err(why) = loaded
            && !if_possible
        {
            unloaded.push(UnloadedModule { name: file.trim_end_matches(".ko").to_owned(), why });
        }
    }
    unloaded
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn modules_are_loaded_in_order_and_those_that_are_not_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["nd", "nfit", "crc", "rxe"] {
            fs::write(dir.path().join(format!("{name}.ko")), name).unwrap();
        }
        let order = "nd.ko\ncrc.ko if-possible\nnone.ko if-possible\nnfit.ko\nrxe.ko\ngone.ko\n";
        fs::write(dir.path().join(MODULE_ORDER), order).unwrap();
        let mut seen = Vec::new();
        let unloaded = load(dir.path(), |mut file| {
            let mut name = String::new();
            file.read_to_string(&mut name).unwrap();
            seen.push(name.clone());
            match name.as_str() {
                "nd" => Err(Errno::EEXIST),
                "crc" => Err(Errno::ENODEV),
                "rxe" => Err(Errno::ENOEXEC),
                _ => Ok(()),
            }
        });
        assert_eq!(seen, ["nd", "crc", "nfit", "rxe"]);
        let told: Vec<(&str, &str)> =
            unloaded.iter().map(|one| (one.name.as_str(), one.why.as_str())).collect();
        assert_eq!(told[0], ("rxe", "ENOEXEC: Exec format error"));
        assert!(told[1].0 == "gone" && told[1].1.contains("No such file"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_kernel_in_one_piece_has_none() {
        assert_eq!(load_all(Path::new("/no/such/folder")), []);
    }
}
