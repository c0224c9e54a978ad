//! The shim alone, for this crate's tests: `shim-under-test shim --bundle DIR`.
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shim", "--bundle", bundle] => runtime_shim::main(Path::new(bundle)),
        _ => ExitCode::from(2),
    }
}
