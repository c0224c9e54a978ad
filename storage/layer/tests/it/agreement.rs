//! The same archive read by others: GNU tar and, where installed, Python's `tarfile`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use storage_layer::Limits;
use storage_layer::tar::TarReader;

use crate::support::{Header, Tar, Yard};

fn here(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Archives that are legal and could tempt a reader.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let inner = Tar::new().file("smuggled", b"evil").end();
    let size = inner.len().to_string();
    let long = "n".repeat(180);
    vec![
        ("plain", Tar::new().dir("d", 0o755).file("d/f", b"x").symlink("l", "d/f").link("h", "d/f").end()),
        ("nested by PAX size", {
            let header = Header::new("inner", b'0').size(0);
            Tar::new().pax(&[("size", size.as_bytes())]).entry(header, &inner).file("after", b"").end()
        }),
        (
            "PAX name",
            Tar::new().pax(&[("path", long.as_bytes())]).file("short", b"x").file("next", b"").end(),
        ),
        (
            "GNU name",
            Tar::new().gnu_long(b'L', long.as_bytes()).entry(Header::new("s", b'0').gnu(), b"").end(),
        ),
        (
            "hard link with a size",
            Tar::new().file("f", b"x").entry(Header::new("h", b'1').link("f").size(9), b"").end(),
        ),
        ("comment for all", Tar::new().extended(b'g', &[("comment", b"c")]).file("f", b"").end()),
        ("prefix", Tar::new().entry(Header::new("f", b'0').set(345, b"some/where"), b"").end()),
        ("no end", Tar::new().file("f", b"x").0),
        ("after the end", [Tar::new().file("f", b"x").end(), Tar::new().file("g", b"").end()].concat()),
    ]
}

fn ours(tar: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(tar, &Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap().trim_end_matches('/').to_owned());
    }
    names
}

fn theirs(mut command: Command, tar: &[u8]) -> Vec<String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(tar).unwrap();
    drop(input);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    output.lines().map(|line| line.trim_end_matches('/').to_owned()).collect()
}

#[test]
fn gnu_tar_lists_the_same_entries() {
    for (what, tar) in corpus() {
        let mut command = Command::new("tar");
        command.args(["--list", "--file=-", "--quoting-style=literal"]);
        assert_eq!(ours(&tar), theirs(command, &tar), "{what}");
    }
}

#[test]
fn python_lists_the_same_entries() {
    if !here("python3") {
        return;
    }
    let script = "import sys,tarfile,io\n\
                  for m in tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())): print(m.name)";
    for (what, tar) in corpus() {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        assert_eq!(ours(&tar), theirs(command, &tar), "{what}");
    }
}

/// Names, modes, owners, times, targets and contents, as `find` and `sha256sum` see them.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let script = "find . -mindepth 1 -printf '%p\\t%y %m %U:%G %T@ %s %n %l\\n' | sed 's/d \\(.*\\) [0-9]* \\([0-9]*\\) $/d \\1 \\2/' | sort; \
                  find . -type f -print0 | sort -z | xargs -0 -r sha256sum | sed 's/\\([^ ]*\\)  \\(.*\\)/\\2 hash\\t\\1/'";
    let output = Command::new("sh").args(["-c", script]).current_dir(root).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn a_real_tree_comes_out_as_gnu_tar_makes_it() {
    // What the machine has, with hard links, links, devices and attributes added.
    let source = tempfile::tempdir().unwrap();
    let script = "cp -a /etc etc 2>/dev/null; mkdir -p bin lib; cp -a /usr/bin/c* bin/ 2>/dev/null; \
                  ln bin/cat bin/hard; ln -s /nowhere bin/dangling; mknod null c 1 3; mkfifo pipe; \
                  chmod 4755 bin/cat; touch -d '2001-02-03 04:05:06.789' bin/cat; chown 12:34 pipe; \
                  truncate -s 5M sparse; printf end >> sparse; mkdir -m 2771 setgid; : > setgid/inside; \
                  mkdir -p \"$(printf 'very-long-name-%.0s' 1 2 3 4 5 6 7 8)/again-and-again-and-again\"; true";
    assert!(Command::new("sh").args(["-c", script]).current_dir(source.path()).status().unwrap().success());
    for format in ["--format=pax", "--format=gnu"] {
        for sparse in ["--sparse", "--no-xattrs"] {
            let tar = Command::new("tar")
                .args(["--create", "--file=-", "--numeric-owner", format, sparse, "."])
                .current_dir(source.path())
                .output()
                .unwrap();
            assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
            let reference = tempfile::tempdir().unwrap();
            let mut command = Command::new("tar");
            command.args(["--extract", "--file=-", "--numeric-owner", "--same-permissions"]);
            command.current_dir(reference.path());
            theirs(command, &tar.stdout);
            let yard = Yard::new();
            let unpacked = yard.unpack(&tar.stdout).unwrap();
            let (ours, theirs) = (listing(&yard.root()), listing(reference.path()));
            assert!(ours.len() > 100, "{}", ours.len());
            assert_eq!(unpacked.implied, []);
            for (name, wanted) in &theirs {
                assert_eq!(ours.get(name), Some(wanted), "{format} {sparse} {name}");
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
}
