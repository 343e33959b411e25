// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workspace's linker on a machine without a C compiler. The machine is a folder of programs,
//! `cargo` in it a script that links twice at once, `apt-get` one that notes what it was asked for.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use holdfast::doctor::install_command;

const LINKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cargo/linker");

/// Written by a process of its own: had this one the file open for writing while another test forks, the
/// child would have it too, and running it would be ETXTBSY.
fn write_program(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn program(folder: &Path, name: &str, text: &str) {
    write_program(&folder.join(name), &format!("#!/bin/sh\n{text}"));
}

/// A machine whose user has this id.
fn machine(uid: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sh", "tr", "sed", "flock", "cat", "chmod"] {
        symlink(Path::new("/usr/bin").join(name), folder.path().join(name)).unwrap();
    }
    program(folder.path(), "id", &format!("echo {uid}\n"));
    program(
        folder.path(),
        "cargo",
        &format!("'{LINKER}' -o one & '{LINKER}' -o two; code=$?; wait; exit $code\n"),
    );
    folder
}

fn cargo(machine: &Path, arguments: &[&str]) -> Output {
    Command::new(machine.join("cargo")).args(arguments).env("PATH", machine).output().unwrap()
}

fn check_refused(uid: u32, arguments: &[&str]) {
    let machine = machine(uid);
    let output = cargo(machine.path(), arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let command = install_command(&["gcc", "libc6-dev"]);
    assert!(text.contains("no C compiler") && text.contains(&command), "{text}");
}

#[test]
fn without_install_or_root_it_says_what_to_type() {
    check_refused(0, &["xtask", "run"]);
    check_refused(1000, &["xtask", "run", "--install"]);
    check_refused(0, &["xtask", "run", "--installed"]);
    // There is no apt-get on this machine.
    check_refused(0, &["xtask", "run", "--install"]);
}

#[test]
fn with_install_root_gets_one_once_and_links() {
    let machine = machine(0);
    let (asked, compiler) = (machine.path().join("asked"), machine.path().join("cc"));
    let installs = format!(
        "echo \"$*\" >>'{0}'\n[ \"$1\" = update ] && exit\necho '#!/bin/sh\necho linked \"$@\"' >'{1}'\nchmod +x '{1}'\n",
        asked.display(),
        compiler.display()
    );
    program(machine.path(), "apt-get", &installs);
    let output = cargo(machine.path(), &["xtask", "test", "--install", "--quiet"]);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("linked -o one") && text.contains("linked -o two"), "{text}");
    assert!(text.contains("installing gcc, libc6-dev"), "{text}");
    let asked = fs::read_to_string(asked).unwrap();
    assert_eq!(asked, "update\ninstall -y --no-install-recommends gcc libc6-dev\n");
}
