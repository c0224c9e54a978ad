//! Compiles `proto/` into Rust, without `protoc`: `protox` reads the definitions, `tonic-prost-build` writes the code.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use tonic_prost_build::Config;

const PROTO_DIR: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    definitions(Path::new(PROTO_DIR), &mut files)?;
    files.sort();
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile(&files, [PROTO_DIR])?;
    let mut config = Config::new();
    // For what travels inside `Any`, where a message is told by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .bytes(".containerd.services.content.v1")
        .include_file("api.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// Every `.proto` file below `directory`.
fn definitions(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            definitions(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
