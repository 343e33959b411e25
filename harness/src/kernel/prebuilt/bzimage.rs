// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel image says of itself, by the header that boot loaders read
//! (Documentation/arch/x86/boot.rst).

use anyhow::{Result, bail};

/// `boot_flag` and what it is.
const FLAG_AT: usize = 0x1fe;
const FLAG: [u8; 2] = [0x55, 0xaa];
/// `header`.
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
/// `kernel_version`: where the text is, less [`VERSION_BASE`].
const VERSION_AT: usize = 0x20e;
const VERSION_BASE: usize = 0x200;

/// The release, as `uname -r` says it.
///
/// # Errors
/// When it is no image that a boot loader takes; says what it is instead.
pub(super) fn release(image: &[u8]) -> Result<String> {
    if image.starts_with(b"\x7fELF") {
        bail!("it is an ELF file, as vmlinux is; arch/x86/boot/bzImage or /boot/vmlinuz-RELEASE boots");
    }
    let has = |at: usize, want: &[u8]| image.get(at..at + want.len()) == Some(want);
    if !(has(FLAG_AT, &FLAG) && has(MAGIC_AT, MAGIC)) {
        bail!("it is no x86 kernel image");
    }
    let text = || {
        let at = image.get(VERSION_AT..VERSION_AT + 2)?;
        let at = usize::from(u16::from_le_bytes(at.try_into().ok()?)) + VERSION_BASE;
        let text = image.get(at..)?.split(|byte| *byte == 0).next()?;
        Some(std::str::from_utf8(text).ok()?.split_whitespace().next()?.to_owned())
    };
    match text() {
        Some(release) => Ok(release),
        None => bail!("it is a kernel image that does not say its release"),
    }
}

#[cfg(test)]
pub(super) fn image_of(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[FLAG_AT..FLAG_AT + 2].copy_from_slice(&FLAG);
    image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
    image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x200u16.to_le_bytes());
    image.extend(format!("{release} (a@b) #1 SMP Debian\0").bytes());
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_its_release_and_other_files_do_not() {
        assert_eq!(release(&image_of("6.1.0-51-amd64")).unwrap(), "6.1.0-51-amd64");
        let check = |image: &[u8], word: &str| {
            let error = release(image).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        check(b"\x7fELF\x02\x01", "bzImage");
        check(b"", "no x86 kernel image");
        check(&[0; 0x400], "no x86 kernel image");
        // Cut off before its text.
        check(&image_of("6.1")[..0x400], "does not say its release");
    }
}
