// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source tree as a value: which files it has, with mode and content hash.
//!
//! Everything that is compared or keyed (a Debian source, a commit, somebody's dirty tree, what a
//! work slot holds) is one of these lists, so that there is one way to tell what differs.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

pub(super) use crate::image::hex;
use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

/// What a path is; the only parts of a mode that git and a kernel build know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Plain,
    Executable,
    Link,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Plain => b'f',
            Self::Executable => b'x',
            Self::Link => b'l',
        }
    }

    fn from_letter(letter: u8) -> Option<Self> {
        [Self::Plain, Self::Executable, Self::Link].into_iter().find(|kind| letter == kind.letter())
    }

    pub(super) fn of(meta: &fs::Metadata) -> Self {
        if meta.is_symlink() {
            Self::Link
        } else if meta.permissions().mode() & 0o100 != 0 {
            Self::Executable
        } else {
            Self::Plain
        }
    }
}

/// One file: what it is and the SHA-256 of its content (of a link: of its target).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) hash: [u8; 32],
}

/// All files of a tree, by path below it.
pub(super) type Files = BTreeMap<String, Entry>;

/// SHA-256 of a file, in hexadecimal digits.
pub(super) fn sum(path: &Path) -> Result<String> {
    let sum = || -> std::io::Result<String> {
        let mut digest = Sha256::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&digest.finalize())),
                len => digest.update(&buffer[..len]),
            }
        }
    };
    sum().with_context(|| format!("{} cannot be read", path.display()))
}

/// What of one file is read from a tree: its content, or a link's target.
pub(super) fn read_entry(path: &Path) -> Result<(Entry, Vec<u8>)> {
    let look = || -> std::io::Result<(Kind, Vec<u8>)> {
        let kind = Kind::of(&fs::symlink_metadata(path)?);
        let content = match kind {
            Kind::Link => fs::read_link(path)?.as_os_str().as_bytes().to_vec(),
            Kind::Plain | Kind::Executable => fs::read(path)?,
        };
        Ok((kind, content))
    };
    let (kind, content) = look().with_context(|| format!("{} cannot be read", path.display()))?;
    Ok((Entry { kind, hash: Sha256::digest(&content).into() }, content))
}

/// Like [`read_entry`], for a path that may not be there.
pub(super) fn entry_at(path: &Path) -> Result<Option<Entry>> {
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        Ok(meta) if meta.is_dir() => Ok(None),
        Ok(_) => Ok(Some(read_entry(path)?.0)),
    }
}

/// Reads the named files of a tree, on all cores.
pub(super) fn hash_all(root: &Path, paths: &[String]) -> Result<Vec<Entry>> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let chunk = paths.len().div_ceil(workers).max(1);
    thread::scope(|scope| {
        let hash = |part: &[String]| -> Result<Vec<Entry>> {
            part.iter().map(|path| Ok(read_entry(&root.join(path))?.0)).collect()
        };
        let workers: Vec<_> = paths.chunks(chunk).map(|part| scope.spawn(move || hash(part))).collect();
        let mut entries = Vec::with_capacity(paths.len());
        for worker in workers {
            match worker.join() {
                Ok(part) => entries.extend(part?),
                Err(_) => bail!("reading {} ended in a panic", root.display()),
            }
        }
        Ok(entries)
    })
}

/// Lists and hashes everything below a folder.
pub(super) fn scan(root: &Path) -> Result<Files> {
    let paths = walk(root)?;
    let entries = hash_all(root, &paths)?;
    Ok(paths.into_iter().zip(entries).collect())
}

/// The age of a file that must be no newer than any object: 2000-01-01.
const OLD: Duration = Duration::from_secs(946_684_800);

/// Makes a file older than any object.
pub(super) fn set_old(path: &Path) -> std::io::Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + OLD);
    File::open(path)?.set_times(times)
}

/// Makes all files of a fresh source older than any object. An archive's own times will not do: the
/// same content can come with a time later than the build of the objects it is cloned with.
pub(super) fn age(root: &Path) -> Result<()> {
    for path in walk(root)? {
        let path = root.join(path);
        if !path.is_symlink() {
            set_old(&path).with_context(|| format!("{} cannot be given a time", path.display()))?;
        }
    }
    Ok(())
}

/// Every file and link below a folder, as paths relative to it.
pub(super) fn walk(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        for entry in fs::read_dir(&full).with_context(|| format!("{} cannot be read", full.display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                paths.push(utf8(path.as_os_str().as_bytes())?);
            }
        }
    }
    Ok(paths)
}

/// A file name as text; kernels have no others, and lists stay readable.
pub(super) fn utf8(bytes: &[u8]) -> Result<String> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => bail!("the file name `{}` is not UTF-8", String::from_utf8_lossy(bytes)),
    }
}

/// One hash over a whole tree.
pub(super) fn identity(files: &Files) -> String {
    hex(&Sha256::digest(encode(files)))
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// For each file its kind, the 32 bytes of its hash, its path and a NUL: any file name fits, and a
/// kernel's list is read back in milliseconds.
pub(super) fn encode(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(files.len() * 80);
    for (path, entry) in files {
        bytes.push(entry.kind.letter());
        bytes.extend_from_slice(&entry.hash);
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// The inverse of [`encode`]; none when the bytes are anything else.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Files> {
    let mut files = Files::new();
    while let Some((letter, rest)) = bytes.split_first() {
        let kind = Kind::from_letter(*letter)?;
        let (hash, rest) = rest.split_first_chunk()?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        files.insert(str::from_utf8(&rest[..end]).ok()?.to_owned(), Entry { kind, hash: *hash });
        bytes = &rest[end + 1..];
    }
    Some(files)
}

/// Paths that are not the same in both: other content, other kind, or in only one of them.
pub(super) fn differing<'a>(a: &'a Files, b: &'a Files) -> Vec<&'a str> {
    let gone_or_other =
        a.iter().filter(|(path, entry)| b.get(*path) != Some(entry)).map(|(path, _)| path.as_str());
    let new = b.keys().filter(|path| !a.contains_key(*path)).map(String::as_str);
    gone_or_other.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(byte: u8, kind: Kind) -> Entry {
        Entry { kind, hash: [byte; 32] }
    }

    #[test]
    fn lists_survive_being_stored() {
        let files: Files = [
            ("a b\nc".to_owned(), entry(1, Kind::Plain)),
            ("scripts/run".to_owned(), entry(0xfe, Kind::Executable)),
            ("link".to_owned(), entry(3, Kind::Link)),
        ]
        .into();
        assert_eq!(decode(&encode(&files)).unwrap(), files);
        assert!(decode(b"garbage").is_none());
    }

    #[test]
    fn mode_content_and_presence_make_a_difference() {
        let a: Files = [
            ("same".to_owned(), entry(1, Kind::Plain)),
            ("mode".to_owned(), entry(1, Kind::Plain)),
            ("content".to_owned(), entry(1, Kind::Plain)),
            ("gone".to_owned(), entry(1, Kind::Plain)),
        ]
        .into();
        let b: Files = [
            ("same".to_owned(), entry(1, Kind::Plain)),
            ("mode".to_owned(), entry(1, Kind::Executable)),
            ("content".to_owned(), entry(2, Kind::Plain)),
            ("new".to_owned(), entry(1, Kind::Plain)),
        ]
        .into();
        let mut paths = differing(&a, &b);
        paths.sort_unstable();
        assert_eq!(paths, ["content", "gone", "mode", "new"]);
        assert_ne!(identity(&a), identity(&b));
    }
}
