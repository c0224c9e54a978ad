//! A container through its shim, with the real runtime: codes, users, directories, descriptors, what is left behind.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use crate::support::{Bundle, null, words};
use runtime_container::spec::{MountOption, RunOptions};
use runtime_shim::{Client, ClientError, FailureKind, Phase, read_exit};
use serde_json::json;

#[test]
fn the_exit_code_of_the_process_is_passed_on() {
    for code in [0u8, 1, 42, 255] {
        let bundle = Bundle::shell(&format!("echo out; echo err >&2; exit {code}"));
        let (text, status) = bundle.run().unwrap();
        assert_eq!((text.as_str(), status.code, status.signal), ("out\nerr\n", code, None));
        assert_eq!(read_exit(&bundle.config.bundle).unwrap().unwrap(), status);
        bundle.assert_clean();
    }
}

#[test]
fn death_by_a_signal_is_128_plus_its_number() {
    let bundle = Bundle::shell("sh -c 'kill -TERM $$'; exit $?");
    assert_eq!(bundle.run().unwrap().1.code, 143);
    let bundle = Bundle::shell("sleep 100");
    let handle = bundle.shim();
    let client = Client::connect(&handle.socket).unwrap();
    client.start_detached().unwrap();
    client.kill(9, false).unwrap();
    let status = client.wait().unwrap();
    assert_eq!((status.code, status.signal), (137, Some(9)));
    client.wait_gone().unwrap();
    bundle.assert_clean();
}

#[test]
fn a_signal_reaches_the_process_and_its_own_code_is_reported() {
    let bundle =
        Bundle::shell("trap 'echo caught; exit 7' USR1; echo ready; while true; do sleep 0.01; done");
    let handle = bundle.shim();
    let client = Client::connect(&handle.socket).unwrap();
    client.start_detached().unwrap();
    crate::support::eventually("the trap is set", || bundle.log().contains("ready"));
    client.kill(10, false).unwrap();
    assert_eq!(client.wait().unwrap().code, 7);
    assert_eq!(bundle.log(), "ready\ncaught\n");
    assert!(client.kill(10, false).is_err());
}

#[test]
fn a_program_that_cannot_start_has_code_127_or_126_and_says_why() {
    let table = [
        ("nope", 127, "\"nope\" is not in the image (searched in PATH"),
        ("/bin/nope", 127, "\"/bin/nope\" is not in the image"),
        ("/etc", 126, "it is a directory"),
        ("/etc/passwd", 126, "nobody has execute permission"),
    ];
    for (program, code, part) in table {
        let bundle = Bundle::new(json!({}), RunOptions { args: words(&[program]), ..RunOptions::default() });
        let Err(ClientError::Failed(failure)) = bundle.run() else { panic!("{program} started") };
        assert_eq!(failure.exit_code, code);
        assert!(failure.message.contains(part), "{}", failure.message);
        crate::support::eventually("the shim is gone", || {
            !runtime_shim::socket_path(&bundle.config.bundle).exists()
        });
        assert_eq!(read_exit(&bundle.config.bundle).unwrap().unwrap().code, code);
        bundle.assert_clean();
    }
}

#[test]
fn what_only_the_runtime_can_know_is_told_in_its_words() {
    // With a mount of the user's, the program may come from there: the runtime is asked.
    let mount = MountOption { source: "/usr".into(), destination: "/mnt".into(), ..MountOption::default() };
    for (args, code, part) in [("nope", 127, "executable file not found"), ("/etc", 126, "/etc")] {
        let options =
            RunOptions { args: words(&[args]), mounts: vec![mount.clone()], ..RunOptions::default() };
        let bundle = Bundle::new(json!({}), options);
        let Err(ClientError::Failed(failure)) = bundle.run() else { panic!("{args} started") };
        assert_eq!(failure.exit_code, code, "{}", failure.message);
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    let mount = MountOption { source: "/no/such/source".into(), ..mount };
    let bundle =
        Bundle::new(json!({"Cmd": ["true"]}), RunOptions { mounts: vec![mount], ..RunOptions::default() });
    let Err(ClientError::Failed(failure)) = bundle.run() else { panic!("started") };
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::InvalidArgument, 125));
    assert!(failure.message.contains("/no/such/source"), "{}", failure.message);
    let options =
        RunOptions { args: words(&["true"]), cwd: Some("/etc/passwd".into()), ..RunOptions::default() };
    let Err(ClientError::Failed(failure)) = Bundle::new(json!({}), options).run() else { panic!("started") };
    assert!(failure.message.contains("working directory cannot be used"), "{}", failure.message);
}

#[test]
fn the_process_runs_as_the_images_or_the_users_user() {
    let who = |config: serde_json::Value, user: Option<&str>| {
        let options =
            RunOptions { args: words(&["id"]), user: user.map(str::to_owned), ..RunOptions::default() };
        Bundle::new(config, options).run().map(|(text, _)| text)
    };
    assert!(who(json!({}), None).unwrap().starts_with("uid=0(root) gid=0(root)"));
    let web = who(json!({"User": "web"}), None).unwrap();
    assert_eq!(web.trim(), "uid=33(web) gid=34(web) groups=34(web),50(staff)");
    assert_eq!(
        who(json!({"User": "web"}), Some("4711:34")).unwrap().trim(),
        "uid=4711 gid=34(web) groups=34(web)"
    );
    let Err(ClientError::Failed(failure)) = who(json!({"User": "nobody"}), None) else { panic!("started") };
    assert_eq!(failure.kind, FailureKind::InvalidArgument);
    assert!(failure.message.contains("\"nobody\" is not in the image's /etc/passwd"));
}

