//! Every subcommand of Debian's `ctr` for images, content, snapshots, leases, namespaces, events and plug-ins, run on
//! containerd and on us: the same exit code, the same output, the same class of error.
//!
//! What may differ is taken out before comparing: times, ages, random names, directories, the order of labels (Go's maps
//! have none) and of progress lines, and the words of an error before its class. Where we differ on purpose, the step says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use storage_model::Compression::Gzip;
use tests::{
    Containerd, Engine, Entry, Finished, Image, ImageBuilder, Registry, finish, require_root, wait_until,
};

/// Longest that one command may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Containerd or us, with a directory of its own.
struct Side {
    socket: PathBuf,
    directory: PathBuf,
}

impl Side {
    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(arguments).env("EDITOR", "sed -i s/hello/world/");
        command.stdin(Stdio::null());
        command
    }

    /// Runs one step. `@` stands for this side's directory, `<file` at the end for standard input.
    fn run(&self, step: &str) -> Result<Finished> {
        let step = step.replace('@', &self.directory.to_string_lossy());
        let mut words: Vec<String> = step.split(' ').map(str::to_owned).collect();
        let input = words.pop_if(|word| word.starts_with('<'));
        let mut command = self.command(&words);
        if let Some(file) = input {
            command.stdin(std::fs::File::open(self.directory.join(&file[1..]))?);
        }
        finish(&mut command, DEADLINE).with_context(|| step)
    }
}

/// What of a command's end both sides must have in common.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    lines: BTreeSet<String>,
    /// Class of the error, as containerd's clients tell them apart.
    class: &'static str,
}

const CLASSES: [&str; 6] = [
    "not found",
    "already exists",
    "invalid argument",
    "failed precondition",
    "unavailable",
    "not implemented",
];

fn outcome(side: &Side, end: &Finished) -> Outcome {
    let last = end.stderr.lines().last().unwrap_or_default().trim();
    let class = CLASSES.iter().find(|class| last.ends_with(*class)).copied().unwrap_or_default();
    let lines = end.stdout.lines().map(|line| plain(side, line)).filter(|line| !line.is_empty()).collect();
    Outcome { code: end.code, lines, class }
}

/// A line without what cannot be the same.
fn plain(side: &Side, line: &str) -> String {
    let line = line.replace(&*side.directory.to_string_lossy(), "@");
    let mut words: Vec<String> = Vec::new();
    // Progress: the last state of a line counts, bars and rates do not.
    if line.contains("elapsed:") || line.contains("\u{1b}[") || line.contains("|-") || line.contains("|+") {
        return String::new();
    }
    for word in line.split_whitespace() {
        let word = word.trim_end_matches(',');
        let mut parts: Vec<&str> = word.split(',').filter(|part| part.contains('=')).collect();
        if parts.len() > 1 {
            parts.sort_unstable();
            words.push(parts.join(","));
        } else {
            words.push(moment(word).to_owned());
        }
    }
    without_ages(&words.join(" "))
}

/// A time or a duration becomes a word.
fn moment(word: &str) -> &str {
    let dated = word.len() >= 19 && word.as_bytes()[4] == b'-' && word.contains(':') && word.contains('T');
    let bare = word.trim_matches('"');
    let dated =
        dated || (bare.len() >= 19 && bare.starts_with("20") && bare.contains('T') && bare.ends_with('Z'));
    let lasting =
        word.ends_with('s') && word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
    if dated || lasting { "TIME" } else { word }
}

fn without_ages(line: &str) -> String {
    let mut line = line.to_owned();
    for age in ["Less than a second", "About a minute"] {
        line = line.replace(age, "AGE");
    }
    let mut words: Vec<&str> = line.split(' ').collect();
    while let Some(at) = words.iter().position(|word| matches!(*word, "second" | "seconds" | "minutes")) {
        if at == 0 || words[at - 1].parse::<u32>().is_err() {
            break;
        }
        words.splice(at - 1..=at, ["AGE"]);
    }
    words.join(" ")
}

/// A shell-less image of two layers; the second takes something away.
fn image() -> Result<Image> {
    let lower =
        [Entry::directory("data/"), Entry::file("data/kept", "kept\n"), Entry::file("data/gone", "gone\n")];
    let upper = [Entry::file("data/.wh.gone", ""), Entry::file("data/new", "new\n")];
    ImageBuilder::default().layer(lower, Gzip).layer(upper, Gzip).build()
}

