// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the C shims (verbs.h, guarded access to memory) and links libibverbs with its providers rxe and siw, all
//! of it static.

use std::path::{Path, PathBuf};
use std::process::exit;

/// Where Debian keeps the static archives.
const LIBRARY_DIRS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];

fn main() {
    println!("cargo::rerun-if-changed=src/verbs.c");
    println!("cargo::rerun-if-changed=src/memory.c");
    let Some(dir) = LIBRARY_DIRS.iter().map(Path::new).find(|dir| dir.join("libibverbs.a").is_file()) else {
        missing("libibverbs.a");
    };
    for name in ["libnl-3.a", "libnl-route-3.a"] {
        if !dir.join(name).is_file() {
            missing(name);
        }
    }
    if !Path::new("/usr/include/infiniband/verbs.h").is_file() {
        missing("infiniband/verbs.h");
    }
    let providers = ["rxe", "siw"]
        .map(|name| provider(dir, name).unwrap_or_else(|| missing(&format!("lib{name}-rdmav*.a"))));

    cc::Build::new()
        .file("src/verbs.c")
        .file("src/memory.c")
        .define("RDMA_STATIC_PROVIDERS", "rxe,siw")
        .extra_warnings(true)
        .compile("holdfast_shims");
    println!("cargo::rerun-if-changed={}", dir.join("libibverbs.a").display());
    println!("cargo::rustc-link-search=native={}", dir.display());
    // libibverbs names the providers and they name libibverbs: one group, so that the
    // order of the archives does not matter.
    for argument in [
        "--start-group",
        "-l:libibverbs.a",
        &format!("-l:{}", providers[0]),
        &format!("-l:{}", providers[1]),
        "-l:libnl-route-3.a",
        "-l:libnl-3.a",
        "--end-group",
    ] {
        println!("cargo::rustc-link-arg=-Wl,{argument}");
    }
}

/// A provider's archive carries the ABI version of libibverbs in its name, which differs between
/// releases of rdma-core.
fn provider(dir: &Path, name: &str) -> Option<String> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            file.starts_with(&format!("lib{name}-rdmav")) && file.ends_with(".a")
        })
        .collect();
    found.sort();
    Some(found.pop()?.file_name()?.to_str()?.to_owned())
}

fn missing(what: &str) -> ! {
    println!(
        "cargo::error=the agent links libibverbs statically and {what} is not here: \
         install the Debian packages libibverbs-dev, libnl-3-dev and libnl-route-3-dev"
    );
    exit(1)
}
