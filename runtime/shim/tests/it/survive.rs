//! What happens when others die: whoever spawned the shim, its clients, the shim itself.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Bundle, alive, eventually, null, words};
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, ClientError, Phase, read_exit, recover, socket_path};
use serde_json::json;
use storage_sys::process::Pidfd;

#[test]
fn the_container_and_its_status_survive_whoever_spawned_the_shim() {
    let bundle = Bundle::shell("sleep 1; exit 9");
    bundle.config.write().unwrap();
    // A "daemon" that starts the shim and is killed with its whole process group.
    let mut daemon = Command::new("sh")
        .args(["-c", "\"$0\" shim --bundle \"$1\" & wait", env!("CARGO_BIN_EXE_shim-under-test")])
        .arg(&bundle.config.bundle)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let socket = socket_path(&bundle.config.bundle);
    eventually("the shim listens", || Client::connect(&socket).is_ok());
    let pid = Client::connect(&socket).unwrap().start_detached().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(alive(pid));
    let client = Client::connect(&socket).unwrap();
    assert_eq!(client.state().unwrap().phase, Phase::Running);
    assert_eq!(client.wait().unwrap().code, 9);
    client.wait_gone().unwrap();
    assert_eq!(read_exit(&bundle.config.bundle).unwrap().unwrap().code, 9);
    bundle.assert_clean();
}

#[test]
fn a_killed_shim_leaves_no_mount_and_its_container_can_be_cleaned() {
    let bundle = Bundle::shell("sleep 1000");
    let handle = bundle.shim();
    let client = Client::connect(&handle.socket).unwrap();
    let pid = client.start_detached().unwrap();
    Pidfd::open(handle.pid).unwrap().signal(9).unwrap();
    assert!(matches!(client.wait(), Err(ClientError::Gone { .. })));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.path("").to_str().unwrap().trim_end_matches('/')));
    let status = recover(&bundle.config.bundle).unwrap();
    assert_eq!(status.code, 137);
    assert!(status.error.unwrap().contains("shim was killed"));
    eventually("the process is gone", || !alive(pid));
    bundle.assert_clean();
    assert_eq!(recover(&bundle.config.bundle).unwrap().code, 137);
}

#[test]
fn a_shim_killed_before_the_start_leaves_nothing() {
    let bundle = Bundle::shell("true");
    let handle = bundle.shim();
    let client = Client::connect(&handle.socket).unwrap();
    assert_eq!(client.state().unwrap().phase, Phase::Waiting);
    Pidfd::open(handle.pid).unwrap().signal(9).unwrap();
    assert!(matches!(client.start_detached(), Err(ClientError::Gone { .. })));
    recover(&bundle.config.bundle).unwrap();
    bundle.assert_clean();
}

#[test]
fn a_live_shim_is_not_recovered_from() {
    let bundle = Bundle::shell("true");
    let handle = bundle.shim();
    assert!(recover(&bundle.config.bundle).is_err());
    let client = Client::connect(&handle.socket).unwrap();
    client.kill(9, false).unwrap();
    assert_eq!(client.wait().unwrap().code, 137);
}

#[test]
fn every_client_is_told_also_who_asks_after_the_end() {
    let bundle = Bundle::shell("sleep 0.3; exit 5");
    let socket = bundle.shim().socket;
    let starter = Client::connect(&socket).unwrap();
    starter.start_detached().unwrap();
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || Client::connect(&socket).unwrap().wait().unwrap().code)
        })
        .collect();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), 5);
    }
    starter_sees_the_end(&starter);
    starter.wait_gone().unwrap();
    bundle.assert_clean();
}

fn starter_sees_the_end(client: &Client) {
    let report = client.state().unwrap();
    assert_eq!((report.phase, report.exit.unwrap().code), (Phase::Ended, 5));
    assert_eq!(client.wait().unwrap().code, 5);
}

#[test]
fn a_client_that_dies_takes_nothing_with_it() {
    let bundle = Bundle::shell("sleep 0.3; exit 6");
    let socket = bundle.shim().socket;
    let first = Client::connect(&socket).unwrap();
    let (_reader, writer) = io::pipe().unwrap();
    first.start_attached(null().as_fd(), writer.as_fd(), writer.as_fd()).unwrap();
    drop(first);
    assert_eq!(Client::connect(&socket).unwrap().wait().unwrap().code, 6);
}

#[test]
fn a_storm_of_ending_children_loses_no_status() {
    let script = "i=0; while [ $i -lt 300 ]; do (true &) ; i=$((i+1)); done; exit 11";
    let bundle =
        Bundle::new(json!({}), RunOptions { args: words(&["sh", "-c", script]), ..RunOptions::default() });
    assert_eq!(bundle.run().unwrap().1.code, 11);
}

#[test]
fn processes_that_end_at_once_are_never_missed() {
    for _ in 0..20 {
        let bundle = Bundle::new(json!({"Cmd": ["false"]}), RunOptions::default());
        assert_eq!(bundle.run().unwrap().1.code, 1);
        bundle.assert_clean();
    }
}

#[test]
fn nonsense_on_the_socket_is_answered_and_harms_nobody() {
    let bundle = Bundle::shell("true");
    let socket = bundle.shim().socket;
    let stranger = storage_sys::socket::Connection::connect(&socket).unwrap();
    stranger.send(b"\xff{", &[], true).unwrap();
    let answer = stranger.receive().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer.bytes).contains("not a request"));
    stranger.send(b"\"start_attached\"", &[null().as_fd()], true).unwrap();
    let answer = stranger.receive().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer.bytes).contains("three descriptors"));
    let client = Client::connect(&socket).unwrap();
    client.start_detached().unwrap();
    assert_eq!(client.wait().unwrap().code, 0);
}

#[test]
fn a_shim_that_cannot_come_up_says_why() {
    let bundle = Bundle::shell("true");
    std::fs::write(bundle.config.bundle.join("shim.json"), "{").unwrap();
    let start = Instant::now();
    let exe = Path::new(env!("CARGO_BIN_EXE_shim-under-test"));
    let error = runtime_shim::spawn(exe, &bundle.config.bundle).unwrap_err();
    assert!(error.to_string().contains("is not a shim's config"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_runtime_that_hangs_can_be_killed() {
    let mut bundle = Bundle::shell("true");
    let program = bundle.path("hangs");
    std::fs::write(&program, "#!/bin/sh\ncase \"$*\" in *delete*) exit 0;; esac\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.config.runtime = program;
    let socket = bundle.shim().socket;
    let starter = std::thread::spawn({
        let socket = socket.clone();
        move || Client::connect(&socket).unwrap().start_detached()
    });
    let client = Client::connect(&socket).unwrap();
    eventually("the runtime is at work", || client.state().unwrap().phase == Phase::Starting);
    client.kill(9, false).unwrap();
    assert!(matches!(starter.join().unwrap(), Err(ClientError::Failed(_))));
    assert_eq!(client.wait().unwrap().code, 125);
}

#[test]
fn a_runtime_that_is_gone_is_named() {
    let mut bundle = Bundle::shell("true");
    bundle.config.runtime = "/no/such/runtime".into();
    let Err(ClientError::Failed(failure)) = bundle.run() else { panic!("started") };
    assert_eq!(failure.exit_code, 125);
    assert!(
        failure.message.starts_with("cannot start the OCI runtime /no/such/runtime: No such file"),
        "{failure}"
    );
}