/// Both sides, and what the steps need.
struct Both {
    theirs: Side,
    ours: Side,
    registry: Registry,
    // They end after the last command.
    _containerd: Containerd,
    _engine: Engine,
}

impl Both {
    fn start() -> Result<Self> {
        require_root()?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        let directory = engine.scratch().join("containerd");
        std::fs::create_dir(&directory)?;
        let containerd = Containerd::start(&directory)?;
        let side = |name: &str, socket: PathBuf| -> Result<Side> {
            let directory = engine.scratch().join(name);
            std::fs::create_dir_all(directory.join("mnt"))?;
            std::fs::write(directory.join("blob"), "hello\n")?;
            std::fs::write(directory.join("bad.tar"), "garbage\n")?;
            let layout = directory.join("layout");
            image()?.write_layout(&layout)?;
            let mut tar = Command::new("tar");
            tar.arg("-cf").arg(directory.join("image.tar")).arg("-C").arg(&layout).arg(".");
            finish(&mut tar, DEADLINE)?.success()?;
            Ok(Side { socket, directory })
        };
        let theirs = side("theirs", directory.join("state/containerd.sock"))?;
        let ours = side("ours", engine.socket())?;
        let registry = Registry::start()?;
        registry.push(&image()?, "a/b", "1")?;
        Ok(Self { theirs, ours, registry, _containerd: containerd, _engine: engine })
    }

    /// Runs `steps` on both and returns what differs. `REF` is the image's name, `HOST` the registry, `DIGEST` the
    /// manifest, `TOP` the image's snapshot.
    fn differences(&self, steps: &str) -> Result<Vec<String>> {
        let built = image()?;
        let steps = steps
            .replace("REF", &self.registry.reference("a/b:1"))
            .replace("HOST", self.registry.address())
            .replace("DIGEST", &built.root.digest.to_string());
        let mut different = Vec::new();
        for step in steps.lines().map(str::trim).filter(|step| !step.is_empty() && !step.starts_with('#')) {
            let step = if step.contains("TOP") { &step.replace("TOP", &self.top()?) } else { step };
            let (theirs, ours) = (self.theirs.run(step)?, self.ours.run(step)?);
            let (expected, found) = (outcome(&self.theirs, &theirs), outcome(&self.ours, &ours));
            if expected != found {
                different.push(format!(
                    "ctr {step}\n  theirs: {expected:?}\n          {}\n  ours:   {found:?}\n          {}",
                    theirs.stderr.trim(),
                    ours.stderr.trim()
                ));
            }
        }
        Ok(different)
    }

    /// Name of the image's snapshot: the committed one that has a parent.
    fn top(&self) -> Result<String> {
        let list = self.theirs.run("snapshots ls")?.success()?;
        let rows = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut tops = rows.filter(|row| row.len() == 3 && row[2] == "Committed");
        Ok(tops.next().context("nothing is unpacked")?[0].to_owned())
    }

    fn assert_same(&self, steps: &str) -> Result<()> {
        let different = self.differences(steps)?;
        assert!(different.is_empty(), "{} steps differ:\n{}", different.len(), different.join("\n"));
        Ok(())
    }
}

const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn namespaces_and_leases_answer_as_containerds() -> Result<()> {
    Both::start()?.assert_same(
        "namespaces create blue a=1 b=2
        namespaces create blue
        namespaces create bad/name
        namespaces label blue b= c=3
        namespaces ls
        namespaces ls -q
        namespaces rm blue
        namespaces rm blue
        leases ls
        leases create --id l1 a=1
        leases create --id l1
        leases create --id l2 --expires 0s
        leases create --id bad/id
        leases ls
        leases ls -q
        leases ls id==l1
        leases rm --sync l1
        leases rm nothing
        leases rm l2
        leases ls -q",
    )
}

