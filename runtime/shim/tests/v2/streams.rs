//! What processes read and write, through fifos, files, loggers and terminals.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use runtime_api::containerd::task::v2 as wire;
use serde_json::json;

use crate::support::{Daemon, drain, fifo};

#[test]
fn every_byte_comes_out_of_its_own_fifo_before_the_task_is_deleted() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("seq 1 20000; echo error >&2", |_| {});
    let task = daemon.task(&id, &bundle);
    let (out, err) = (fifo(&bundle.join("out")), fifo(&bundle.join("err")));
    let (out_reader, err_reader) = (drain(&out), drain(&err));
    task.create(|request| (request.stdout, request.stderr) = (out, err)).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait("").unwrap(), 0);
    task.delete("").unwrap();
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert_eq!(out_reader.join().unwrap(), expected);
    assert_eq!(err_reader.join().unwrap(), "error\n");
    task.shutdown();
}

#[test]
fn the_input_ends_only_when_it_is_closed_though_writers_come_and_go() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("cat", |_| {});
    let task = daemon.task(&id, &bundle);
    let (input, out) = (fifo(&bundle.join("in")), fifo(&bundle.join("out")));
    let reader = drain(&out);
    task.create(|request| (request.stdin, request.stdout) = (input.clone(), out)).unwrap();
    task.start("").unwrap();
    for words in ["one ", "two"] {
        // Each is a client that attaches and goes.
        File::options().write(true).open(&input).unwrap().write_all(words.as_bytes()).unwrap();
    }
    let request = wire::CloseIoRequest { id: task.id.clone(), exec_id: String::new(), stdin: true };
    task.call::<_, ()>("CloseIO", &request).unwrap();
    assert_eq!(task.wait("").unwrap(), 0);
    assert_eq!(reader.join().unwrap(), "one two");
    task.delete("").unwrap();
    task.shutdown();
}

#[test]
fn a_terminal_carries_bytes_both_ways_and_its_size() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("read line; stty size; echo got $line", |spec| {
        spec["process"]["terminal"] = json!(true);
    });
    let task = daemon.task(&id, &bundle);
    let (input, out) = (fifo(&bundle.join("in")), fifo(&bundle.join("out")));
    let reader = drain(&out);
    task.create(|request| {
        (request.stdin, request.stdout) = (input.clone(), out);
        request.terminal = true;
    })
    .unwrap();
    task.start("").unwrap();
    let size = wire::ResizePtyRequest { id: task.id.clone(), exec_id: String::new(), width: 101, height: 33 };
    task.call::<_, ()>("ResizePty", &size).unwrap();
    File::options().write(true).open(&input).unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(task.wait("").unwrap(), 0);
    task.delete("").unwrap();
    let text = reader.join().unwrap();
    assert!(text.contains("33 101") && text.contains("got hello"), "{text:?}");
    task.shutdown();
}

#[test]
fn execs_on_terminals_side_by_side_have_one_each() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    let execs: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("e{number}");
            let out = fifo(&task.bundle.join(format!("out{number}")));
            let reader = drain(&out);
            let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
                "terminal": true, "args": ["/bin/sh", "-c", format!("tty >/dev/null && echo mine is {number}")]});
            let spec = prost_types::Any { type_url: "process".into(), value: process.to_string().into_bytes() };
            task.exec_with(&name, "", |request| {
                (request.terminal, request.stdout, request.spec) = (true, out, Some(spec));
            })
            .unwrap();
            (name, reader, number)
        })
        .collect();
    std::thread::scope(|scope| {
        for (name, _, _) in &execs {
            scope.spawn(|| task.start(name).unwrap());
        }
    });
    for (name, reader, number) in execs {
        assert_eq!(task.wait(&name).unwrap(), 0);
        task.delete(&name).unwrap();
        assert!(reader.join().unwrap().contains(&format!("mine is {number}")));
    }
    task.kill("", 9, false).unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    task.shutdown();
}

#[test]
fn output_goes_to_a_file_that_is_appended_to_in_order() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("echo one; echo two >&2; echo three", |_| {});
    let task = daemon.task(&id, &bundle);
    let log = bundle.join("deep/er/log");
    let uri = format!("file://{}", log.display());
    task.create(|request| (request.stdout, request.stderr) = (uri.clone(), uri)).unwrap();
    task.start("").unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    assert_eq!(fs::read_to_string(log).unwrap(), "one\ntwo\nthree\n");
    task.shutdown();
}

#[test]
fn a_logger_gets_both_outputs_and_is_told_whose_they_are() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("echo out; echo err >&2", |_| {});
    let task = daemon.task(&id, &bundle);
    let logger = bundle.join("logger");
    let script = "#!/bin/sh\nexec 5>&-\ncat <&3 >\"$2\"\ncat <&4 >>\"$2\"\necho \"$CONTAINER_NAMESPACE/$CONTAINER_ID $1\" >>\"$2\"\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let log = bundle.join("log.txt");
    let uri = format!("binary://{}?to={}", logger.display(), log.display());
    task.create(|request| (request.stdout, request.stderr) = (uri.clone(), uri)).unwrap();
    task.start("").unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    let expected = format!("out\nerr\ntest/{id} to\n");
    crate::support::eventually("the logger has written", || {
        fs::read_to_string(&log).is_ok_and(|text| text == expected)
    });
    task.shutdown();
}
