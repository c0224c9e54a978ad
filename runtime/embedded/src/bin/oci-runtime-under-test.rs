//! The OCI runtime alone, with runc's command line: for tests and for the validation suites.

use std::process::ExitCode;

fn main() -> ExitCode {
    // It executes itself again with the verb of the whole program.
    let words = std::env::args_os().skip(1).skip_while(|word| word == runtime_embedded::VERB);
    runtime_embedded::main(words.collect())
}
