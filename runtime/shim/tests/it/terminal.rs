//! Containers with a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Bundle, eventually, words};
use runtime_container::spec::RunOptions;
use runtime_shim::{Client, ClientError, Size};
use serde_json::json;

fn terminal(script: &str) -> Bundle {
    let options = RunOptions { args: words(&["sh", "-c", script]), terminal: true, ..RunOptions::default() };
    Bundle::new(json!({}), options)
}

/// Everything a terminal shows until no process has it open any more.
fn read_all(master: File) -> String {
    let mut bytes = Vec::new();
    let mut master = master;
    let mut part = [0; 4096];
    while let Ok(count) = master.read(&mut part) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn the_process_has_a_terminal_of_the_right_size_from_its_first_moment() {
    let bundle = terminal("stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo $TERM; exit 3");
    let client = Client::connect(&bundle.shim().socket).unwrap();
    let (_, master) = client.start_terminal(Size { rows: 31, columns: 117 }).unwrap();
    let text = read_all(File::from(master));
    assert_eq!(text, "31 117\r\n/dev/pts/0\r\nxterm\r\n");
    assert_eq!(client.wait().unwrap().code, 3);
}

#[test]
fn keys_resizes_and_ctrl_c_reach_the_process() {
    let bundle = terminal(
        "trap 'echo interrupted; exit 130' INT; trap 'stty size' WINCH; echo ready; read word; echo got $word; \
         while true; do sleep 0.01; done",
    );
    let client = Client::connect(&bundle.shim().socket).unwrap();
    let (_, master) = client.start_terminal(Size { rows: 24, columns: 80 }).unwrap();
    let mut master = File::from(master);
    let mut seen = String::new();
    let mut until = |master: &mut File, mark: &str| {
        let mut part = [0; 256];
        while !seen.contains(mark) {
            let count = master.read(&mut part).unwrap();
            seen.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    };
    until(&mut master, "ready");
    master.write_all(b"word\n").unwrap();
    until(&mut master, "got word");
    storage_sys::terminal::set_size(&master, Size { rows: 40, columns: 100 }).unwrap();
    until(&mut master, "40 100");
    master.write_all(b"\x03").unwrap();
    until(&mut master, "interrupted");
    assert_eq!(client.wait().unwrap().code, 130);
}

#[test]
fn a_terminal_nobody_holds_is_drained_to_the_log() {
    let bundle = terminal("echo begin; seq 1 50000; echo end; sleep 100");
    let client = Client::connect(&bundle.shim().socket).unwrap();
    client.start_detached().unwrap();
    // 50,000 lines are far more than a terminal holds: without a reader the process would stop.
    eventually("the process has printed all", || bundle.log().contains("end\r\n"));
    let text = bundle.log();
    assert!(text.starts_with("begin\r\n1\r\n") && text.contains("\r\n50000\r\nend\r\n"));
    client.kill(9, false).unwrap();
    client.wait().unwrap();
}

#[test]
fn a_client_may_leave_its_terminal_and_another_may_take_it() {
    let bundle = terminal("echo one; read a; echo two; seq 1 20000; read b; echo three $b");
    let socket = bundle.shim().socket;
    let first = Client::connect(&socket).unwrap();
    let (_, master) = first.start_terminal(Size { rows: 24, columns: 80 }).unwrap();
    let mut master = File::from(master);
    master.write_all(b"go\n").unwrap();
    drop(master);
    drop(first);
    eventually("the log has the rest", || bundle.log().contains("20000\r\n"));
    let second = Client::connect(&socket).unwrap();
    let mut master = File::from(second.attach().unwrap());
    std::thread::sleep(Duration::from_millis(20));
    master.write_all(b"again\n").unwrap();
    assert!(read_all(master).contains("three again\r\n"));
    assert_eq!(second.wait().unwrap().code, 0);
}

#[test]
fn a_start_of_the_other_kind_is_refused_and_may_be_corrected() {
    let bundle = terminal("true");
    let client = Client::connect(&bundle.shim().socket).unwrap();
    let null = crate::support::null();
    let fd = std::os::fd::AsFd::as_fd(&null);
    assert!(matches!(client.start_attached(fd, fd, fd), Err(ClientError::Failed(_))));
    let (_, master) = client.start_terminal(Size { rows: 1, columns: 1 }).unwrap();
    drop(master);
    assert_eq!(client.wait().unwrap().code, 0);
}