#[test]
fn vuln_r11_a_row_called_1000_does_not_make_user_1000_root() {
    let options = RunOptions { args: words(&["id", "-u"]), ..RunOptions::default() };
    let (text, _) = Bundle::new(json!({"User": "1000"}), options.clone()).run().unwrap();
    assert_eq!(text.trim(), "1000");
    let Err(ClientError::Failed(failure)) = Bundle::new(json!({"User": "4294967296"}), options).run() else {
        panic!("started")
    };
    assert!(failure.message.contains("out of range"));
}

#[test]
fn vuln_r9_r18_the_process_holds_no_inheritable_capability_and_sees_no_power_readings() {
    let bundle = Bundle::shell(
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls /sys/devices/virtual/powercap 2>/dev/null | wc -l; \
         cat /proc/kcore /proc/keys 2>/dev/null | wc -c; echo x > /proc/sys/kernel/hostname || echo read-only",
    );
    let (text, _) = bundle.run().unwrap();
    for part in [
        "CapInh:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("\n0\n0\n") && text.ends_with("read-only\n"), "{text}");
}

#[test]
fn vuln_r2_the_process_has_three_descriptors_and_no_more() {
    // `ls` itself opens the fourth.
    let (text, _) =
        Bundle::new(json!({"Cmd": ["ls", "/proc/self/fd"]}), RunOptions::default()).run().unwrap();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn a_working_directory_that_is_missing_is_made_inside_the_root() {
    let mut bundle = Bundle::shell("pwd");
    std::os::unix::fs::symlink("/../../../../../../../tmp", bundle.path("lower/out")).unwrap();
    let name = format!("windlass-{}", bundle.config.id);
    bundle.config.run_options.cwd = Some(format!("/out/{name}/deep"));
    let (text, status) = bundle.run().unwrap();
    assert_eq!((text.trim(), status.code), (format!("/tmp/{name}/deep").as_str(), 0));
    assert!(bundle.path(&format!("upper/tmp/{name}/deep")).is_dir());
    assert!(!std::path::Path::new("/tmp").join(&name).exists());
}

#[test]
fn a_regular_file_may_be_input_and_output() {
    let bundle = Bundle::new(json!({"Cmd": ["cat"]}), RunOptions::default());
    let mut input = tempfile::tempfile().unwrap();
    let mut output = tempfile::tempfile().unwrap();
    let text = "line\n".repeat(100_000);
    input.write_all(text.as_bytes()).unwrap();
    input.rewind().unwrap();
    let client = Client::connect(&bundle.shim().socket).unwrap();
    client.start_attached(input.as_fd(), output.as_fd(), null().as_fd()).unwrap();
    assert_eq!(client.wait().unwrap().code, 0);
    output.rewind().unwrap();
    let mut copy = String::new();
    output.read_to_string(&mut copy).unwrap();
    assert!(copy == text);
}

#[test]
fn a_file_of_the_caller_is_not_given_to_the_containers_user() {
    let options =
        RunOptions { args: words(&["echo", "kept"]), user: Some("33".into()), ..RunOptions::default() };
    let bundle = Bundle::new(json!({}), options);
    let mut output = tempfile::tempfile().unwrap();
    let owner = output.metadata().unwrap().uid();
    let client = Client::connect(&bundle.shim().socket).unwrap();
    client.start_attached(null().as_fd(), output.as_fd(), output.as_fd()).unwrap();
    client.wait().unwrap();
    assert_eq!(output.metadata().unwrap().uid(), owner);
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "kept\n");
}

#[test]
fn what_the_process_writes_stays_in_the_upper_directory() {
    let bundle = Bundle::shell("echo changed > /etc/passwd; echo new > /new");
    bundle.run().unwrap();
    assert_eq!(fs::read_to_string(bundle.path("upper/new")).unwrap(), "new\n");
    assert!(fs::read_to_string(bundle.path("lower/etc/passwd")).unwrap().starts_with("root:"));
}

#[test]
fn a_container_is_started_once() {
    let bundle = Bundle::shell("sleep 100");
    let handle = bundle.shim();
    let client = Client::connect(&handle.socket).unwrap();
    assert_eq!(client.state().unwrap().phase, Phase::Waiting);
    let Err(ClientError::Failed(early)) = client.kill(15, false) else { panic!("killed") };
    assert_eq!(early.kind, FailureKind::WrongPhase);
    let Err(ClientError::Failed(terminal)) = client.attach() else { panic!("attached") };
    assert_eq!(terminal.kind, FailureKind::WrongPhase);
    let pid = client.start_detached().unwrap();
    let Err(ClientError::Failed(again)) = client.start_detached() else { panic!("started twice") };
    assert_eq!(again.kind, FailureKind::WrongPhase);
    assert_eq!(client.state().unwrap().pid, Some(pid));
    let Err(ClientError::Failed(number)) = client.kill(65, false) else { panic!("killed") };
    assert_eq!(number.kind, FailureKind::BadRequest);
    client.kill(9, true).unwrap();
    assert_eq!(client.wait().unwrap().code, 137);
}

#[test]
fn a_root_that_cannot_be_mounted_is_reported_to_who_starts() {
    let mut bundle = Bundle::shell("true");
    bundle.config.mounts[0].options[0] = "lowerdir=/no/such/layer".into();
    let Err(ClientError::Failed(failure)) = bundle.run() else { panic!("started") };
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Internal, 125));
    assert!(failure.message.contains("/no/such/layer"), "{}", failure.message);
}
