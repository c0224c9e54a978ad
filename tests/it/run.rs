//! `windlass run`: the process, its status, its streams, its terminal.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tests::{Engine, Finished, ImageBuilder, Registry, finish, signal, wait_until, windlass};

/// Registry, engine and an image with a shell in it.
struct Shell {
    engine: Engine,
    image: String,
    _registry: Registry,
}

impl Shell {
    fn new() -> Result<Self> {
        Self::with(ImageBuilder::default())
    }

    fn with(builder: ImageBuilder) -> Result<Self> {
        let registry = Registry::start()?;
        let image = registry.push(&builder.busybox()?.build()?, "shell", "1")?;
        Ok(Self { engine: Engine::new()?, image, _registry: registry })
    }

    fn arguments<'a>(&'a self, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--rm"], options, &[self.image.as_str()], command].concat()
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Result<Finished> {
        self.engine.run(self.arguments(options, command))
    }

    /// Nothing of a container is left: no record, no process, no state, no snapshot but the image's.
    fn assert_nothing_left(&self) -> Result<()> {
        let containers = self.engine.ok(["--format", "json", "containers", "ls"])?;
        assert!(!containers.contains(&self.image), "a container is left: {containers}");
        let shims = || self.engine.processes().len() <= 1;
        wait_until("every shim has ended", Duration::from_secs(10), shims)?;
        assert!(Engine::mounts_below(self.engine.scratch()).is_empty(), "mounts are left");
        Ok(())
    }
}

#[test]
fn exit_codes_of_the_process_are_those_of_the_command() -> Result<()> {
    let shell = Shell::new()?;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        // A signal sent from inside does nothing to process 1; its child's death is told by the shell.
        ("sh -c 'kill -TERM $$'; exit $?", 143),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        let end = shell.run(&[], &["sh", "-c", script])?;
        assert_eq!(end.code, Some(code), "{script}: {}", end.stderr);
    }
    let missing = shell.run(&[], &["no-such-program"])?;
    assert_eq!(missing.code, Some(127), "{}", missing.stderr);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    let directory = shell.run(&[], &["/etc"])?;
    assert_eq!(directory.code, Some(126), "{}", directory.stderr);
    shell.assert_nothing_left()
}

#[test]
fn output_and_errors_come_apart_and_input_goes_in() -> Result<()> {
    let shell = Shell::new()?;
    let end = shell.run(&[], &["sh", "-c", "echo out; echo err >&2"])?;
    assert_eq!((end.stdout.as_str(), end.code), ("out\n", Some(0)));
    assert!(end.stderr.lines().any(|line| line == "err"), "{:?}", end.stderr);

    let mut command = shell.engine.command(shell.arguments(&[], &["wc", "-c"]))?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(&vec![b'x'; 300_000])?;
    let output = child.wait_with_output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "300000");

    let long = shell.run(&[], &["seq", "1", "100000"])?;
    assert_eq!(long.stdout.lines().count(), 100_000);
    shell.assert_nothing_left()
}

