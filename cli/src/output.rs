//! What people and programs read: text to standard output, notes to standard error.
//!
//! Everything is rendered to a string first, by pure functions, and written once. A reader that goes away (`| head`)
//! ends the program quietly. Text that came from an image or a registry is made printable: it may not move the cursor.

pub(crate) mod amount;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::error::CliError;

/// Writes `text` to standard output.
///
/// # Errors
/// [`CliError::Output`] when it cannot be written.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output, as they are.
///
/// # Errors
/// [`CliError::Output`] when they cannot be written.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Writes a line to standard error. Nobody reads it when that fails, so nobody is told.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `value` as one JSON document, indented, with a line end.
///
/// # Errors
/// [`CliError::Json`] when it is no JSON (a map whose keys are no strings).
pub(crate) fn json(value: &impl Serialize) -> Result<String, CliError> {
    let mut text = serde_json::to_string_pretty(value).map_err(CliError::Json)?;
    text.push('\n');
    Ok(text)
}

/// Writes one result: `text` for people, `value` for programs or filled into their template.
///
/// # Errors
/// [`CliError::Template`] for a field the value has not, [`CliError::Json`], [`CliError::Output`].
pub(crate) fn document(
    format: &Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), CliError> {
    match format {
        Format::Table => print(&text()),
        Format::Json => print(&json(value)?),
        Format::Template(template) => {
            let value = serde_json::to_value(value).map_err(CliError::Json)?;
            print(&(template.render(&value)? + "\n"))
        }
    }
}

/// Refuses to write bytes to a terminal, where they would be noise at best.
///
/// # Errors
/// [`CliError::Terminal`].
pub(crate) fn refuse_terminal(what: &'static str) -> Result<(), CliError> {
    if io::stdout().is_terminal() { Err(CliError::Terminal(what)) } else { Ok(()) }
}

/// Whether colours may be used on standard error.
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

/// `text` with its control characters spelled out, and those that reorder other text.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let reorders =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Words as a shell would need them quoted.
pub(crate) fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%^".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\u{202e}c"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c");
        assert_eq!(printable("/srv/\u{e9}t\u{e9} x"), "/srv/\u{e9}t\u{e9} x");
    }

    #[test]
    fn words_are_quoted_only_when_needed() {
        let words = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(command_line(&words), "sh -c 'echo '\\''a b'\\''' ''");
    }

    #[test]
    fn json_ends_with_a_line_end() {
        assert_eq!(json(&["a"]).unwrap(), "[\n  \"a\"\n]\n");
    }
}
