//! Before the start: the root is mounted, the spec is built, the program is looked for.
//!
//! It happens between the moment the socket listens and the first request, while daemon and client are still busy with
//! each other.
use std::fs;
use std::path::PathBuf;

use runtime_container::files::MountedRoot;
use runtime_container::program;
use runtime_container::spec::{self, Spec, SpecError};
use storage_sys::mount::{self, Mount};

use crate::config::{ShimConfig, rootfs_path};
use crate::protocol::{Failure, FailureKind};

/// A mounted root; taken down when dropped.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    mounts: usize,
}

impl Drop for Root {
    fn drop(&mut self) {
        for _ in 0..self.mounts {
            // The namespace ends with this process anyway.
            let _ = mount::detach(&self.path);
        }
    }
}

/// Everything that is needed to start.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Keeps the root mounted.
    pub(crate) _root: Root,
    /// The spec, without the terminal's size.
    pub(crate) spec: Spec,
    /// Why the program will not start, if that is known.
    pub(crate) program: Result<(), Failure>,
}

/// Mounts the root and builds the spec.
///
/// # Errors
/// A [`Failure`] to be told to whoever asks for the start.
pub(crate) fn prepare(config: &ShimConfig) -> Result<Prepared, Failure> {
    let internal = |error: &dyn std::error::Error| Failure::of(FailureKind::Internal, error);
    let path = rootfs_path(&config.bundle);
    fs::create_dir_all(&path).map_err(|error| internal(&error))?;
    let mounts: Vec<Mount> = config
        .mounts
        .iter()
        .map(|mount| Mount {
            kind: mount.kind.clone(),
            source: mount.source.clone(),
            options: mount.options.clone(),
        })
        .collect();
    mount::mount_all(&mounts, &path).map_err(|error| internal(&error))?;
    let root = Root { path, mounts: mounts.len() };

    let files = MountedRoot::open(&root.path).map_err(|error| internal(&error))?;
    let mut options = config.run_options.clone();
    options.terminal = config.terminal;
    let mut spec = spec::build(&config.image_config, &options, &files).map_err(|error| {
        let kind = match error {
            SpecError::Host { .. } => FailureKind::Internal,
            _ => FailureKind::InvalidArgument,
        };
        Failure::of(kind, &error)
    })?;
    spec::place(&mut spec, &config.namespace, &config.id, &root.path);
    // A mount of the user may bring the program: then only the runtime can tell.
    let program = if options.mounts.is_empty() { look_for_program(&spec, &files) } else { Ok(()) };
    Ok(Prepared { _root: root, spec, program })
}

fn look_for_program(spec: &Spec, files: &MountedRoot) -> Result<(), Failure> {
    let Some(process) = spec.process() else { return Ok(()) };
    let Some(word) = spec::program_word(spec) else { return Ok(()) };
    let path =
        process.env().iter().flatten().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("");
    let directory = process.cwd().to_string_lossy();
    program::check(files.rootfs(), word, &directory, path).map_err(|error| {
        let kind = match error.exit_code() {
            126 => FailureKind::ProgramNotExecutable,
            _ => FailureKind::ProgramNotFound,
        };
        Failure::of(kind, &error)
    })
}
