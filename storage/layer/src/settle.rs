//! Attributes of directories a layer implies, taken from the layers below.

use std::io;
use std::path::{Path, PathBuf};

use storage_sys::tree::{EntryPath, Lower, copy_directory_attributes, hides_below};

use crate::{EntryName, LayerError};

/// Gives each implied directory of an unpacked layer the owner, mode, extended attributes and times of the same
/// directory in the highest of `lowers` that has it; one that none has keeps mode 0755 and owner 0:0.
///
/// A layer may hold `usr/bin/x` without `usr/`. In an overlay its `usr` would then hide the lower one's attributes;
/// containerd copies them in the same way. Call it after the lower layers are complete, with the highest first. What
/// the layer itself or one between hides (a whiteout, an opaque directory above) is not taken from further down.
///
/// # Errors
/// [`LayerError::Target`] if a root cannot be opened, [`LayerError::Write`] if attributes cannot be read or set.
pub fn settle(target: &Path, implied: &[EntryPath], lowers: &[PathBuf]) -> Result<(), LayerError> {
    for path in implied {
        if hides_below(target, path)
            .map_err(|source| LayerError::Target { path: target.to_owned(), source })?
        {
            continue;
        }
        for lower in lowers {
            match copy_directory_attributes(lower, target, path) {
                Ok(Lower::Copied | Lower::Hidden) => break,
                Ok(Lower::Absent) => {}
                Err(source) if source.kind() == io::ErrorKind::NotFound && !target.exists() => {
                    return Err(LayerError::Target { path: target.to_owned(), source });
                }
                Err(source) => {
                    let name = EntryName(path.as_bytes().to_vec());
                    let action = "copy the owner, mode, attributes or times of the lower directory";
                    return Err(LayerError::Write { name, action, source });
                }
            }
        }
    }
    Ok(())
}