#[test]
fn images_answer_as_containerds() -> Result<()> {
    Both::start()?.assert_same(
        "images ls
        images pull --plain-http REF
        images ls
        images ls -q
        images ls -q name~=nothing
        images ls name==
        images check
        images check -q
        images label REF x=y
        images label REF x=
        images tag REF other.example/t:1 other.example/t:2
        images tag REF other.example/t:1
        images tag --force REF other.example/t:1
        images tag nothing.example/x:1 y.example/x:1
        images mount REF @/mnt
        images unmount --rm @/mnt
        images mount --rw REF @/mnt
        images unmount @/mnt
        snapshots rm @/mnt
        leases rm @/mnt
        images export @/out.tar REF
        images export @/no.tar nothing.example/x:1
        images push --plain-http HOST/c/d:1 REF
        images push --plain-http HOST/c/e:1 nothing.example/x:1
        images convert --uncompress REF conv.example/u:1
        images convert --oci REF conv.example/o:1
        images ls
        images rm conv.example/u:1 conv.example/o:1
        images import --base-name imp.example/i --digests @/image.tar
        images import --no-unpack --base-name imp.example/j @/image.tar
        images import @/missing.tar
        images import @/bad.tar
        images ls -q
        images rm nothing.example/x:1
        images rm --sync other.example/t:1 other.example/t:2
        images ls -q",
    )
}

#[test]
fn content_answers_as_containerds() -> Result<()> {
    let steps = "images pull --plain-http REF
        content ls
        content ls -q
        content ls -q labels.nothing
        content get DIGEST
        content get NOTHING
        content get nonsense
        content label DIGEST mine=1
        content ls labels.mine==1
        content label DIGEST mine=
        content ingest --expected-size 6 --expected-digest HELLO ref1 <blob
        content ingest --expected-size 7 ref2 <blob
        content ingest --expected-digest NOTHING ref3 <blob
        content ingest ref1 <blob
        content active
        content get HELLO
        content edit HELLO
        content rm HELLO
        content rm HELLO
        content fetch --plain-http REF
        content fetch-object --plain-http REF DIGEST
        content push-object --plain-http HOST/p/o:1 DIGEST application/vnd.oci.image.manifest.v1+json
        content prune references --dry
        content prune references
        leases create --id last
        leases rm --sync last
        content ls -q";
    Both::start()?.assert_same(&steps.replace("HELLO", HELLO).replace("NOTHING", NOTHING))
}

#[test]
fn snapshots_answer_as_containerds() -> Result<()> {
    // Without the collector's help: a lease would keep a view, but then ctr would not see what users see.
    let steps = "images pull --plain-http REF
        snapshots ls
        snapshots tree
        snapshots prepare work TOP
        snapshots prepare work TOP
        snapshots prepare --target @/mnt work2 TOP
        snapshots prepare nope missing-parent
        snapshots info work
        snapshots info nothing
        snapshots usage work
        snapshots diff --media-type application/vnd.oci.image.layer.v1.tar work
        snapshots label work l=1
        snapshots info work
        snapshots ls
        snapshots commit done work
        snapshots commit done work2
        snapshots commit x missing
        snapshots info done
        snapshots usage done
        snapshots prepare ondone done
        snapshots rm done
        snapshots rm ondone
        snapshots rm done work2
        snapshots rm done
        snapshots tree
        snapshots unpack DIGEST
        snapshots unpack NOTHING
        snapshots --snapshotter nothing ls
        snapshots --snapshotter native ls
        snapshots --snapshotter native prepare n1
        snapshots --snapshotter native rm n1
        snapshots view look TOP
        images rm --sync REF
        leases create --id last
        leases rm --sync last
        snapshots ls
        content ls -q";
    let both = Both::start()?;
    let mut different = both.differences(&steps.replace("NOTHING", NOTHING))?;
    // Where our mounts lie, and their options, are our own affair.
    different.retain(|difference| !difference.contains("prepare --target"));
    assert!(different.is_empty(), "{} steps differ:\n{}", different.len(), different.join("\n"));
    let mounts = |side: &Side| -> Result<usize> {
        Ok(side.run("snapshots prepare --target @/mnt m")?.success()?.matches("mount -t ").count())
    };
    assert_eq!(mounts(&both.ours)?, mounts(&both.theirs)?);
    Ok(())
}

