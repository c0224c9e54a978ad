//! Errors for whoever called: on standard error, and in the log that a shim reads.

use std::fs::File;
use std::io::{self, Write};

use crate::args::Args;
use crate::error::EmbeddedError;

/// Says why the call failed. A log that cannot be written leaves standard error.
pub(crate) fn error(args: &Args, error: &EmbeddedError) {
    let words = error.words();
    let _ = writeln!(io::stderr(), "{words}");
    let Some(path) = &args.log else { return };
    let line = if args.log_format == "json" {
        serde_json::json!({ "level": "error", "msg": words }).to_string()
    } else {
        format!("level=error msg={words:?}")
    };
    if let Ok(mut file) = File::options().create(true).append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
