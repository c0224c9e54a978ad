//! What a start costs, step by step, beside the bare OCI runtime with the same spec on the same mounted root.
//!
//! `cargo run --release -p runtime-shim --example start_latency -- SHIM_EXE LOWER_DIR [ROUNDS]`, as root. `SHIM_EXE` is a
//! program with the verb `shim` (`windlass`, `shim-under-test`); `LOWER_DIR` a root with `/bin/true`. Medians, in
//! milliseconds; one warm-up round is dropped.
#![allow(clippy::unwrap_used)] // A measurement that cannot be made ends.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use runtime_container::runtime::OciRuntime;
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, MountSpec, ShimConfig, spawn, spec_path};
use storage_model::ImageConfig;
use storage_sys::mount::{Mount, detach, mount_all};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (exe, lower) = (Path::new(&words[0]), fs::canonicalize(&words[1]).unwrap());
    let rounds = words.get(2).map_or(20, |text| text.parse().unwrap());
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        let sample = measure(exe, &lower, round);
        if round > 0 {
            for (name, value) in sample {
                figures.entry(name).or_default().push(value);
            }
        }
    }
    for (name, mut values) in figures {
        values.sort_by(f64::total_cmp);
        println!("{name:44} {:7.2} (min {:.2})", values[values.len() / 2], values[0]);
    }
}

fn measure(exe: &Path, lower: &Path, round: u32) -> Vec<(&'static str, f64)> {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    // Where a daemon keeps bundles: a file system in memory.
    let state = tempfile::tempdir_in("/run").unwrap();
    let config = config(&top, state.path(), lower, round);
    config.write().unwrap();
    let mut figures = Vec::new();
    let start = Instant::now();
    let mut last = start;
    let mut lap = |name| {
        figures.push((name, last.elapsed().as_secs_f64() * 1000.0));
        last = Instant::now();
    };
    let shim = spawn(exe, &config.bundle).unwrap();
    lap("1 shim: spawned, socket listens");
    let client = Client::connect(&shim.socket).unwrap();
    client.state().unwrap();
    lap("2 shim: root mounted, spec built");
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    client.start_attached(null.as_fd(), null.as_fd(), null.as_fd()).unwrap();
    lap("3 shim: container started");
    client.wait().unwrap();
    lap("4 shim: exit status told");
    figures.push(("5 shim: all until the status is told", start.elapsed().as_secs_f64() * 1000.0));
    let cleaning = Instant::now();
    client.wait_gone().unwrap();
    figures.push(("6 shim: everything taken away", cleaning.elapsed().as_secs_f64() * 1000.0));
    bare(&config, &top, &mut figures);
    figures
}

/// The same spec with the runtime alone, each time on a root nobody has used; it is mounted outside of the time.
fn bare(config: &ShimConfig, top: &Path, figures: &mut Vec<(&'static str, f64)>) {
    let root = config.bundle.join("rootfs");
    assert!(spec_path(&config.bundle).exists());
    for (name, detached) in
        [("7 bare runtime: run (to the end)", false), ("8 bare runtime: run --detach", true)]
    {
        for folder in ["upper", "work"] {
            fs::remove_dir_all(top.join(folder)).unwrap();
            fs::create_dir(top.join(folder)).unwrap();
        }
        let mount = &config.mounts[0];
        let mount =
            Mount { kind: mount.kind.clone(), source: mount.source.clone(), options: mount.options.clone() };
        mount_all(&[mount], &root).unwrap();
        let mut command = Command::new(&config.runtime);
        command.arg("--root").arg(&config.runtime_root).arg("run");
        command.args(["--bundle".as_ref(), config.bundle.as_os_str()]);
        if detached {
            command.arg("--detach");
        }
        command.arg(&config.id).current_dir(top);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        assert!(command.status().unwrap().success());
        figures.push((name, start.elapsed().as_secs_f64() * 1000.0));
        OciRuntime::at(&config.runtime).delete(&target(config), true).unwrap();
        detach(&root).unwrap();
    }
}

fn target(config: &ShimConfig) -> runtime_container::runtime::Target<'_> {
    runtime_container::runtime::Target { id: &config.id, root: &config.runtime_root, bundle: &config.bundle }
}

fn config(top: &Path, state: &Path, lower: &Path, round: u32) -> ShimConfig {
    let image = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    ShimConfig {
        id: format!("start-latency-{}-{round}", std::process::id()),
        namespace: "bench".into(),
        bundle: state.to_path_buf(),
        runtime: OciRuntime::find(None).map_err(io::Error::other).unwrap().path().to_path_buf(),
        runtime_root: state.join("runtime"),
        mounts: vec![MountSpec {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                option("lowerdir", lower.to_path_buf()),
                option("upperdir", top.join("upper")),
                option("workdir", top.join("work")),
            ],
        }],
        terminal: false,
        image_config: ImageConfig::parse(image, 0).unwrap(),
        run_options: RunOptions { args: vec!["/bin/true".into()], ..RunOptions::default() },
        log: None,
        log_settings: None,
    }
}
