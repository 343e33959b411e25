// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a module says of itself: its section `.modinfo`, words `key=value` with a zero byte behind each.
//!
//! So nothing hangs on an index that depmod has made: a package of a kernel has none, it is made when the
//! package is installed.

use std::str;

/// What loading a module takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    /// The release it was built for.
    pub(super) release: String,
    /// Modules whose symbols it uses.
    pub(super) depends: Vec<String>,
    /// Modules that it likes to have before it.
    pub(super) pre: Vec<String>,
    /// And behind it.
    pub(super) post: Vec<String>,
}

/// A name as the kernel has it: files and aliases may be written otherwise.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads a module's own words; nothing when it is no module.
pub(super) fn read(module: &[u8]) -> Option<Info> {
    let mut info = Info::default();
    let names = |list: &str| -> Vec<String> {
        list.split([',', ' ']).filter(|name| !name.is_empty()).map(canonical).collect()
    };
    for word in section(module, ".modinfo")?.split(|byte| *byte == 0) {
        match str::from_utf8(word).ok().and_then(|word| word.split_once('=')) {
            Some(("vermagic", magic)) => info.release = magic.split(' ').next().unwrap_or_default().to_owned(),
            Some(("depends", list)) => info.depends.extend(names(list)),
            Some(("softdep", text)) => {
                let (before, post) = text.split_once("post:").unwrap_or((text, ""));
                info.pre.extend(names(before.trim_start().trim_start_matches("pre:")));
                info.post.extend(names(post));
            }
            _ => {}
        }
    }
    Some(info).filter(|info| !info.release.is_empty())
}

/// A section of a 64-bit little-endian ELF file by its name (elf(5)).
fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    const HEADER_BYTES: usize = 64;
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(len)?)?;
        let digits = bytes.iter().rev();
        digits.copied().try_fold(0usize, |number, digit| number.checked_mul(256)?.checked_add(digit.into()))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, count, names) = (number(0x28, 8)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let header = |nr: usize| table.checked_add(nr.checked_mul(HEADER_BYTES)?);
    let content = |nr: usize| {
        let (at, len) =
            (number(header(nr)?.checked_add(0x18)?, 8)?, number(header(nr)?.checked_add(0x20)?, 8)?);
        elf.get(at..at.checked_add(len)?)
    };
    let texts = content(names)?;
    let is_it = |nr: &usize| {
        let text = || texts.get(number(header(*nr)?, 4)?..)?.split(|byte| *byte == 0).next();
        text() == Some(name.as_bytes())
    };
    content((0..count).find(is_it)?)
}

/// An ELF file with nothing but this section.
#[cfg(test)]
pub(super) fn module_of(words: &[&str]) -> Vec<u8> {
    let info: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    let texts = b"\0.modinfo\0.shstrtab\0";
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[0x28] = 64;
    elf[0x3c] = 2;
    elf[0x3e] = 1;
    for (name, at, len) in [(1u8, 192, info.len()), (10, 192 + info.len(), texts.len())] {
        let mut header = [0u8; 64];
        header[0] = name;
        header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
        header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
        elf.extend(header);
    }
    elf.extend(info);
    elf.extend(texts);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_takes() {
        let words = [
            "license=GPL",
            "softdep=pre: crc32c-generic  aes post: late",
            "softdep=pre: more",
            "depends=libnvdimm,nd-btt",
            "vermagic=6.1.0-51-amd64 SMP preempt mod_unload modversions ",
        ];
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let want = Info {
            release: "6.1.0-51-amd64".to_owned(),
            depends: strings(&["libnvdimm", "nd_btt"]),
            pre: strings(&["crc32c_generic", "aes", "more"]),
            post: strings(&["late"]),
        };
        let module = module_of(&words);
        assert_eq!(read(&module), Some(want));
        assert_eq!(read(&module_of(&["depends="])), None, "without a release it is no module");
        for len in 0..module.len() {
            assert_eq!(read(&module[..len]), None, "cut off at {len}");
        }
        let mut far = module;
        far[0x28..0x30].fill(0xff);
        assert_eq!(read(&far), None);
    }
}
