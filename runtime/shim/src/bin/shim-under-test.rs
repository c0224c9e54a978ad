//! The shim alone, for this crate's tests: `shim-under-test shim --bundle DIR`, and under the name that containerd calls
//! it by, containerd's shim.
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if runtime_shim::v2::is_called() {
        return runtime_shim::v2::main(std::env::args().skip(1));
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shim", "--bundle", bundle] => runtime_shim::main(Path::new(bundle)),
        _ => ExitCode::from(2),
    }
}
