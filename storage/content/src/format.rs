//! The `VERSION` file: which program may open a store.
//!
//! After ext4: a format number, and three sets of feature names. A program that does not know a feature may open the
//! store anyway (`compat`), only read it (`ro-compat`), or not open it at all (`incompat`). Unknown `compat` names stay.
//!
//! ```text
//! windlass-store 1
//! compat
//! ro-compat
//! incompat
//! ```

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use storage_sys::durable::sync_directory;

use crate::StoreError;
use crate::error::{FormatProblem, IoContext as _};

/// Name of the file, inside the root.
pub(crate) const FILE: &str = "VERSION";
/// The format this program writes, and the only one it reads.
const NUMBER: u32 = 1;
/// Features this program knows. None yet: the first change of the layout adds one.
const KNOWN: [&str; 0] = [];

/// Checks the version of the store in `root`, writing it if `root` is new.
pub(crate) fn check_or_create(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => check(&text).map_err(|problem| StoreError::Format { path, problem }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(root, &path),
        Err(error) => Err(StoreError::io("read", &path, error)),
    }
}

fn check(text: &str) -> Result<(), FormatProblem> {
    let mut lines = text.lines();
    let number = lines.next().and_then(|line| line.strip_prefix("windlass-store "));
    let number: u32 = number.and_then(|number| number.parse().ok()).ok_or(FormatProblem::Syntax)?;
    if number != NUMBER {
        return Err(FormatProblem::Number(number));
    }
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let set = words.next();
        let unknown = words.find(|name| !KNOWN.contains(name)).map(str::to_owned);
        match (set, unknown) {
            (Some("compat"), _) | (None, _) | (Some("ro-compat" | "incompat"), None) => {}
            (Some("ro-compat"), Some(name)) => return Err(FormatProblem::ReadOnlyCompatible(name)),
            (Some("incompat"), Some(name)) => return Err(FormatProblem::Incompatible(name)),
            (Some(_), _) => return Err(FormatProblem::Syntax),
        }
    }
    Ok(())
}

fn create(root: &Path, path: &Path) -> Result<(), StoreError> {
    let draft = root.join("VERSION.new");
    let mut file = File::create(&draft).doing("create", &draft)?;
    write!(file, "windlass-store {NUMBER}\ncompat\nro-compat\nincompat\n").doing("write", &draft)?;
    file.sync_all().doing("sync", &draft)?;
    std::fs::rename(&draft, path).doing("create", path)?;
    sync_directory(root).doing("sync", root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_must_be_understood_are_refused_by_name_and_others_pass() {
        check("windlass-store 1\ncompat\nro-compat\nincompat\n").unwrap();
        check("windlass-store 1\ncompat later-hint\n").unwrap();
        let refused = |text: &str| check(text).unwrap_err();
        assert_eq!(refused("windlass-store 2\n"), FormatProblem::Number(2));
        assert_eq!(
            refused("windlass-store 1\nincompat packs\n"),
            FormatProblem::Incompatible("packs".into())
        );
        assert_eq!(
            refused("windlass-store 1\nro-compat quota\n"),
            FormatProblem::ReadOnlyCompatible("quota".into())
        );
        for text in ["", "windlass-store x\n", "other 1\n", "windlass-store 1\nsomething else\n"] {
            assert_eq!(refused(text), FormatProblem::Syntax, "{text:?}");
        }
    }

    #[test]
    fn a_new_root_gets_a_version_that_is_accepted_later() {
        let root = tempfile::tempdir().unwrap();
        check_or_create(root.path()).unwrap();
        check_or_create(root.path()).unwrap();
        std::fs::write(root.path().join(FILE), "windlass-store 7\n").unwrap();
        let error = check_or_create(root.path()).unwrap_err();
        assert!(error.to_string().contains("format 7"), "{error}");
    }
}
