//! What detached containers print: kept, turned over, read back, followed.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::shell::Shell;

#[test]
fn what_was_printed_is_read_back_stream_by_stream() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("job", &[], "echo one; echo two >&2; printf three; exit 3")?;
    assert_eq!(shell.ended("job")?, 3);
    let logs = shell.engine.run(["logs", "job"])?;
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str(), logs.code), ("one\nthree", "two\n", Some(0)));
    let tail = shell.engine.run(["logs", "--tail", "1", "--timestamps", "job"])?;
    assert!(tail.stdout.starts_with("20") && tail.stdout.ends_with("Z three"), "{:?}", tail.stdout);
    assert_eq!(shell.engine.ok(["logs", "--since", "1h", "--until", "30m", "job"])?, "");
    shell.engine.ok(["rm", "job"])?;
    let gone = shell.engine.run(["logs", "job"])?;
    assert_eq!(gone.code, Some(1));
    shell.assert_nothing_left()
}

#[test]
fn following_ends_with_the_container_and_misses_nothing() -> Result<()> {
    let shell = Shell::new()?;
    let gate = shell.engine.scratch().join("gate");
    std::fs::create_dir(&gate)?;
    let volume = format!("{}:/gate", gate.display());
    let script = "echo begun; until test -e /gate/open; do sleep 0.05; done; seq 1 5000; echo last";
    shell.detached(
        "job",
        &["-v", &volume, "--log-opt", "max-size=64k", "--log-opt", "max-file=20"],
        script,
    )?;
    let mut follow = shell.engine.command(["logs", "-f", "job"])?.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(follow.stdout.take().context("piped")?).lines();
    assert_eq!(lines.next().context("a line")??, "begun");
    std::fs::write(gate.join("open"), "")?;
    let rest: Vec<String> = lines.collect::<Result<_, _>>()?;
    assert_eq!(follow.wait()?.code(), Some(0));
    assert_eq!(rest.len(), 5001);
    assert_eq!((rest[0].as_str(), rest[5000].as_str()), ("1", "last"));
    shell.engine.ok(["rm", "job"])?;
    shell.assert_nothing_left()
}

#[test]
fn a_loud_container_fills_no_more_than_it_may() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("loud", &["--log-opt", "max-size=16k", "--log-opt", "max-file=2"], "seq 1 20000")?;
    assert_eq!(shell.ended("loud")?, 0);
    let printed = shell.engine.ok(["logs", "loud"])?;
    assert!(printed.ends_with("\n20000\n"), "the end is kept");
    let first: u32 = printed.lines().next().context("a line")?.parse()?;
    assert!(first > 1, "the beginning is not");
    let bundle = shell.engine.state().join("containers/default/loud");
    let bytes: u64 = std::fs::read_dir(bundle)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("output.log"))
        .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
        .sum();
    assert!(bytes <= 32 * 1024, "{bytes}");
    shell.engine.ok(["rm", "loud"])?;
    shell.assert_nothing_left()
}

#[test]
fn a_terminals_output_is_kept_and_none_is_kept_nowhere() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("screen", &["-t"], "echo on a terminal")?;
    assert_eq!(shell.ended("screen")?, 0);
    assert_eq!(shell.engine.ok(["logs", "screen"])?, "on a terminal\r\n");
    shell.detached("silent", &["--log-driver", "none"], "echo lost")?;
    assert_eq!(shell.ended("silent")?, 0);
    let logs = shell.engine.run(["logs", "silent"])?;
    assert_eq!(logs.code, Some(1));
    assert!(logs.stderr.contains("kept nowhere"), "{}", logs.stderr);
    shell.engine.ok(["rm", "screen", "silent"])?;
    shell.assert_nothing_left()
}
