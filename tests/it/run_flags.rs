//! The flags of `windlass run`: each does what it says, and what makes no sense is refused and leaves nothing.

use anyhow::Result;
use tests::wait_until;

use crate::shell::{PATIENCE, Shell};

/// Options, script, and what it prints.
type Case<'a> = (&'a [&'a str], &'a str, &'a str);

fn all(shell: &Shell, cases: &[Case<'_>]) -> Result<()> {
    for (options, script, expected) in cases {
        let end = shell.script(options, script)?;
        assert_eq!(
            (end.stdout.as_str(), end.code),
            (*expected, Some(0)),
            "{options:?} {script}: {}",
            end.stderr
        );
    }
    shell.assert_nothing_left()
}

#[test]
fn capabilities_devices_and_privileges_are_those_asked_for() -> Result<()> {
    let shell = Shell::new()?;
    let capabilities = "grep CapEff /proc/self/status | awk '{print $2}'";
    let privileges = "grep NoNewPrivs /proc/self/status | awk '{print $2}'";
    all(
        &shell,
        &[
            (&["--cap-drop", "ALL"], capabilities, "0000000000000000\n"),
            (&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], capabilities, "0000000000001000\n"),
            (
                &["--cap-drop", "all", "--cap-add", "cap_net_bind_service,chown"],
                capabilities,
                "0000000000000401\n",
            ),
            (&[], privileges, "1\n"),
            (&["--allow-new-privs"], privileges, "0\n"),
            (&["--security-opt", "no-new-privileges=false"], privileges, "0\n"),
            (
                &["--device", "/dev/null:/dev/nothing"],
                "echo x > /dev/nothing && ls /dev/nothing",
                "/dev/nothing\n",
            ),
            (
                &["--security-opt", "seccomp=unconfined"],
                "grep Seccomp: /proc/self/status | awk '{print $2}'",
                "0\n",
            ),
            (&["--group-add", "audio", "--user", "12:34"], "id -G", "34 29\n"),
            (
                &["--sysctl", "net.ipv4.ip_unprivileged_port_start=7"],
                "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
                "7\n",
            ),
        ],
    )
}

#[test]
fn limits_are_those_asked_for() -> Result<()> {
    let shell = Shell::new()?;
    all(
        &shell,
        &[
            (&["--ulimit", "nofile=123:456"], "ulimit -n; ulimit -Hn", "123\n456\n"),
            (&["--oom-score-adj", "250"], "cat /proc/self/oom_score_adj", "250\n"),
            (&["--shm-size", "1m"], "busybox df -k /dev/shm | awk 'END {print $2}'", "1024\n"),
            (&["--tmpfs", "/scratch:size=2m"], "busybox df -k /scratch | awk 'END {print $2}'", "2048\n"),
        ],
    )?;
    // Seen from inside, where the machine shows cgroups there; else by what the kernel does.
    let forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>&1; true";
    let end = shell.script(&["--pids-limit", "4"], forks)?;
    assert!(format!("{}{}", end.stdout, end.stderr).contains("fork"), "{}{}", end.stdout, end.stderr);
    let eater = shell.script(
        &["--memory", "16m", "--memory-swap", "16m"],
        "awk 'BEGIN { s = \"x\"; while (1) s = s s }'",
    )?;
    assert_eq!(eater.code, Some(137), "{}", eater.stderr);
    shell.assert_nothing_left()
}

#[test]
fn names_files_and_directories_are_those_asked_for() -> Result<()> {
    let shell = Shell::new()?;
    let scratch = shell.engine.scratch();
    let file = scratch.join("env");
    std::fs::write(&file, "# a comment\nFROM_FILE=yes\n")?;
    let volume = scratch.join("volume");
    std::fs::create_dir(&volume)?;
    std::fs::write(volume.join("in"), "shared\n")?;
    let bind = format!("{}:/data:ro", volume.display());
    all(
        &shell,
        &[
            (&["--env-file", &file.to_string_lossy()], "echo $FROM_FILE", "yes\n"),
            (&["--hostname", "box"], "cat /proc/sys/kernel/hostname", "box\n"),
            (
                &["-v", &bind],
                "cat /data/in; echo x > /data/in 2>/dev/null || echo refused",
                "shared\nrefused\n",
            ),
            (&["--read-only"], "echo x > /new 2>/dev/null || echo refused", "refused\n"),
            (&["--workdir", "/home/web"], "pwd", "/home/web\n"),
            (&["--pid", "host"], "test $$ -ne 1 && echo ours", "ours\n"),
        ],
    )
}

#[test]
fn a_directory_can_be_the_root_and_stays_as_it_is() -> Result<()> {
    let shell = Shell::new()?;
    let root = shell.engine.scratch().join("tree");
    std::fs::create_dir_all(root.join("bin"))?;
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| std::path::Path::new(path).exists());
    std::fs::copy(busybox.expect("the image has it from there"), root.join("bin/busybox"))?;
    let path = root.to_string_lossy().into_owned();
    for words in [
        vec!["run", "--rm", "--rootfs", &path, "/bin/busybox", "ls", "/bin"],
        vec![
            "run",
            "--rm",
            &*Box::leak(format!("--rootfs={path}").into_boxed_str()),
            "/bin/busybox",
            "ls",
            "/bin",
        ],
    ] {
        let end = shell.engine.run(words)?;
        assert_eq!((end.stdout.as_str(), end.code), ("busybox\n", Some(0)), "{}", end.stderr);
    }
    assert!(root.join("bin/busybox").exists());
    shell.assert_nothing_left()
}

