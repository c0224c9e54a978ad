//! Security options with what they name: a profile is read here, since the engine may not see the file.

use std::fs;
use std::path::Path;

use crate::args::SecurityArgs;
use crate::error::CliError;

/// The options as the engine takes them.
///
/// # Errors
/// [`CliError::File`] for a profile that cannot be read.
pub(super) fn options(args: &SecurityArgs) -> Result<Vec<String>, CliError> {
    let mut all: Vec<String> = Vec::new();
    if args.allow_new_privs {
        all.push("no-new-privileges=false".to_owned());
    }
    if let Some(name) = &args.apparmor_profile {
        all.push(format!("apparmor={name}"));
    }
    if let Some(path) = &args.seccomp_profile {
        all.push(profile(path)?);
    }
    for option in &args.security_opt {
        let value = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"));
        match value {
            Some(path) if !matches!(path, "unconfined" | "builtin" | "") => {
                all.push(profile(Path::new(path))?)
            }
            _ => all.push(option.clone()),
        }
    }
    Ok(all)
}

fn profile(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::File { what: "read", path: path.to_owned(), source };
    Ok(format!("seccomp={}", fs::read_to_string(path).map_err(failed)?))
}
