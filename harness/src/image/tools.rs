// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs of the host and the libraries they load.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use holdfast_protocol::{PROGRAM_LIBRARIES, PROGRAMS};

use super::Extra;
use super::archive::Entry;
use super::spec::Spec;
use crate::outcome::bad_input;

/// Where administrators' programs are, which a user's path often lacks.
const MORE_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// What an ELF file begins with.
const ELF: &[u8] = b"\x7fELF";

/// What this host lacks, the package that brings it, and what it is for.
type Missing<'a> = (&'a str, &'a str, &'a str);

/// All tools of a description that this host has, and their libraries.
pub(super) fn collect(spec: &Spec) -> Result<Vec<Entry>> {
    let mut missing: Vec<Missing<'_>> = Vec::new();
    let mut libraries = BTreeSet::new();
    let mut entries = BTreeMap::new();
    for tool in &spec.tools {
        let Some(path) = find(&tool.tool) else {
            if !tool.optional {
                missing.push((&tool.tool, &tool.package, &tool.reason));
            }
            continue;
        };
        libraries.extend(libraries_of(&path)?);
        entries.insert(tool.to.clone(), read(&path)?);
    }
    for file in &spec.files {
        let path = Path::new(&file.file);
        if !path.is_file() {
            missing.push((&file.file, &file.package, &file.reason));
            continue;
        }
        let bytes = read(path)?;
        if bytes.starts_with(ELF) {
            libraries.extend(libraries_of(path)?);
        }
        entries.insert(file.file.clone(), bytes);
    }
    if !missing.is_empty() {
        return Err(bad_input(explain(&missing)));
    }
    for library in libraries {
        let bytes = read(&library)?;
        let library = library.to_str().with_context(|| format!("{} is not UTF-8", library.display()))?;
        entries.insert(library.to_owned(), bytes);
    }
    Ok(entries.into_iter().map(|(path, bytes)| Entry::program(path, bytes)).collect())
}

/// Programs that are not in a description, each under its name in the folder of programs, and their libraries.
pub(super) fn programs(extras: &[Extra]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut libraries = BTreeSet::new();
    for extra in extras {
        let whose = || format!("the program {} ({})", extra.name, extra.path.display());
        let bytes = fs::read(&extra.path).map_err(|error| bad_input(format!("{}: {error}", whose())))?;
        // A script loads nothing; its interpreter must be in the image.
        if bytes.starts_with(ELF) {
            let loads = libraries_of(&extra.path);
            libraries.extend(loads.map_err(|error| bad_input(format!("{}: {error:#}", whose())))?);
        }
        entries.push(Entry::program(format!("{PROGRAMS}/{}", extra.name), bytes));
    }
    for library in libraries {
        let path = library.to_str().with_context(|| format!("{} is not UTF-8", library.display()))?;
        let name = path.rsplit('/').next().unwrap_or(path);
        // The loader is where the program says; the rest may be anywhere on this host, and is looked for there.
        let to = if name.starts_with("ld-") { path.to_owned() } else { format!("{PROGRAM_LIBRARIES}/{name}") };
        entries.push(Entry::program(to, read(&library)?));
    }
    Ok(entries)
}

/// What is missing, and the one command that installs it.
fn explain(missing: &[Missing<'_>]) -> String {
    let packages: BTreeSet<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let lines: Vec<String> = missing
        .iter()
        .map(|(what, package, reason)| format!("{what} is missing (Debian package {package}): {reason}"))
        .collect();
    format!("{}\n  apt-get install {}", lines.join("\n"), packages.join(" "))
}

/// A program of this host, also where a user's path does not lead.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from)).collect();
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot run ldd {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if text.contains("statically linked") || complaint.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {}: {}: {}", program.display(), output.status, complaint.trim());
    }
    parse_ldd(&text).with_context(|| format!("ldd {}", program.display()))
}

/// The files that `ldd` lists. `linux-vdso` has none; a library that is not found is an error.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let file = line.split_once("=> ").map_or(line, |(_, file)| file);
        if file.starts_with("not found") {
            bail!("{line}");
        }
        let file = file.rsplit_once(" (").map_or(file, |(file, _)| file);
        if file.starts_with('/') {
            libraries.push(PathBuf::from(file));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::spec::Tool;

    #[test]
    fn the_listing_of_ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibuuid.so.1 => /lib/x86_64-linux-gnu/libuuid.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f23)\n";
        let want = ["/lib/x86_64-linux-gnu/libuuid.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_ldd(text).unwrap(), want.map(PathBuf::from));
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = parse_ldd("\tlibinih.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libinih.so.1"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let tool = |name: &str, optional| Tool {
            tool: name.to_owned(),
            to: "/sbin/x".to_owned(),
            package: "some-package".to_owned(),
            reason: "the test".to_owned(),
            optional,
        };
        let error =
            collect(&Spec { tools: vec![tool("no-such-tool-here", false)], files: Vec::new() }).unwrap_err();
        assert!(error.is::<crate::outcome::BadInput>());
        let text = error.to_string();
        assert!(
            text.contains("no-such-tool-here is missing (Debian package some-package): the test"),
            "{text}"
        );
        assert!(text.contains("apt-get install some-package"), "{text}");
        assert_eq!(
            collect(&Spec { tools: vec![tool("no-such-tool-here", true)], files: Vec::new() }).unwrap(),
            []
        );
    }

    #[test]
    fn a_program_comes_with_its_loader() {
        let tool = Tool {
            tool: "sh".to_owned(),
            to: "/bin/sh".to_owned(),
            package: "dash".to_owned(),
            reason: "the test".to_owned(),
            optional: false,
        };
        let entries = collect(&Spec { tools: vec![tool], files: Vec::new() }).unwrap();
        assert!(entries.iter().any(|entry| entry.path == "/bin/sh" && entry.bytes.starts_with(b"\x7fELF")));
        assert!(entries.iter().any(|entry| entry.path.contains("/ld-linux")));
    }
}