#[test]
fn with_init_orphans_are_reaped_and_codes_are_the_programs() -> Result<()> {
    let shell = Shell::new()?;
    let orphan = "(sleep 0.01 & exec true); sleep 0.2; ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm";
    let end = shell.script(&["--init"], orphan)?;
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    assert!(end.stdout.ends_with("windlass-init\n"), "{}", end.stdout);
    assert_eq!(shell.script(&["--init"], "exit 42")?.code, Some(42));
    assert_eq!(shell.script(&["--init"], "kill -9 $$")?.code, Some(137));
    assert_eq!(shell.run(&["--init"], &["no-such-program"])?.code, Some(127));
    shell.assert_nothing_left()
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_leaves_nothing() -> Result<()> {
    let shell = Shell::new()?;
    for (options, part) in [
        (&["--cap-add", "FLY"][..], "FLY"),
        (&["--device", "/dev/no-such-device"], "/dev/no-such-device"),
        (&["--device", "/etc/passwd"], "not a device"),
        (&["--security-opt", "frobnicate"], "frobnicate"),
        (&["--security-opt", "seccomp=/no/such/profile"], "/no/such/profile"),
        (&["--ulimit", "wings=3"], "wings"),
        (&["--memory", "1"], "6 MiB"),
        (&["--user", "nobody-here"], "nobody-here"),
        (&["--group-add", "nothing"], "nothing"),
        (&["-v", "/no/such/path:/x"], "/no/such/path"),
        (&["--rootfs=/no/such/root"], "/no/such/root"),
        (&["--net", "no-such-network"], "no-such-network"),
        (&["--net", "container:nobody"], "nobody"),
        (&["--pid", "container:nobody"], "nobody"),
        (&["--ipc", "sometimes"], "sometimes"),
        (&["--log-driver", "carrier-pigeon"], "carrier-pigeon"),
        (&["--log-opt", "max-size=tiny"], "tiny"),
        (&["--runtime", "no-such-runtime"], "no-such-runtime"),
        (&["--cpuset-cpus", "4095"], ""),
    ] {
        let end = shell.run(options, &["true"])?;
        assert_eq!(end.code, Some(125), "{options:?}: {}", end.stderr);
        assert!(end.stderr.contains(part), "{options:?}: {}", end.stderr);
    }
    for options in [
        &["--memory", "lots"][..],
        &["--cpus", "0"],
        &["-p", "99999:1"],
        &["--restart", "never"],
        &["--dns", "x"],
    ] {
        assert_eq!(shell.run(options, &["true"])?.code, Some(2), "{options:?}");
    }
    shell.assert_nothing_left()
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_first_stays() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("web", &[], "sleep 1000")?;
    let end = shell.run(&["--name", "web"], &["true"])?;
    assert_eq!(end.code, Some(125));
    assert!(end.stderr.contains("web"), "{}", end.stderr);
    assert_eq!(shell.container("web")?.expect("it is there")["status"], "running");
    assert_eq!(shell.engine.ok(["rm", "-f", "web"])?, "web\n");
    wait_until("it is gone", PATIENCE, || shell.container("web").is_ok_and(|found| found.is_none()))?;
    shell.assert_nothing_left()
}
