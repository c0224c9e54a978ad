//! Attacks that runtimes have fallen to, tried on the built-in one (and on the machine's runc, which must hold as well).

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::json;

use crate::support::{BOTH, Bundle, Which};

#[test]
fn vuln_r1_a_container_cannot_write_to_the_program_that_entered_it() {
    let bundle = Bundle::new(Which::Ours, "sleep 1000");
    // A copy, so that nothing else that is running keeps it busy.
    let copy = bundle.path("runtime");
    fs::copy(env!("CARGO_BIN_EXE_oci-runtime-under-test"), &copy).unwrap();
    let plain = bundle.command(&["create", "--bundle", ".", "--pid-file", "pid", &bundle.id]);
    let mut create = std::process::Command::new(&copy);
    create.args(plain.get_args()).current_dir(bundle.path(""));
    assert!(create.status().unwrap().success());
    // Created and not started: the process inside still is the runtime. An attacker there holds on to it ...
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    let held = File::open(format!("/proc/{}/exe", pid.trim())).unwrap();
    assert_eq!(
        held.metadata().unwrap().ino(),
        fs::metadata(&copy).unwrap().ino(),
        "the same file, seen read-only"
    );
    // ... until nothing executes it any more.
    assert_eq!(bundle.call(&["delete", "--force", &bundle.id]).code, Some(0));
    let path = storage_sys::process::descriptor_path(&held);
    let error = File::options().write(true).open(path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "a read-only file system: {error}");
    assert!(File::options().write(true).open(&copy).is_ok(), "which only the view is");
}

#[test]
fn vuln_r2_no_descriptor_of_the_machine_gets_inside_and_no_directory_is_reached_through_one() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "ls /proc/1/fd; echo; ls /proc/self/fd");
        let said = bundle.run();
        // And of the second the directory that is being read.
        assert_eq!(said.out, "0\n1\n2\n\n0\n1\n2\n3\n", "{which:?}: {said:?}");
        for number in 3..20 {
            bundle = Bundle::new(which, "ls -d ../../../root");
            bundle.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
            let said = bundle.run();
            assert_ne!(said.code, Some(0), "{which:?}: {number} {said:?}");
        }
    }
}

#[test]
fn vuln_r3_a_null_that_is_a_link_or_a_file_hides_nothing_else() {
    for which in BOTH {
        let bundle = Bundle::new(which, "cat /proc/kcore | wc -c; ls -l /dev/null");
        // The image's own /dev is covered by a fresh one; what it brings as /dev/null is not used to mask.
        fs::remove_dir(bundle.root().join("dev")).unwrap();
        fs::create_dir(bundle.root().join("dev")).unwrap();
        symlink("/etc", bundle.root().join("dev/null")).unwrap();
        let said = bundle.run();
        assert!(said.out.starts_with("0\n"), "{which:?}: {said:?}");
        assert!(said.out.contains("crw"), "{which:?}: {said:?}");
    }
}

#[test]
fn vuln_r3_a_null_of_the_image_that_is_no_null_is_not_bound_over_masked_paths() {
    // runc before 1.2.8 falls to it: ours alone is tried.
    {
        let which = Which::Ours;
        let mut bundle = Bundle::new(which, "head -c 100 /proc/keys");
        // No fresh /dev: the image's is used, and its null is a link to something writable.
        bundle.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        fs::write(bundle.root().join("etc/target"), "target of the image").unwrap();
        symlink("/etc/target", bundle.root().join("dev/null")).unwrap();
        let said = bundle.run();
        assert!(!said.out.contains("target of the image"), "{which:?}: {said:?}");
        assert_eq!(fs::read_to_string(bundle.root().join("etc/target")).unwrap(), "target of the image");
    }
}

#[test]
fn vuln_r5_proc_and_sys_of_the_image_that_are_links_are_not_followed() {
    for which in BOTH {
        for name in ["proc", "sys"] {
            let bundle = Bundle::new(which, "true");
            fs::remove_dir(bundle.root().join(name)).unwrap();
            symlink("/tmp", bundle.root().join(name)).unwrap();
            let said = bundle.run();
            // Refused, or mounted inside the image's root: the machine's own is never touched.
            if said.code == Some(0) {
                assert!(fs::read_dir(bundle.root().join("tmp")).unwrap().next().is_none());
            }
            assert_ne!(said.out, "escaped");
        }
        assert!(fs::metadata("/proc/self/status").is_ok());
    }
}

#[test]
fn vuln_r6_a_dev_of_the_image_that_is_a_link_does_not_lead_outside() {
    // runc before its fix of 2026 falls to it: ours alone is tried.
    {
        let which = Which::Ours;
        let outside = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(which, "true");
        fs::remove_dir(bundle.root().join("dev")).unwrap();
        symlink(outside.path(), bundle.root().join("dev")).unwrap();
        let _ = bundle.run();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{which:?}");
    }
}

#[test]
fn vuln_r7_targets_of_mounts_that_are_links_stay_inside_the_root() {
    for which in BOTH {
        let outside = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("file"), "data").unwrap();
        let mut bundle = Bundle::new(which, "true");
        symlink(outside.path(), bundle.root().join("volume")).unwrap();
        bundle.spec["mounts"].as_array_mut().unwrap().push(json!({"destination": "/volume/below",
            "type": "bind", "source": data.path(), "options": ["rbind", "rw"]}));
        let _ = bundle.run();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{which:?}: made outside");
        let up = format!("/{}etc/below", "../".repeat(12));
        bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["destination"] = json!(up);
        let _ = bundle.run();
        assert!(fs::symlink_metadata("/etc/below").is_err(), "{which:?}: made on the machine");
    }
}

