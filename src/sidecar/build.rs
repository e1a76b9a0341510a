//! Turns every proto of the project into Rust and into one descriptor set, without a protoc on the machine.
//!
//! Writes into `OUT_DIR` only: `forebay.v1.rs` and `forebay.bin` (for reflection). A new file below `proto/` is picked up by being there.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    // A changed directory is one with a file more or less; cargo looks into it for changed files by itself.
    println!("cargo::rerun-if-changed={}", root.display());

    let mut protos = Vec::new();
    collect(&root, &mut protos)?;
    // The directory's order is the file system's; the output should not depend on it.
    protos.sort();

    let descriptors = protox::compile(&protos, [&root])?;
    let set = Path::new(&env::var("OUT_DIR")?).join("forebay.bin");
    write(&set, &descriptors.encode_to_vec())?;
    // A post's body is sent from where it was read, without a copy.
    tonic_prost_build::configure().bytes(".forebay.v1.StoredPost.body").compile_fds(descriptors)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a build script reads sources, not data")]
fn collect(dir: &Path, protos: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, protos)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            protos.push(path);
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a build script writes sources, not data")]
fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    Ok(fs::write(path, bytes)?)
}
