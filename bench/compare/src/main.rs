//! Windlass beside other engines, in one run on one machine, interleaved.
//!
//! - [`pull`]: cold pull and first run of images through a network of known latency and bandwidth.
//! - [`start`]: how long a container takes to start, alone and among many.
//! - [`store`]: what the store under it does in a second: snapshots, content, archives, collection.
//!
//! A figure here is a ratio against a peer measured minutes before or after; on another day or machine only the ratio
//! counts.

mod pull;
mod spread;
mod start;
mod store;

use std::fs;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Windlass beside other engines.
#[derive(Debug, Parser)]
#[command(name = "bench-compare")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Cold pull and first run beside containerd and podman
    Pull(pull::Arguments),
    /// Starting containers beside containerd, podman and the bare OCI runtimes
    Start(start::Arguments),
    /// Rates of the store beside containerd: snapshots, content, import, export, push, collection
    Store(store::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tests::require_root()?;
    match arguments.what {
        What::Pull(arguments) => pull::run(arguments),
        What::Start(arguments) => start::run(arguments),
        What::Store(arguments) => store::run(arguments),
    }
}

/// Machine and command: a figure without them is no figure.
fn heading(title: &str) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu =
        read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name\t: ").map(str::to_owned));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    format!(
        "# {title}\n\n- machine: {cores} cores of {}, kernel {}, load at the end {load}\n- command: `bench-compare {command}`\n",
        cpu.as_deref().unwrap_or("an unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}