/// Lines that `ctr events` prints while `steps` are done.
fn events(side: &Side, steps: &[&str]) -> Result<Vec<String>> {
    let log = side.directory.join("events");
    let mut command = side.command(&["events".to_owned()]);
    let mut child = command.stdout(std::fs::File::create(&log)?).stderr(Stdio::null()).spawn()?;
    let heard = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
    // It says nothing when it begins to listen: names are made until one is heard.
    let mut tries = 0;
    wait_until("events are heard", DEADLINE, || {
        tries += 1;
        let _ = side.run(&format!("namespaces create probe{tries}"));
        heard("/namespaces/create")
    })?;
    let done: Result<Vec<_>> = steps.iter().map(|step| side.run(step)).collect();
    let all = done.and_then(|_| {
        side.run("namespaces create the-end")?;
        wait_until("the last event is heard", DEADLINE, || heard("the-end"))
    });
    let _ = child.kill();
    let _ = child.wait();
    all?;
    let told = std::fs::read_to_string(&log)?;
    Ok(told.lines().map(|line| told_of(side, line)).filter(|line| !line.contains("/namespaces/")).collect())
}

/// Topic and content of an event: `DATE TIME +0000 UTC NAMESPACE TOPIC JSON`.
fn told_of(side: &Side, line: &str) -> String {
    let line = line.replace(&*side.directory.to_string_lossy(), "@");
    line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ")
}

#[test]
fn events_are_printed_as_containerds() -> Result<()> {
    let both = Both::start()?;
    let image = both.registry.reference("a/b:1");
    let pull = format!("images pull --plain-http {image}");
    let label = format!("images label {image} x=y");
    let remove = format!("images rm {image}");
    // Content first: after a removal a collector may be faster than the next command, and 1.6 tells nothing of what it takes.
    let steps = [
        "content ingest a-ref <blob",
        &format!("content rm {HELLO}"),
        &label,
        "snapshots prepare one",
        "snapshots commit two one",
        "snapshots rm two",
        &remove,
    ];
    for side in [&both.theirs, &both.ours] {
        side.run(&pull)?.success()?;
    }
    let (theirs, ours) = (events(&both.theirs, &steps)?, events(&both.ours, &steps)?);
    assert!(theirs.len() >= 5, "{theirs:?}");
    assert_eq!(theirs, ours);
    Ok(())
}

#[test]
fn plug_ins_that_clients_ask_for_are_listed_as_containerds() -> Result<()> {
    let both = Both::start()?;
    let listed = |side: &Side| -> Result<BTreeSet<String>> {
        let text = side.run("plugins ls")?.success()?;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows =
            text.lines().skip(1).map(words).filter(|row| row.last().is_some_and(|state| state == "ok"));
        Ok(rows.map(|row| format!("{} {}", row[0], row[1])).collect())
    };
    let (theirs, ours) = (listed(&both.theirs)?, listed(&both.ours)?);
    let wanted = [
        "io.containerd.snapshotter.v1 overlayfs",
        "io.containerd.snapshotter.v1 native",
        "io.containerd.content.v1 content",
        "io.containerd.grpc.v1 containers",
        "io.containerd.grpc.v1 content",
        "io.containerd.grpc.v1 diff",
        "io.containerd.grpc.v1 events",
        "io.containerd.grpc.v1 healthcheck",
        "io.containerd.grpc.v1 images",
        "io.containerd.grpc.v1 introspection",
        "io.containerd.grpc.v1 leases",
        "io.containerd.grpc.v1 namespaces",
        "io.containerd.grpc.v1 snapshots",
        "io.containerd.grpc.v1 version",
    ];
    for plugin in wanted {
        assert!(theirs.contains(plugin) && ours.contains(plugin), "{plugin}: {theirs:?}\n{ours:?}");
    }
    both.assert_same("plugins ls -q id==overlayfs\nplugins ls -q type==nothing\nplugins ls id==")
}

#[test]
fn a_removed_name_leaves_no_mount_behind() -> Result<()> {
    let both = Both::start()?;
    both.assert_same("images pull --plain-http REF\nimages mount REF @/mnt")?;
    let data = |side: &Side| std::fs::read_dir(side.directory.join("mnt/data")).map(Iterator::count);
    assert_eq!((data(&both.theirs)?, data(&both.ours)?), (2, 2));
    both.assert_same("images unmount --rm @/mnt")?;
    for side in [&both.theirs, &both.ours] {
        assert_eq!(Engine::mounts_below(Path::new(&side.directory)), Vec::<PathBuf>::new());
    }
    Ok(())
}
