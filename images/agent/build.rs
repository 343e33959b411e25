// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the C shims (verbs.h, guarded access to memory) and links libibverbs with its rxe provider, all of it static.

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
    let Some(provider) = rxe_provider(dir) else { missing("librxe-rdmav*.a") };

    cc::Build::new()
        .file("src/verbs.c")
        .file("src/memory.c")
        .define("RDMA_STATIC_PROVIDERS", "rxe")
        .extra_warnings(true)
        .compile("holdfast_shims");
    println!("cargo::rerun-if-changed={}", dir.join("libibverbs.a").display());
    println!("cargo::rustc-link-search=native={}", dir.display());
    // libibverbs names the provider and the provider names libibverbs: one group, so that the
    // order of the archives does not matter.
    for argument in [
        "--start-group",
        "-l:libibverbs.a",
        &format!("-l:{provider}"),
        "-l:libnl-route-3.a",
        "-l:libnl-3.a",
        "--end-group",
    ] {
        println!("cargo::rustc-link-arg=-Wl,{argument}");
    }
}

/// The provider's archive carries the ABI version of libibverbs in its name, which differs between
/// releases of rdma-core.
fn rxe_provider(dir: &Path) -> Option<String> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("librxe-rdmav") && name.ends_with(".a")
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