#[test]
fn vuln_r7_a_working_directory_that_is_a_link_outside_is_one_inside() {
    for which in BOTH {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let mut bundle = Bundle::new(which, "ls");
        symlink(outside.path(), bundle.root().join("work")).unwrap();
        bundle.spec["process"]["cwd"] = json!("/work");
        let said = bundle.run();
        assert!(!said.out.contains("secret"), "{which:?}: {said:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{which:?}");
    }
}

#[test]
fn vuln_r9_a_process_has_the_capabilities_of_its_spec_and_none_to_inherit() {
    for which in BOTH {
        let said = Bundle::new(which, "grep Cap /proc/self/status").run();
        let mask = |name: &str| {
            let line = said.out.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        assert_eq!(mask("CapInh:"), 0, "{which:?}");
        assert_eq!(mask("CapAmb:"), 0, "{which:?}");
        assert_eq!(mask("CapEff:"), mask("CapBnd:"), "{which:?}");
        assert_eq!(mask("CapEff:").count_ones(), 6, "{which:?}");
    }
}

#[test]
fn vuln_r10_an_environment_of_any_size_arrives_whole() {
    for which in BOTH {
        // The lengths at which a 16-bit field of runc's bootstrap message overflowed.
        for bytes in [65_500, 65_536, 100_000] {
            let mut bundle = Bundle::new(which, "echo -n \"$LONG\" | wc -c");
            let value = format!("LONG={}", "x".repeat(bytes));
            bundle.spec["process"]["env"].as_array_mut().unwrap().push(json!(value));
            let said = bundle.run();
            assert_eq!(said.out.trim(), bytes.to_string(), "{which:?}: {}", said.err);
        }
    }
}

#[test]
fn vuln_r12_supplementary_groups_are_those_of_the_spec_and_no_others() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "id -G; cat /etc/forbidden");
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [1000, 5]});
        // Readable to everybody but its group: who drops the group would get in.
        let path = bundle.root().join("etc/forbidden");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o704)).unwrap();
        std::os::unix::fs::chown(&path, Some(0), Some(5)).unwrap();
        bundle.spec["process"]["capabilities"] = json!({});
        let said = bundle.run();
        assert_eq!(said.out.trim(), "1000 5", "{which:?}: {said:?}");
    }
}

#[test]
fn vuln_r17_every_process_is_in_the_containers_cgroup() {
    for which in BOTH {
        let bundle = Bundle::new(which, "sleep 1000");
        let pid = bundle.start();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        for controller in ["pids", "memory", "devices"] {
            let line = groups.lines().find(|line| line.contains(&format!(":{controller}:")));
            if let Some(line) = line {
                assert!(line.ends_with(&format!("/windlass-test/{}", bundle.id)), "{which:?}: {line}");
            }
        }
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
            "args": ["cat", "/proc/self/cgroup"]});
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let said = bundle.call(&["exec", "--process", "process.json", &bundle.id]);
        let pids = said.out.lines().find(|line| line.contains(":pids:") || line.starts_with("0::"));
        assert!(pids.is_some_and(|line| line.contains(&bundle.id)), "{which:?}: {said:?}");
    }
}

#[test]
fn vuln_r18_what_is_masked_cannot_be_read_and_what_is_read_only_not_written() {
    for which in BOTH {
        let script =
            "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo x > /proc/sysrq-trigger && echo written";
        let said = Bundle::new(which, script).run();
        assert_eq!(said.out, "0\n0\n", "{which:?}: {said:?}");
    }
}

#[test]
fn vuln_r19_devices_that_are_not_listed_cannot_be_opened() {
    for which in BOTH {
        // Loop 0 by its numbers: making the node is allowed by its capability, opening it by the cgroup alone.
        let script = "mknod /tmp/b b 7 0 2>/dev/null; head -c 1 /tmp/b && echo opened; head -c 1 /dev/null && echo null";
        let said = Bundle::new(which, script).run();
        assert_eq!(said.out, "null\n", "{which:?}: {said:?}");
    }
}

#[test]
fn vuln_r4_the_console_is_the_terminal_that_was_made_and_not_what_a_link_names() {
    for which in BOTH {
        let mut bundle = Bundle::new(which, "readlink /dev/console; tty; ls -l /dev/console");
        bundle.spec["process"]["terminal"] = json!(true);
        symlink("/etc/passwd", bundle.root().join("dev/console")).unwrap();
        let listener = storage_sys::socket::Listener::bind_stream(&bundle.path(""), "pty").unwrap();
        let create = bundle.call(&["create", "--bundle", ".", "--console-socket", "pty", &bundle.id]);
        assert_eq!(create.code, Some(0), "{which:?}: {create:?}");
        let received = listener.accept().unwrap().receive().unwrap().unwrap();
        let mut master = File::from(received.descriptors.into_iter().next().unwrap());
        assert_eq!(bundle.call(&["start", &bundle.id]).code, Some(0));
        let mut text = Vec::new();
        // It ends with EIO, when nobody has the terminal open any more.
        let _ = std::io::Read::read_to_end(&mut master, &mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("/dev/pts/0"), "{which:?}: {text:?}");
        assert!(!text.contains("passwd"), "{which:?}: {text:?}");
        assert!(text.contains("crw"), "{which:?}: {text:?}");
    }
}
