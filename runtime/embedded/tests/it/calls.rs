//! The calls of the command line, as shims use them.

use serde_json::json;

use crate::support::{BOTH, Bundle, Which};

#[test]
fn a_container_goes_through_its_life() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "sleep 1000");
        bundle.spec["annotations"] = json!({"a.b": "c"});
        let pid = bundle.start();
        let state = bundle.state();
        assert_eq!((&state["status"], &state["pid"]), (&json!("running"), &json!(pid)), "{which:?}");
        assert_eq!(state["annotations"]["a.b"], "c");
        assert_ne!(bundle.call(&["delete", &bundle.id]).code, Some(0), "{which:?}: it runs");
        assert_ne!(bundle.call(&["start", &bundle.id]).code, Some(0), "{which:?}: it was started");
        assert_eq!(bundle.call(&["kill", &bundle.id, "KILL"]).code, Some(0));
        bundle.await_end();
        assert_ne!(bundle.call(&["kill", &bundle.id, "KILL"]).code, Some(0), "{which:?}: it has ended");
        assert_eq!(bundle.call(&["delete", &bundle.id]).code, Some(0), "{which:?}");
        assert_ne!(bundle.call(&["state", &bundle.id]).code, Some(0), "{which:?}: it is gone");
        assert!(!std::path::Path::new("/sys/fs/cgroup/pids/windlass-test").join(&bundle.id).exists());
    }
}

#[test]
fn the_exit_code_of_the_process_is_the_exit_code_of_run() {
    for which in BOTH {
        for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
            // The first process of a process namespace ignores what it does not handle: not SIGKILL from a child of it.
            let script = if script.starts_with("kill") { "sh -c 'exit 137'" } else { script };
            let said = Bundle::new(which, script).run();
            assert_eq!(said.code, Some(code), "{which:?}: {said:?}");
        }
    }
}

#[test]
fn a_second_process_has_its_own_user_directory_and_code() {
    for which in BOTH {
        let bundle = Bundle::new(which, "sleep 1000");
        bundle.start();
        let process = json!({"cwd": "/tmp", "user": {"uid": 7, "gid": 8}, "env": ["PATH=/bin", "K=v"],
            "args": ["sh", "-c", "echo $(id -u):$(id -g) $(pwd) $K; exit 9"]});
        std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let said = bundle.call(&["exec", "--process", "process.json", &bundle.id]);
        assert_eq!((said.code, said.out.as_str()), (Some(9), "7:8 /tmp v\n"), "{which:?}: {said:?}");
    }
}

#[test]
fn programs_that_cannot_be_executed_are_told_apart() {
    for which in BOTH {
        for (program, words) in [
            ("/bin/nope", ["nope"; 2]),
            ("nope", ["not found in $PATH"; 2]),
            ("/etc", ["permission", "directory"]),
        ] {
            let mut bundle = Bundle::new(which, "");
            bundle.spec["process"]["args"] = json!([program]);
            let said = bundle.run();
            assert_ne!(said.code, Some(0), "{which:?}");
            let told = said.err.to_lowercase();
            assert!(
                words.iter().any(|word| told.contains(&word.to_lowercase())),
                "{which:?} {program}: {}",
                said.err
            );
        }
    }
}

#[test]
fn paused_means_that_nothing_happens_until_it_is_resumed() {
    for which in BOTH {
        let bundle = Bundle::new(which, "sleep 1000");
        bundle.start();
        assert_eq!(bundle.call(&["pause", &bundle.id]).code, Some(0), "{which:?}");
        assert_eq!(bundle.state()["status"], "paused");
        assert_eq!(bundle.call(&["resume", &bundle.id]).code, Some(0), "{which:?}");
        assert_eq!(bundle.state()["status"], "running");
    }
}

#[test]
fn limits_are_set_and_changed() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "sleep 1000");
        bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 20});
        let pid = bundle.start();
        let limit = || {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let line = groups.lines().find(|line| line.contains(":pids:"));
            let path = match line {
                Some(line) => format!("/sys/fs/cgroup/pids{}", line.rsplit(':').next().unwrap()),
                None => format!("/sys/fs/cgroup{}", groups.trim().rsplit(':').next().unwrap()),
            };
            std::fs::read_to_string(format!("{path}/pids.max")).unwrap().trim().to_owned()
        };
        assert_eq!(limit(), "20", "{which:?}");
        std::fs::write(bundle.path("r.json"), json!({"pids": {"limit": 31}}).to_string()).unwrap();
        let said = bundle.call(&["update", "--resources", "r.json", &bundle.id]);
        assert_eq!(said.code, Some(0), "{which:?}: {said:?}");
        assert_eq!(limit(), "31", "{which:?}");
    }
}

#[test]
fn what_is_wrong_with_a_bundle_is_told_and_nothing_is_left() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "true");
        bundle.spec["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/x", "type": "bind", "source": "/nowhere/at/all", "options": ["rbind"]}),
        );
        let said = bundle.run();
        assert_ne!(said.code, Some(0), "{which:?}");
        assert!(
            said.err.contains("/nowhere/at/all") || said.err.contains("rootfs"),
            "{which:?}: {}",
            said.err
        );
        assert_eq!(bundle.state()["status"], "none", "{which:?}: nothing is left");
    }
}

#[test]
fn errors_go_to_the_log_in_the_form_that_shims_read() {
    for which in BOTH {
        let bundle = Bundle::new(which, "true");
        let said = bundle.call(&["--log", "log.json", "--log-format", "json", "start", "nobody"]);
        assert_ne!(said.code, Some(0));
        let log = std::fs::read_to_string(bundle.path("log.json")).unwrap();
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{which:?}: {line}");
    }
}

#[test]
fn the_names_of_both_are_the_same() {
    assert_ne!(Which::Runc, Which::Ours);
    for which in BOTH {
        let said = Bundle::new(which, "true").call(&["--version"]);
        assert_eq!(said.code, Some(0));
        assert!(said.out.starts_with("runc"), "{which:?}: {}", said.out);
    }
}
