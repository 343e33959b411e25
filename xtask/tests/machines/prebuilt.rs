// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that were not built here: Debian's newest, as a package and as files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{holdfast, latest, outcome, results, run};

const PACKAGE: &str = "linux-image-amd64";

/// The folder of the package's kernel; fetches it where a network may be used. Nothing without one: that is
/// said, and only then.
fn kernel() -> Option<PathBuf> {
    let offline = std::env::var_os("CARGO_NET_OFFLINE").is_some_and(|value| value == "true");
    let mut command = holdfast(&["kernel", "build", "--quiet", "--package", PACKAGE]);
    command.args(offline.then_some("--offline"));
    let (code, text) = outcome(&command.output().unwrap());
    if offline && code == 125 && text.contains("not in the cache") {
        eprintln!("NOT TESTED, for --offline keeps the package from being fetched: {text}");
        return None;
    }
    assert_eq!(code, 0, "apt could not give {PACKAGE}: {text}");
    let (code, text) = outcome(&holdfast(&["kernel", "path", "--package", PACKAGE]).output().unwrap());
    assert_eq!(code, 0, "{text}");
    Some(PathBuf::from(text.trim()))
}

fn kinds(folder: &Path) -> Vec<(String, String)> {
    let rows = results(folder)["cases"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["id"]), text(&row["verdict"]["kind"]))).collect()
}

#[test]
#[ignore = "boots machines"]
fn a_kernel_of_debian_is_played_as_it_is() {
    let Some(_) = kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = ["pin/rdma-on-fsdax", "truncate/held-by-vmsplice[fs=ext4]", "truncate/pinned-by-gup-test"];
    let (code, text) = run(folder.path(), &[&cases[..], &["--package", PACKAGE]].concat());
    assert_eq!(code, 0, "{text}");
    for (id, kind) in kinds(folder.path()) {
        // Debian builds without gup_test; what was ruled out by plan has no hollow pass.
        // Debian builds neither.
        let lacks = ["gup-test", "provider=siw"].iter().any(|part| id.contains(part));
        let want = if lacks { "not-applicable" } else { "pass" };
        assert_eq!(kind, want, "{id}: {text}");
    }
    let kernel = &results(folder.path())["kernels"][0];
    assert!(kernel["source"].as_str().unwrap().starts_with("linux-image-"), "{kernel}");
}

#[test]
#[ignore = "boots machines"]
fn a_module_that_does_not_load_is_named_and_no_row_is_green() {
    let Some(kernel) = kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let modules = folder.path().join("modules/kernel");
    fs::create_dir_all(&modules).unwrap();
    for entry in fs::read_dir(kernel.join("modules")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, modules.join(path.file_name().unwrap())).unwrap();
    }
    // Its words behind the release; the kernel compares them (kernel/module/version.c same_magic()).
    let path = modules.join("rdma_rxe.ko");
    let mut bytes = fs::read(&path).unwrap();
    let magic = bytes.windows(9).position(|window| window == b"vermagic=").unwrap();
    let word = bytes[magic..].windows(5).position(|window| window == b" SMP ").unwrap();
    bytes[magic + word + 1..magic + word + 4].copy_from_slice(b"SMX");
    fs::write(&path, bytes).unwrap();

    let [image, config] = ["bzImage", "config"].map(|name| kernel.join(name));
    let given = [
        "controls/anonymous",
        "--cold",
        "--vmlinuz",
        image.to_str().unwrap(),
        "--vmlinuz-config",
        config.to_str().unwrap(),
        "--modules",
        folder.path().join("modules").to_str().unwrap(),
    ]
    .map(str::to_owned);
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let (code, text) = run(folder.path(), &given);
    assert_eq!(code, 125, "{text}");
    // ENOEXEC, or EKEYREJECTED where the signature is looked at first.
    assert!(text.contains("did not load its module rdma_rxe: E"), "{text}");
    for (id, kind) in kinds(folder.path()) {
        // Debian builds without siw.
        let want = if id.contains("provider=siw") { "not-applicable" } else { "inconclusive" };
        assert_eq!(kind, want, "{id}: {text}");
    }
    // Told by a guest that was up, not by a deadline.
    let record = latest(folder.path()).join("cases/bzImage/controls.anonymous/record.json");
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(record["hello"]["unloaded"][0]["name"], "rdma_rxe", "{record}");
}
