//! The same archive read by others: GNU tar and, where installed, Python's `tarfile` and Go's `archive/tar`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use storage_layer::Limits;
use storage_layer::tar::{EntryKind, Reader};

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
    let mut reader = Reader::new(tar, &Limits::default());
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

/// Lists every archive of a directory, or says that it is refused.
const GO: &str = r#"package main
import ("archive/tar"; "fmt"; "io"; "os"; "path/filepath")
func main() {
	paths, _ := filepath.Glob(os.Args[1] + "/*.tar")
	for _, path := range paths {
		file, _ := os.Open(path)
		lines, reader := "", tar.NewReader(file)
		for {
			h, err := reader.Next()
			if err == io.EOF { break }
			if err == nil && h.Typeflag == tar.TypeReg { _, err = io.Copy(io.Discard, reader) }
			if err != nil { lines = "refused\n"; break }
			if h.Typeflag == tar.TypeXGlobalHeader { continue }
			if h.Typeflag != tar.TypeLink && h.Typeflag != tar.TypeSymlink { h.Linkname = "" }
			lines += fmt.Sprintf("%q %q %o %d:%d %d\n", h.Name, h.Linkname, h.Mode & 07777, h.Uid, h.Gid, h.ModTime.UnixNano())
		}
		os.WriteFile(path + ".go", []byte(lines), 0644)
	}
}"#;

/// As [`GO`] prints it, of names in ASCII.
fn lines(tar: &[u8]) -> Option<String> {
    use std::fmt::Write as _;
    let mut reader = Reader::new(tar, &Limits::default());
    let mut lines = String::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let link = match &entry.kind {
            EntryKind::HardLink(target) | EntryKind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let time = i128::from(entry.mtime.seconds) * 1_000_000_000 + i128::from(entry.mtime.nanoseconds);
        let (name, link) = (String::from_utf8(entry.name).ok()?, String::from_utf8(link).ok()?);
        let plain = |text: &str| text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
        if !plain(&name) || !plain(&link) || i64::try_from(time).is_err() {
            return None;
        }
        writeln!(lines, "{name:?} {link:?} {:o} {}:{} {time}", entry.mode, entry.uid, entry.gid).unwrap();
    }
    reader.drain().ok()?;
    Some(lines)
}

/// The corpus with bytes of its headers changed and their checksums made right again.
fn mutants() -> Vec<Vec<u8>> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let choices = b"\0 /.07L K x12356gS\x80\xff=1\n";
    let mut made = Vec::new();
    for (_, tar) in corpus() {
        made.push(tar.clone());
        for _ in 0..500 {
            let mut tar = tar.clone();
            for _ in 0..=next(3) {
                let at = next(tar.len());
                tar[at] = choices[next(choices.len())];
            }
            for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                let mut header = Header([0; 512]);
                header.0.copy_from_slice(block);
                block.copy_from_slice(&header.sealed());
            }
            made.push(tar);
        }
    }
    made
}

#[test]
fn whatever_we_accept_go_reads_in_the_same_way() {
    let go = ["go", "/usr/local/go/bin/go"]
        .into_iter()
        .find(|go| Command::new(go).arg("version").output().is_ok());
    let Some(go) = go else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("list.go"), GO).unwrap();
    let mutants = mutants();
    for (at, tar) in mutants.iter().enumerate() {
        std::fs::write(path.join(format!("{at}.tar")), tar).unwrap();
    }
    let run =
        Command::new(go).args(["run", "list.go", "."]).current_dir(path).env("GO111MODULE", "off").output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let (mut accepted, mut different) = (0, Vec::new());
    for (at, tar) in mutants.iter().enumerate() {
        let Some(ours) = lines(tar) else { continue };
        let theirs = std::fs::read_to_string(path.join(format!("{at}.tar.go"))).unwrap();
        if ours != theirs {
            let shown: Vec<String> = tar
                .chunks(512)
                .map(|block| {
                    let shown: Vec<u8> = block.iter().copied().filter(|byte| *byte != 0).collect();
                    shown.escape_ascii().to_string()
                })
                .collect();
            different.push(format!("archive {at}: ours {ours} theirs {theirs} {shown:#?}"));
        }
        accepted += 1;
    }
    assert!(
        different.is_empty(),
        "{} of {accepted}, first {}",
        different.len(),
        different[..different.len().min(6)].join("\n")
    );
    assert!(accepted > 1000, "{accepted}");
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