#[test]
fn environment_directory_user_and_groups_are_those_asked_for() -> Result<()> {
    let shell = Shell::with(ImageBuilder::default().process(json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image"], "WorkingDir": "/home/web", "User": "web"})))?;
    let cases: [(&[&str], &[&str], &str); 8] = [
        (&[], &["sh", "-c", "id -u; id -g; pwd; echo $HOME"], "1000\n1000\n/home/web\n/home/web\n"),
        (&[], &["sh", "-c", "id -G"], "1000 29\n"),
        (&["--user", "0"], &["id", "-u"], "0\n"),
        (&["--user", "12:34"], &["sh", "-c", "id -u; id -g"], "12\n34\n"),
        (&["--user", "root"], &["sh", "-c", "echo $HOME"], "/root\n"),
        (&["--cwd", "/tmp"], &["pwd"], "/tmp\n"),
        (
            &["--env", "BOTH=caller", "--env", "NEW=a b"],
            &["sh", "-c", "echo $FROM_IMAGE $BOTH \"$NEW\""],
            "yes caller a b\n",
        ),
        (&["--cwd", "/made/for/this"], &["pwd"], "/made/for/this\n"),
    ];
    for (options, command, expected) in cases {
        let end = shell.run(options, command)?;
        assert_eq!(end.stdout, expected, "{options:?} {command:?}: {}", end.stderr);
    }
    let nobody = shell.run(&["--user", "nobody-here"], &["id"])?;
    assert_ne!(nobody.code, Some(0));
    assert!(nobody.stderr.contains("nobody-here"), "{}", nobody.stderr);
    shell.assert_nothing_left()
}

#[test]
fn the_images_entrypoint_and_command_are_used_as_docker_uses_them() -> Result<()> {
    let shell = Shell::with(
        ImageBuilder::default()
            .process(json!({"Env": ["PATH=/bin"], "Entrypoint": ["echo", "entry"], "Cmd": ["default"]})),
    )?;
    assert_eq!(shell.run(&[], &[])?.stdout, "entry default\n");
    assert_eq!(shell.run(&[], &["given"])?.stdout, "entry given\n");
    shell.assert_nothing_left()
}

#[test]
fn a_terminal_is_a_terminal_with_the_callers_size() -> Result<()> {
    let shell = Shell::new()?;
    let inner = shell.arguments(
        &["-t"],
        &["sh", "-c", "tty && stty size && test -t 0 && test -t 1 && test -t 2 && exit 7"],
    );
    let end = finish(
        on_terminal(&shell.engine, &inner, "stty rows 33 cols 101")?.stdin(Stdio::null()),
        Duration::from_secs(60),
    )?;
    assert!(end.stdout.contains("/dev/pts/") || end.stdout.contains("/dev/console"), "{}", end.stdout);
    assert!(end.stdout.contains("33 101"), "{}", end.stdout);
    assert_eq!(end.code, Some(7), "{}{}", end.stdout, end.stderr);
    shell.assert_nothing_left()
}

#[test]
fn what_is_typed_reaches_the_process_and_ctrl_c_interrupts_it() -> Result<()> {
    let shell = Shell::new()?;
    let script = "trap 'echo interrupted; exit 9' INT; echo waiting; read line; echo got $line; while :; do sleep 0.1; done";
    let inner = shell.arguments(&["-t"], &["sh", "-c", script]);
    let mut child =
        on_terminal(&shell.engine, &inner, "true")?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut keyboard = child.stdin.take().context("piped")?;
    let mut screen = Screen::new(child.stdout.take().context("piped")?);
    screen.wait_for("waiting")?;
    keyboard.write_all(b"hello\r")?;
    screen.wait_for("got hello")?;
    keyboard.write_all(b"\x03")?;
    screen.wait_for("interrupted")?;
    assert_eq!(child.wait()?.code(), Some(9));
    shell.assert_nothing_left()
}

#[test]
fn without_a_terminal_ctrl_c_reaches_the_process_too() -> Result<()> {
    let shell = Shell::new()?;
    shell.engine.ok(["pull", "--quiet", &shell.image])?;
    for (name, script, code) in [
        ("INT", "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done", 5),
        ("TERM", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done", 6),
    ] {
        let mut command = shell.engine.command(shell.arguments(&[], &["sh", "-c", script]))?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        Screen::new(child.stdout.take().context("piped")?).wait_for("ready")?;
        signal(&child, name)?;
        assert_eq!(child.wait()?.code(), Some(code), "SIG{name}");
    }
    shell.assert_nothing_left()
}

#[test]
fn a_detached_container_outlives_the_daemon_and_is_found_again() -> Result<()> {
    let mut shell = Shell::new()?;
    shell.engine.start_daemon()?;
    let (image, engine) = (shell.image.clone(), &mut shell.engine);
    engine.ok(["run", "-d", "--name", "lasting", &image, "sleep", "1000"])?;
    let status = |engine: &Engine| engine.ok(["tasks", "ls"]);
    assert!(status(engine)?.contains("running"), "{}", status(engine)?);
    engine.kill_daemon()?;
    engine.start_daemon()?;
    let line = status(engine)?;
    assert!(line.contains("lasting") && line.contains("running"), "{line}");
    engine.ok(["tasks", "kill", "--signal", "KILL", "lasting"])?;
    wait_until("the container has ended", Duration::from_secs(10), || {
        status(engine).is_ok_and(|line| !line.contains("running"))
    })?;
    assert!(engine.ok(["containers", "ls"])?.contains("lasting"), "without --rm it stays");
    engine.ok(["containers", "rm", "lasting"])?;
    assert!(!engine.ok(["containers", "ls"])?.contains("lasting"));
    shell.assert_nothing_left()
}

#[test]
fn a_mount_is_seen_inside_and_a_container_cannot_change_its_image() -> Result<()> {
    let shell = Shell::new()?;
    let shared = shell.engine.scratch().join("shared");
    std::fs::create_dir(&shared)?;
    std::fs::write(shared.join("in"), "from outside\n")?;
    let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
    let end = shell.run(
        &["--mount", &mount],
        &["sh", "-c", "cat /shared/in; echo inside > /shared/out; echo x > /etc/new"],
    )?;
    assert_eq!((end.stdout.as_str(), end.code), ("from outside\n", Some(0)), "{}", end.stderr);
    assert_eq!(std::fs::read_to_string(shared.join("out"))?, "inside\n");
    assert_eq!(
        shell.run(&[], &["test", "-e", "/etc/new"])?.code,
        Some(1),
        "a second container saw the first one's file"
    );
    shell.assert_nothing_left()
}

#[test]
fn a_command_prints_and_ends_as_it_does_under_ctr_run_of_containerd() -> Result<()> {
    let shell = Shell::new()?;
    let directory = tempfile::Builder::new().prefix("windlass-containerd.").tempdir()?;
    let containerd = tests::Containerd::start(directory.path())?;
    containerd.ctr("ctr", &["images", "pull", "--plain-http", &shell.image])?;
    let scripts = [
        "echo hello; exit 42",
        "exit 0",
        "kill -9 $$",
        "env | grep -v HOSTNAME | grep -v ^HOME= | grep -v ^SHLVL",
        "id; pwd; umask",
        "grep -E '^(Cap|NoNewPrivs)' /proc/self/status",
        "ls /proc/acpi /proc/scsi 2>&1; cat /proc/kcore | wc -c; ls -d /sys/firmware/*",
        "echo x > /proc/sys/kernel/hostname; echo $?",
        "ls -l /dev | awk '{print $1, $NF}'; ls /dev/shm /dev/mqueue",
    ];
    for (number, script) in scripts.iter().enumerate() {
        let ours = shell.run(&[], &["sh", "-c", script])?;
        let id = format!("compared{number}");
        let theirs = containerd.finish("ctr", &["run", "--rm", &shell.image, &id, "sh", "-c", script])?;
        assert_eq!((ours.code, &ours.stdout), (theirs.code, &theirs.stdout), "{script}\n{}", ours.stderr);
    }
    shell.assert_nothing_left()
}

/// The command on a terminal of its own, which `prepare` sets up first: util-linux's `script` makes it.
fn on_terminal(engine: &Engine, arguments: &[&str], prepare: &str) -> Result<Command> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let own = [
        windlass()?.display().to_string(),
        "--root".to_owned(),
        engine.root().display().to_string(),
        "--state".to_owned(),
        engine.state().display().to_string(),
    ];
    let words =
        own.iter().map(String::as_str).chain(arguments.iter().copied()).map(quoted).collect::<Vec<_>>();
    let mut command = Command::new("script");
    command.args([
        "--quiet",
        "--return",
        "--command",
        &format!("{prepare}; exec {}", words.join(" ")),
        "/dev/null",
    ]);
    command.env("TERM", "xterm").env("SHELL", "/bin/sh");
    Ok(command)
}

/// What a program prints, read as it comes.
struct Screen<R> {
    output: R,
    seen: String,
}

impl<R: Read> Screen<R> {
    fn new(output: R) -> Self {
        Self { output, seen: String::new() }
    }

    fn wait_for(&mut self, text: &str) -> Result<()> {
        let mut buffer = [0; 1024];
        while !self.seen.contains(text) {
            let count = self.output.read(&mut buffer)?;
            anyhow::ensure!(count > 0, "it ended before {text:?}; it printed {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(())
    }
}
