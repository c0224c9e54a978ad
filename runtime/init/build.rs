//! Compiles `windlass-init`, which must be linked statically whatever the rest is: it runs inside images that have no libc.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "../../storage/sys/init/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("windlass-init");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler
        .args(["--edition", "2024", "--crate-name", "windlass_init", "--crate-type", "bin", "--target"])
        .arg(variable("TARGET"))
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols", "-C", "lto=fat"])
        .args(["-C", "codegen-units=1", "-C", "target-feature=+crt-static", "-o"])
        .arg(&output)
        .arg(SOURCE);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        compiler.arg("-C").arg(option);
    }
    let status = compiler.status().expect("the compiler that compiled this can be called");
    assert!(status.success(), "windlass-init cannot be compiled: is the static libc (libc6-dev) installed?");
}
