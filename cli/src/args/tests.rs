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
        "windlass images rm a b",
        "windlass images inspect a",
        "windlass i i a",
        "windlass images mount a /mnt",
        "windlass images unmount /mnt",
        "windlass c ls",
        "windlass containers info x",
        "windlass c rm -f x y",
        "windlass t ls",
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
        "windlass content get sha256:00",
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
