//! What the command line accepts, refuses, and turns into what.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn run(line: &str) -> RunArgs {
    match parse(line).unwrap().verb {
        Verb::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_and_alias_is_understood() {
    for line in [
        "windlass pull alpine",
        "windlass images pull alpine",
        "windlass image ls",
        "windlass i ls -q",
        "windlass images list --format json",
        "windlass images ls --format {{.Name}} name==x labels.a==b",
        "windlass images rm a b --sync",
        "windlass images rm --async a",
        "windlass images remove -f a",
        "windlass images inspect --content a",
        "windlass i i a",
        "windlass images mount --rw --platform linux/amd64 --snapshotter native a /mnt",
        "windlass images unmount --rm /mnt",
        "windlass images pull --all-platforms --label a=b --print-chainid --max-concurrent-downloads 3 --local a",
        "windlass images pull --platform linux/amd64 --platform linux/arm64 --user me:pw -k --sync-fs a",
        "windlass images push --platform linux/amd64 --max-concurrent-uploaded-layers 2 r.example/a:1",
        "windlass push r.example/a:1 alpine --manifest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 --manifest-type x",
        "windlass images import --base-name x --digests --skip-digest-for-named --index-name y --no-unpack --compress-blobs -",
        "windlass images export --skip-manifest-json --skip-non-distributable --all-platforms - a b",
        "windlass images tag --force --skip-reference-check a b c",
        "windlass images label -r a k=v x=",
        "windlass images check -q name==x",
        "windlass images usage --snapshotter native a",
        "windlass images convert --uncompress --oci --all-platforms a b",
        "windlass images convert --compression zstd --level 5 a b",
        "windlass images prune --all",
        "windlass images prune --older-than 30d --dry-run",
        "windlass content active ^layer -q",
        "windlass content edit --editor ed --validate sha256:abcd",
        "windlass content fetch --all-platforms alpine",
        "windlass content fetch-object alpine",
        "windlass content fetch-blob r.example/a sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 --media-type x",
        "windlass content ingest --expected-size 3 --expected-digest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 key",
        "windlass content label abcdef k=v",
        "windlass content push-object r.example/a:1 abcdef application/octet-stream",
        "windlass content prune references --dry --async",
        "windlass content prune",
        "windlass content delete abcdef",
        "windlass snapshots --snapshotter native ls -q kind==active",
        "windlass snapshot commit name key",
        "windlass snapshots diff a b --media-type x --ref r --keep --label k=v",
        "windlass snapshots info k",
        "windlass snapshots m /mnt k",
        "windlass snapshots prepare --target /mnt --mounts k p",
        "windlass snapshots view -t /mnt k p",
        "windlass snapshots del a b",
        "windlass snapshots tree",
        "windlass snapshots unpack sha256:abcdef",
        "windlass snapshots usage -b",
        "windlass snapshots label k a=b",
        "windlass leases create --id x -x 0 a=b",
        "windlass leases rm --sync a",
        "windlass leases resources a --add content/sha256:x --add snapshots/overlayfs/k",
        "windlass ns label team a=",
        "windlass event topic~=^/images/",
        "windlass plugins ls -d id==native",
        "windlass gc --dry-run --keep-storage 10GB --high-water 12GiB",
        "windlass why abcdef --kind blob",
        "windlass check --read-data --subset 3/7 --repair --plain-http",
        "windlass df -q",
        "windlass serve --listen 127.0.0.1:0 --pull-through --fresh 5m",
        "windlass --lease l content ingest k",
        "windlass c ls",
        "windlass containers info x",
        "windlass c rm -f x y",
        "windlass c label x a=b c=",
        "windlass t ls",
        "windlass task start -d x",
        "windlass tasks attach x",
        "windlass tasks exec --exec-id e --tty --cwd /x --user me x ls -l",
        "windlass tasks pause x y",
        "windlass tasks resume x",
        "windlass tasks ps x",
        "windlass tasks metrics x",
        "windlass ps -aq",
        "windlass exec -it --env A=b -w /x web sh -c true",
        "windlass logs -f --tail 10 -t --since 10m web",
        "windlass stop -t 3 a b",
        "windlass stop --signal INT --time 3s a",
        "windlass restart a",
        "windlass kill -s USR1 a b",
        "windlass rm -f a b",
        "windlass pause a",
        "windlass unpause a",
        "windlass wait a",
        "windlass attach a",
        "windlass stats --no-stream a b",
        "windlass top a",
        "windlass cp -L a:/x .",
        "windlass inspect a b",
        "windlass update --memory 1g --cpus 1.5 --restart always a b",
        "windlass run -d --restart on-failure:3 -p 8080:80 -p 127.0.0.1:53:53/udp --net bridge --dns 1.1.1.1 a",
        "windlass run --memory-limit 512m --memory-swap -1 --cpus .5 --pids-limit -1 --ulimit nofile=1:2 a",
        "windlass run --cap-add ALL --cap-drop NET_RAW --device /dev/fuse --security-opt label=disable --init a",
        "windlass run --tmpfs /x:size=1m --annotation a=b --stop-signal INT --stop-timeout 3 --log-opt max-size=1m a",
        "windlass run --rootfs /tree sh",
        "windlass run --rootfs=/tree sh",
        "windlass tasks kill -s KILL --all x",
        "windlass task rm x",
        "windlass content ls",
        "windlass content get sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "windlass snapshots ls --snapshotter overlayfs",
        "windlass ns create team a=b",
        "windlass namespaces rm team",
        "windlass leases ls",
        "windlass gc",
        "windlass version --client",
        "windlass info",
        "windlass daemon",
        "windlass shim --bundle /b",
        "windlass completion bash",
        "windlass -n team --root /r --state /s -a /x.sock images ls",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn what_is_wrong_is_a_usage_error() {
    for line in [
        "windlass",
        "windlass frobnicate",
        "windlass pull",
        "windlass pull UPPER",
        "windlass pull --password-stdin alpine",
        "windlass --namespace a/b images ls",
        "windlass --format yaml images ls",
        "windlass images rm",
        "windlass images mount a",
        "windlass run",
        "windlass run --bogus alpine",
        "windlass run --name -x alpine",
        "windlass run --cwd relative alpine",
        "windlass run --pull sometimes alpine",
        "windlass run --platform linux alpine",
        "windlass tasks kill -s NOPE x",
        "windlass images prune",
        "windlass images ls --format {{.Name",
        "windlass images pull --all-platforms --platform linux/amd64 a",
        "windlass images convert --uncompress --compression gzip a b",
        "windlass snapshots diff",
        "windlass leases create -x tomorrow",
        "windlass leases resources a --add sha256:x",
        "windlass gc --high-water 1GB",
        "windlass gc --keep-storage many",
        "windlass check --subset 1/2",
        "windlass check --read-data --subset 3/2",
        "windlass serve --tls-cert c",
        "windlass content fetch-blob r.example/a sha256:00",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn help_and_version_are_not_errors() {
    assert_eq!(parse("windlass --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    assert_eq!(parse("windlass run --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    assert_eq!(parse("windlass --version").unwrap_err().exit_code(), 0);
}

#[test]
fn everything_after_the_image_belongs_to_the_command() {
    for (line, image, command) in [
        ("windlass run alpine", "alpine", &[][..]),
        ("windlass run --rm alpine echo hello", "alpine", &["echo", "hello"][..]),
        ("windlass run alpine --rm", "alpine", &["--rm"][..]),
        ("windlass run -t alpine sh -c -- -e", "alpine", &["sh", "-c", "--", "-e"][..]),
        ("windlass run -- alpine -n ls --format", "alpine", &["-n", "ls", "--format"][..]),
    ] {
        let args = run(line);
        assert_eq!(
            (args.image(), args.command()),
            (image, &command.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..])
        );
    }
    assert!(!run("windlass run alpine --rm").rm);
}

#[test]
fn global_flags_may_follow_the_verb() {
    let cli = parse("windlass images ls --namespace team --format json --root /r").unwrap();
    assert_eq!(cli.global.namespace.as_str(), "team");
    assert_eq!(cli.global.format, Format::Json);
    assert_eq!(cli.global.wanted_root(), Some(Path::new("/r")));
    assert_eq!(cli.global.socket(), Path::new("/run/windlass/windlass.sock"));
}

#[test]
fn the_socket_is_in_the_state_directory_unless_it_is_named() {
    let by_state = parse("windlass --state /s info").unwrap().global;
    assert_eq!(by_state.socket(), Path::new("/s/windlass.sock"));
    assert!(!by_state.is_address_given());
    let named = parse("windlass --state /s -a /x.sock info").unwrap().global;
    assert_eq!(named.socket(), Path::new("/x.sock"));
    assert!(named.is_address_given());
}

#[test]
fn docker_users_short_flags_work() {
    let args = run("windlass run -it -e A=1 -e B -w /srv -u 1000:1000 -v /a:/b:ro -l x=y --rm alpine sh");
    assert!(args.tty && args.interactive && args.rm);
    assert_eq!(args.env, ["A=1", "B"]);
    assert_eq!(args.cwd.as_deref(), Some("/srv"));
    assert_eq!(args.user.as_deref(), Some("1000:1000"));
    assert_eq!(args.label[0], Pair { name: "x".to_owned(), value: "y".to_owned() });
    assert_eq!(args.volume[0].options, ["rbind", "rprivate", "ro"]);
}

#[test]
fn mounts_are_read_as_ctr_and_docker_write_them() {
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (text, kind, source, destination, options) in [
        ("type=bind,src=/a,dst=/b,options=rbind:ro", "bind", "/a", "/b", &["rbind", "ro"][..]),
        ("type=bind,source=/a,target=/b,readonly", "bind", "/a", "/b", &["rbind", "ro"][..]),
        ("src=./a,dst=/b", "bind", "./a", "/b", &["rbind"][..]),
        (
            "type=tmpfs,dst=/t,options=size=64m:mode=700",
            "tmpfs",
            "tmpfs",
            "/t",
            &["size=64m", "mode=700"][..],
        ),
    ] {
        let expected = Bind {
            kind: kind.to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            options: strings(options),
        };
        assert_eq!(value::mount(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "type=bind,src=/a",
        "type=bind,dst=/b",
        "src=/a,dst=b",
        "src=/a,dst=/b,colour=red",
        "type=,dst=/b",
    ] {
        assert!(value::mount(text).is_err(), "{text:?} was accepted");
    }
    for text in ["", "/a", "/a:", ":/b", "/a:b", "name:/b", "/a:/b:bogus"] {
        assert!(value::bind(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn signals_have_names_and_numbers() {
    for (text, number) in [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sighup", 1), ("SYS", 31), ("64", 64)] {
        assert_eq!(value::signal(text), Ok(number), "{text}");
    }
    for text in ["", "0", "65", "SIG", "-9", "SIGNOPE"] {
        assert!(value::signal(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn sizes_and_times_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("1KB", 1000),
        ("1.5KiB", 1536),
        ("10GB", 10_000_000_000),
        ("10G", 10 << 30),
        ("2tib", 2 << 40),
        ("7B", 7),
    ] {
        assert_eq!(value::size(text), Ok(bytes), "{text}");
    }
    for text in ["", "GB", "-1", "1.2.3", "1X", "1GBx", "99999999PB", "nan"] {
        assert!(value::size(text).is_err(), "{text:?} was accepted");
    }
    for (text, seconds) in
        [("0", 0), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600)]
    {
        assert_eq!(value::lifetime(text).unwrap().as_secs(), seconds, "{text}");
    }
    for text in ["", "5", "h", "5x", "1h5", "99999999999999999999d", "9999999999999w"] {
        assert!(value::lifetime(text).is_err(), "{text:?} was accepted");
    }
    assert!(value::age("0").is_err() && value::age("0s").is_err());
}

#[test]
fn a_label_without_a_value_is_true_and_with_an_empty_one_is_empty() {
    for (text, value) in [("a", "true"), ("a=", ""), ("a=b=c", "b=c")] {
        assert_eq!(text.parse::<Label>().unwrap().value, value, "{text}");
    }
    assert!("=x".parse::<Label>().is_err());
}

#[test]
fn what_a_lease_keeps_is_named_with_its_type() {
    let parse = |text: &str| text.parse::<ResourceName>().map(|name| (name.kind, name.id));
    let expected = |kind: &str, id: &str| Ok((kind.to_owned(), id.to_owned()));
    assert_eq!(parse("content/sha256:ab"), expected("content", "sha256:ab"));
    assert_eq!(parse("images/docker.io/library/a:1"), expected("images", "docker.io/library/a:1"));
    assert_eq!(parse("snapshots/overlayfs/a key/with"), expected("snapshots/overlayfs", "a key/with"));
    for text in ["", "content", "content/", "snapshots/overlayfs", "snapshots//k", "things/x"] {
        assert!(parse(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn a_format_is_a_word_or_a_template() {
    for (line, expected) in [("table", Format::Table), ("json", Format::Json)] {
        let cli = parse(&format!("windlass --format {line} images ls")).unwrap();
        assert_eq!(cli.global.format, expected);
    }
    let cli = Cli::try_parse_from(["windlass", "images", "ls", "--format", "{{.Name}} {{.Digest}}"]).unwrap();
    assert!(matches!(cli.global.format, Format::Template(_)));
    let error = parse("windlass --format yaml images ls").unwrap_err().to_string();
    assert!(error.contains("table") && error.contains("{{.Name}}"), "{error}");
}
