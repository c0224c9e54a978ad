//! The environment of the process: files first, then `-e` in its order, the last of a name wins in the engine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// `NAME=VALUE` for each variable; a name alone takes the value it has here, and nothing when it has none.
///
/// # Errors
/// [`CliError::File`], [`CliError::EnvironmentLine`] or [`CliError::Environment`].
pub(super) fn collect(
    files: &[PathBuf],
    given: &[String],
    terminal: Option<String>,
) -> Result<Vec<String>, CliError> {
    let here = |name: &str| std::env::var(name).ok();
    let mut all: Vec<String> = terminal.map(|kind| format!("TERM={kind}")).into_iter().collect();
    for path in files {
        let text = fs::read_to_string(path).map_err(|source| CliError::File {
            what: "read",
            path: path.clone(),
            source,
        })?;
        all.extend(parse(path, &text, &here)?);
    }
    for variable in given {
        all.extend(one(variable, &here).ok_or_else(|| CliError::Environment(variable.clone()))?);
    }
    Ok(all)
}

/// Labels of a file, one `NAME[=VALUE]` a line.
///
/// # Errors
/// [`CliError::File`], [`CliError::EnvironmentLine`].
pub(super) fn labels(path: &Path) -> Result<Vec<(String, String)>, CliError> {
    let failed = |source| CliError::File { what: "read", path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    // A name alone is a label without a value.
    let lines = parse(path, &text, &|_| Some(String::new()))?;
    Ok(lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect())
}

fn parse(path: &Path, text: &str, here: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Blanks before a name are nobody's intent; behind the value they may be.
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return Err(CliError::EnvironmentLine { path: path.into(), line: at + 1, text: line.to_owned() });
        }
        let variable = one(line, here);
        all.extend(variable.ok_or_else(|| CliError::EnvironmentLine {
            path: path.into(),
            line: at + 1,
            text: line.to_owned(),
        })?);
    }
    Ok(all)
}

/// One variable: `Some(None)` when it is taken from here and not set here, `None` when it has no name.
fn one(text: &str, here: &impl Fn(&str) -> Option<String>) -> Option<Option<String>> {
    match text.split_once('=') {
        Some(("", _)) => None,
        Some(_) => Some(Some(text.to_owned())),
        None if text.is_empty() => None,
        None => Some(here(text).map(|value| format!("{text}={value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn a_file_has_comments_empty_values_and_names_from_here() {
        let text = "# a comment\n\nA=1\nEMPTY=\n  B=two words \nHOME\nUNSET\nURL=http://x?a=b#c\n";
        assert_eq!(
            parse(Path::new("f"), text, &here).unwrap(),
            ["A=1", "EMPTY=", "B=two words ", "HOME=/root", "URL=http://x?a=b#c"]
        );
    }

    #[test]
    fn a_line_that_is_no_variable_is_named() {
        for (text, at) in [("A=1\nexport B=2", 2), ("=x", 1)] {
            match parse(Path::new("f"), text, &here).unwrap_err() {
                CliError::EnvironmentLine { line, .. } => assert_eq!(line, at),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_given_comes_after_the_terminals_type() {
        let given = ["A=1".to_owned(), "A=2".to_owned()];
        assert_eq!(collect(&[], &given, Some("xterm".to_owned())).unwrap(), ["TERM=xterm", "A=1", "A=2"]);
        assert!(matches!(collect(&[], &["=x".to_owned()], None), Err(CliError::Environment(_))));
    }
}
