//! Puts the built dashboard (`tools/dashboard/dist`, made by `scripts/dashboard`) into the binary; a build
//! without it serves a page that says how to make it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = manifest.join("../dashboard/dist");
    println!("cargo::rerun-if-changed=build.rs");
    // A folder that is not there would mean "always again": its parent is watched instead.
    let watched =
        if dist.exists() { dist.clone() } else { manifest.join("../dashboard/package.json") };
    println!("cargo::rerun-if-changed={}", watched.display());
    let mut files = Vec::new();
    if dist.exists() {
        collect(&dist, &dist, &mut files)?;
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in &files {
        let _ = writeln!(code, "    ({name:?}, include_bytes!({path:?})),");
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("dashboard.rs");
    fs::write(out, code)
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
            continue;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.strip_prefix(root).map_err(io::Error::other)?;
        let whole = path.canonicalize()?;
        files.push((name.to_string_lossy().into_owned(), whole.to_string_lossy().into_owned()));
    }
    Ok(())
}
