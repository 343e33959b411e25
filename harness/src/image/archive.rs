// SPDX-License-Identifier: MIT OR Apache-2.0
//! An initramfs as the kernel unpacks it: a newc archive, not compressed (unpacking costs more
//! than reading on an emulated processor), the same bytes for the same entries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use cpio::newc::{self, Builder, ModeFileType};

/// Folders that the agent mounts on, or that programs expect.
const FOLDERS: [&str; 6] = ["/dev", "/mnt", "/proc", "/run", "/sys", "/tmp"];

/// Device nodes that must be there before devtmpfs is: the kernel opens the console for PID 1.
const NODES: [(&str, u32, (u32, u32)); 2] = [("/dev/console", 0o600, (5, 1)), ("/dev/null", 0o666, (1, 3))];

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its path in the image, from `/` on.
    pub(super) path: String,
    /// Its contents.
    pub(super) bytes: Vec<u8>,
}

impl Entry {
    /// A program or a library.
    pub(super) fn program(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), bytes }
    }
}

/// What stands under one path.
enum Node<'a> {
    Folder,
    Device(u32, (u32, u32)),
    File(&'a [u8]),
}

/// The archive of these files, of the folders above them and of the fixed folders and nodes. Of
/// two entries with one path the later one counts.
pub(super) fn write(files: &[Entry]) -> io::Result<Vec<u8>> {
    let mut nodes: BTreeMap<&str, Node<'_>> = BTreeMap::new();
    let paths: BTreeSet<&str> =
        files.iter().map(|entry| entry.path.as_str()).chain(NODES.map(|(path, ..)| path)).collect();
    for path in paths {
        let above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str).filter(|path| *path != "/");
        nodes.extend(above.map(|folder| (folder, Node::Folder)));
    }
    nodes.extend(FOLDERS.map(|folder| (folder, Node::Folder)));
    nodes.extend(NODES.map(|(path, mode, device)| (path, Node::Device(mode, device))));
    nodes.extend(files.iter().map(|entry| (entry.path.as_str(), Node::File(&entry.bytes))));

    let mut archive = Vec::new();
    // A folder sorts before what is in it, which is the order the kernel needs.
    for (number, (path, node)) in (1u32..).zip(nodes) {
        let builder = Builder::new(path.trim_start_matches('/')).ino(number).uid(0).gid(0).mtime(0);
        let (builder, bytes): (Builder, &[u8]) = match node {
            Node::Folder => (builder.nlink(2).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[]),
            Node::Device(mode, (major, minor)) => {
                let builder = builder.nlink(1).mode(mode).set_mode_file_type(ModeFileType::Char);
                (builder.rdev_major(major).rdev_minor(minor), &[])
            }
            Node::File(bytes) => {
                (builder.nlink(1).mode(0o755).set_mode_file_type(ModeFileType::Regular), bytes)
            }
        };
        let len =
            u32::try_from(bytes.len()).map_err(|_| io::Error::other(format!("{path} is 4 GiB or more")))?;
        let mut writer = builder.write(&mut archive, len);
        io::Write::write_all(&mut writer, bytes)?;
        writer.finish()?;
    }
    newc::trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mut archive: &[u8]) -> Vec<(String, u32, u32)> {
        let mut found = Vec::new();
        loop {
            let reader = newc::Reader::new(archive).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                return found;
            }
            found.push((entry.name().to_owned(), entry.mode(), entry.rdev_major()));
            archive = reader.finish().unwrap();
        }
    }

    #[test]
    fn an_archive_has_folders_before_files_and_the_console() {
        let archive =
            write(&[Entry::program("/lib/x/libc.so", vec![1, 2]), Entry::program("/init", vec![3])]).unwrap();
        let names = names(&archive);
        let at = |name: &str| names.iter().position(|(found, ..)| found == name).unwrap();
        assert!(at("lib") < at("lib/x") && at("lib/x") < at("lib/x/libc.so"));
        assert_eq!(names[at("dev/console")], ("dev/console".to_owned(), 0o020_600, 5));
        assert_eq!(names[at("dev/null")].1, 0o020_666);
        assert_eq!(names[at("init")].1, 0o100_755);
        assert_eq!(names[at("proc")].1, 0o040_755);
    }

    #[test]
    fn the_same_entries_give_the_same_bytes_in_any_order() {
        let (a, b) = (Entry::program("/a", vec![1]), Entry::program("/b", vec![2]));
        assert_eq!(write(&[a.clone(), b.clone()]).unwrap(), write(&[b, a]).unwrap());
    }
}
