//! The mounts of this module, made for real where the tests run as root; elsewhere they say that they did nothing.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::options::{Sorted, sort, split_layers};
use super::*;

/// A directory for one test whose mounts go with it.
struct Scratch(tempfile::TempDir);

impl Scratch {
    /// `None` where mounting is not permitted.
    fn new() -> Option<Self> {
        let scratch = Self(tempfile::tempdir().unwrap());
        let probe = scratch.directory("probe");
        match bind(&probe, Depth::One, Attributes::default()) {
            Ok(_) => Some(scratch),
            Err(MountError::NotPermitted { .. }) => {
                eprintln!("skipped: mounting is not permitted here");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let layer = self.directory(name);
        for (file, content) in files {
            let path = layer.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        layer
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = unmount_under(&self.path());
    }
}

macro_rules! scratch {
    () => {
        match Scratch::new() {
            Some(scratch) => scratch,
            None => return,
        }
    };
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn an_overlay_shows_the_upper_layer_first_and_catches_writes() {
    let scratch = scratch!();
    let lower = scratch.layer("lower", &[("a", "lower"), ("b", "lower")]);
    let middle = scratch.layer("middle", &[("a", "middle")]);
    let (upper, work, target) = (scratch.directory("u"), scratch.directory("w"), scratch.directory("t"));
    let options = OverlayOptions::default();
    let mount = overlay(&[middle, lower.clone()], Some((&upper, &work)), &options).unwrap();
    assert!(fs::read_dir(&target).unwrap().next().is_none(), "a detached mount is nowhere");
    attach(mount, &target).unwrap();
    assert_eq!((read(target.join("a")), read(target.join("b"))), ("middle".into(), "lower".into()));
    fs::write(target.join("b"), "new").unwrap();
    assert_eq!((read(upper.join("b")), read(lower.join("b"))), ("new".into(), "lower".into()));
    assert!(is_mounted(&target).unwrap());
    unmount(&target).unwrap();
    assert!(!is_mounted(&target).unwrap());
}

#[test]
fn a_detached_mount_vanishes_with_its_value() {
    let scratch = scratch!();
    let before = mounts_under(Path::new("/")).unwrap().len();
    drop(bind(&scratch.directory("d"), Depth::Tree, Attributes::READ_ONLY).unwrap());
    drop(
        overlay(&[scratch.directory("a"), scratch.directory("b")], None, &OverlayOptions::default()).unwrap(),
    );
    // Other tests mount at the same time: only what lies under this one's directory can be counted.
    assert!(mounts_under(&scratch.path()).unwrap().is_empty(), "of {before} mounts");
}

#[test]
fn five_hundred_layers_are_one_mount_and_one_more_is_refused() {
    let scratch = scratch!();
    let mut layers: Vec<_> =
        (0..LAYERS_MAX).map(|n| scratch.layer(&format!("{n:04}/fs"), &[(&format!("f{n}"), "x")])).collect();
    let target = scratch.directory("t");
    mount_overlay(&layers, None, &OverlayOptions::default(), &target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), LAYERS_MAX);
    unmount(&target).unwrap();
    layers.push(scratch.directory("one-more"));
    let refused = overlay(&layers, None, &OverlayOptions::default()).unwrap_err();
    assert!(matches!(refused, MountError::LayerCount { count: 501, max: 500, .. }), "{refused}");
    let refused = overlay(&layers[..1], None, &OverlayOptions::default()).unwrap_err();
    assert!(
        matches!(refused, MountError::LayerCount { count: 1, min: 2, .. }),
        "one layer is bound, not overlaid"
    );
}

#[test]
fn any_path_can_be_a_layer() {
    let scratch = scratch!();
    let names = ["plain", "a:b", "a\\:b", "a,b", "a b", "tr\\", "lower,upperdir=x"];
    let long = ["x".repeat(200), "y".repeat(200)].join("/");
    for name in names.iter().copied().chain([long.as_str()]) {
        let lower = scratch.layer(&format!("lower/{name}"), &[("file", name)]);
        let upper = scratch.directory(&format!("upper/{name}"));
        let (work, target) = (scratch.directory(&format!("work/{name}")), scratch.directory("t"));
        let options = OverlayOptions::default();
        mount_overlay(std::slice::from_ref(&lower), Some((&upper, &work)), &options, &target).unwrap();
        assert_eq!(read(target.join("file")), name);
        unmount(&target).unwrap();
        // What older kernels are given: names instead of descriptors, one page of options.
        let context = context::Context::open("overlay", "test".into()).unwrap();
        for (key, path) in [("lowerdir+", &lower), ("upperdir", &upper), ("workdir", &work)] {
            let directory = context.open_directory(key, path).unwrap();
            context.set_directory_by_name(key, path, &directory).unwrap();
        }
        attach(context.mount(Attributes::default()).unwrap(), &target).unwrap();
        assert_eq!(read(target.join("file")), name);
        unmount(&target).unwrap();
        overlay::mount_classic(&[lower], Some((&upper, &work)), &options, &target).unwrap();
        assert_eq!(read(target.join("file")), name);
        unmount(&target).unwrap();
    }
}

#[test]
fn an_old_kernel_gets_three_hundred_layers_into_its_page_of_options() {
    let scratch = scratch!();
    let layers: Vec<_> =
        (0..300).map(|n| scratch.layer(&format!("snapshots/{n}/fs"), &[(&format!("f{n}"), "x")])).collect();
    let target = scratch.directory("t");
    let here = std::env::current_dir().unwrap();
    overlay::mount_classic(&layers, None, &OverlayOptions::default(), &target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 300);
    assert_eq!(std::env::current_dir().unwrap(), here, "the process's own directory did not move");
    let wide: Vec<_> = (0..300).map(|n| scratch.directory(&format!("{n}{}", "x".repeat(20)))).collect();
    let refused = overlay::mount_classic(&wide, None, &OverlayOptions::default(), &target).unwrap_err();
    assert!(matches!(refused, MountError::OptionsTooLong { max_bytes: 4095, .. }), "{refused}");
}

#[test]
fn a_refused_option_is_named_with_the_kernels_reason() {
    let scratch = scratch!();
    let layer = scratch.directory("l");
    let settings = vec![("redirect_dir".to_owned(), Some("sideways".to_owned()))];
    let options = OverlayOptions { settings, ..OverlayOptions::default() };
    let words = overlay(&[layer.clone(), layer.clone()], None, &options).unwrap_err().to_string();
    assert!(words.contains("\"redirect_dir=sideways\"") && words.contains("overlay"), "{words}");
    let missing = layer.join("missing");
    let words = overlay(&[layer.clone(), missing], None, &OverlayOptions::default()).unwrap_err().to_string();
    assert!(words.contains("lower layer") && words.contains("/l/missing"), "{words}");
    let settings = vec![("nonsense".to_owned(), None)];
    let words = overlay(&[layer.clone(), layer], None, &OverlayOptions { settings, ..Default::default() })
        .unwrap_err();
    let MountError::Option { kernel, .. } = &words else { panic!("{words}") };
    assert!(kernel.messages().iter().any(|message| message.contains("Unknown parameter")), "{kernel:?}");
}

#[test]
fn a_read_only_bind_is_read_only_and_its_source_is_not() {
    let scratch = scratch!();
    let source = scratch.layer("source", &[("file", "x")]);
    let target = scratch.directory("t");
    attach(bind(&source, Depth::Tree, Attributes::READ_ONLY).unwrap(), &target).unwrap();
    let refused = fs::write(target.join("file"), "y").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(source.join("file"), "y").unwrap();
    assert_eq!(read(target.join("file")), "y");
}

#[test]
fn a_file_can_be_bound_to_a_file_only() {
    let scratch = scratch!();
    let source = scratch.layer("s", &[("file", "x"), ("other", "y")]);
    let mount = bind(&source.join("file"), Depth::One, Attributes::default()).unwrap();
    attach(mount, &source.join("other")).unwrap();
    assert_eq!(read(source.join("other")), "x");
    unmount(&source.join("other")).unwrap();
    let mount = bind(&source.join("file"), Depth::One, Attributes::default()).unwrap();
    assert!(matches!(attach(mount, &source), Err(MountError::Attach { .. })));
}

#[test]
fn vuln_u11_a_target_that_is_a_link_is_not_followed() {
    let scratch = scratch!();
    let (source, victim) = (scratch.directory("source"), scratch.directory("victim"));
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let mount = bind(&source, Depth::One, Attributes::default()).unwrap();
    assert!(matches!(attach(mount, &link), Err(MountError::Path { role: "target", .. })));
    let mount = bind(&source, Depth::One, Attributes::default()).unwrap();
    assert!(matches!(
        bind(&link, Depth::One, Attributes::default()),
        Err(MountError::Path { role: "source", .. })
    ));
    attach(mount, &victim).unwrap();
    assert!(unmount(&link).is_err(), "unmounting through a link");
    assert!(is_mounted(&victim).unwrap());
}

#[test]
fn mounts_written_as_containerd_writes_them_are_made() {
    let scratch = scratch!();
    let lower = scratch.layer("lo:wer", &[("file", "x")]);
    let (upper, work, target) = (scratch.directory("u"), scratch.directory("w"), scratch.directory("t"));
    let value = join_layers([lower.as_path()]).into_string().unwrap();
    let options = vec![
        "index=off".to_owned(),
        format!("workdir={}", work.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={value}"),
    ];
    let overlay = Mount { kind: "overlay".into(), source: "overlay".into(), options };
    mount_all(std::slice::from_ref(&overlay), &target).unwrap();
    fs::write(target.join("file"), "y").unwrap();
    assert_eq!(read(upper.join("file")), "y");
    let ro = |source: &Path| Mount {
        kind: "bind".into(),
        source: source.to_str().unwrap().into(),
        options: vec!["rbind".into(), "ro".into(), "rprivate".into()],
    };
    mount_all(&[ro(&upper)], &target).unwrap();
    assert!(fs::write(target.join("file"), "z").is_err());
    unmount(&target).unwrap();
    unmount(&target).unwrap();
    let tmpfs = Mount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        options: vec!["nosuid".into(), "mode=0700".into(), "size=64k".into()],
    };
    mount_all(&[tmpfs], &target).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o700);
    unmount(&target).unwrap();
    let broken = Mount { kind: "no-such-fs".into(), ..Mount::default() };
    let error = mount_all(&[overlay, broken], &target).unwrap_err();
    assert!(matches!(error, MountError::NoFileSystem { .. }), "{error}");
    assert!(!is_mounted(&target).unwrap(), "the first is taken back when the second fails");
}

#[test]
fn what_cannot_be_translated_is_refused_before_anything_is_mounted() {
    let target = Path::new("/nonexistent");
    let mount = |kind: &str, options: &[&str]| Mount {
        kind: kind.into(),
        source: "/".into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    for (wrong, named) in [
        (mount("bind", &["ro", "size=1"]), "size"),
        (mount("overlay", &["lowerdir=/", "upperdir=/u"]), "upperdir"),
        (mount("overlay", &["lowerdir=/", "workdir=/w"]), "workdir"),
        (mount("overlay", &["lowerdir"]), "lowerdir"),
    ] {
        match mount_all(&[wrong], target).unwrap_err() {
            MountError::BadOption { option, .. } => assert_eq!(option, named),
            other => panic!("{other}"),
        }
    }
    let none = mount_all(&[mount("overlay", &["upperdir=/u", "workdir=/w"])], target).unwrap_err();
    assert!(matches!(none, MountError::LayerCount { count: 0, .. }), "{none}");
}

#[test]
fn propagation_and_the_table_agree() {
    let scratch = scratch!();
    let (source, target) = (scratch.directory("s"), scratch.directory("t with space"));
    attach(bind(&source, Depth::One, Attributes::default()).unwrap(), &target).unwrap();
    let entry = || mounts_under(&target).unwrap().pop().unwrap();
    set_propagation(&target, Propagation::Shared, Depth::One).unwrap();
    assert!(entry().propagation.iter().any(|field| field.starts_with("shared:")));
    set_propagation(&target, Propagation::Private, Depth::Tree).unwrap();
    assert!(entry().propagation.is_empty());
    let refused = set_propagation(&source, Propagation::Private, Depth::One).unwrap_err();
    assert!(matches!(refused, MountError::Propagation { .. }), "{refused}");
}

#[test]
fn unmounting_says_what_is_wrong() {
    let scratch = scratch!();
    let target = scratch.directory("t");
    assert!(matches!(unmount(&target), Err(MountError::NotMounted { .. })));
    let tree = scratch.directory("tree");
    for _ in 0..2 {
        attach(bind(&tree, Depth::One, Attributes::default()).unwrap(), &target).unwrap();
    }
    let open = fs::File::open(&target).unwrap();
    assert!(matches!(unmount(&target), Err(MountError::Busy { .. })));
    assert_eq!(unmount_under(&target).unwrap(), 2);
    assert!(!is_mounted(&target).unwrap());
    drop(open);
}

#[test]
fn vuln_u17_a_character_device_zero_hides_the_file_below() {
    let scratch = scratch!();
    let lower = scratch.layer("lower", &[("file", "x"), ("kept", "x")]);
    let upper = scratch.directory("upper");
    rustix::fs::mknodat(CWD, upper.join("file"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let target = scratch.directory("t");
    mount_overlay(&[upper, lower], None, &OverlayOptions::default(), &target).unwrap();
    assert!(
        target.join("file").symlink_metadata().is_err(),
        "hence a layer's own 0:0 device must not be unpacked"
    );
    assert!(target.join("kept").exists());
}

#[test]
fn vuln_u18_a_redirect_in_a_layer_is_not_followed() {
    let scratch = scratch!();
    let secret = scratch.layer("secret", &[("hidden/key", "secret")]);
    let evil = scratch.layer("evil", &[("lure/own", "own")]);
    set_xattr(&evil.join("lure"), "trusted.overlay.redirect", b"/hidden");
    let target = scratch.directory("t");
    mount_overlay(&[evil.clone(), secret.clone()], None, &OverlayOptions::default(), &target).unwrap();
    // The kernel refuses the directory or shows it without the redirect; it never leads into the other layer.
    assert!(fs::read(target.join("lure/key")).is_err());
    unmount(&target).unwrap();
    let settings = vec![("redirect_dir".to_owned(), Some("follow".to_owned()))];
    let options = OverlayOptions { settings, ..OverlayOptions::default() };
    mount_overlay(&[evil, secret], None, &options, &target).unwrap();
    assert_eq!(read(target.join("lure/key")), "secret", "what the default protects from");
}

#[test]
fn vuln_u18_user_xattrs_of_a_layer_mean_nothing() {
    let scratch = scratch!();
    let lower = scratch.layer("lower", &[("dir/below", "x"), ("file", "x")]);
    let upper = scratch.layer("upper", &[("dir/above", "x"), ("file", "")]);
    set_xattr(&upper.join("dir"), "user.overlay.opaque", b"y");
    set_xattr(&upper.join("dir"), "user.overlay.redirect", b"/elsewhere");
    set_xattr(&upper.join("file"), "user.overlay.whiteout", b"");
    let target = scratch.directory("t");
    mount_overlay(&[upper, lower], None, &OverlayOptions::default(), &target).unwrap();
    assert_eq!(read(target.join("dir/below")), "x", "userxattr is not set");
    assert!(target.join("file").exists());
}

#[test]
fn vuln_u19_a_metacopy_in_a_layer_reads_nothing_of_another() {
    let scratch = scratch!();
    let secret = scratch.layer("secret", &[("key", "secret")]);
    let evil = scratch.layer("evil", &[("lure", "")]);
    set_xattr(&evil.join("lure"), "trusted.overlay.metacopy", b"");
    set_xattr(&evil.join("lure"), "trusted.overlay.redirect", b"/key");
    let target = scratch.directory("t");
    mount_overlay(&[evil, secret], None, &OverlayOptions::default(), &target).unwrap();
    assert_ne!(fs::read(target.join("lure")).ok(), Some(b"secret".to_vec()));
}

#[test]
fn trusted_opaque_hides_a_directory_and_a_rename_of_one_is_copied() {
    let scratch = scratch!();
    let lower = scratch.layer("lower", &[("dir/below", "x"), ("move/inner", "x")]);
    let upper = scratch.layer("upper", &[("dir/above", "x")]);
    set_xattr(&upper.join("dir"), "trusted.overlay.opaque", b"y");
    let (work, target) = (scratch.directory("w"), scratch.directory("t"));
    mount_overlay(&[lower], Some((&upper, &work)), &OverlayOptions::default(), &target).unwrap();
    assert!(!target.join("dir/below").exists() && target.join("dir/above").exists());
    let refused = fs::rename(target.join("move"), target.join("moved")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices, "no redirect is ever written");
    assert!(rustix::fs::getxattr(target.join("dir"), "trusted.overlay.opaque", &mut [0; 8]).is_err());
    fs::remove_file(target.join("move/inner")).unwrap();
    let whiteout = upper.join("move/inner").symlink_metadata().unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
}

#[test]
fn vuln_u21_nothing_runs_from_a_data_only_mount_and_the_overlay_on_it_is_free() {
    let scratch = scratch!();
    let store = scratch.directory("store");
    let layer = store.join("fs");
    fs::create_dir(&layer).unwrap();
    let program = Path::new("/bin/true").canonicalize().unwrap();
    // Copied by another process: a descriptor for writing that a fork of this one inherits would make it busy.
    assert!(
        std::process::Command::new("cp").arg(program).arg(layer.join("program")).status().unwrap().success()
    );
    fs::set_permissions(layer.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    attach(bind(&store, Depth::Tree, Attributes::DATA_ONLY).unwrap(), &store).unwrap();
    let run = |path: PathBuf| std::process::Command::new(path).status();
    assert_eq!(run(layer.join("program")).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let entry = mounts_under(&store).unwrap().pop().unwrap();
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(entry.options.iter().any(|given| given == option), "{:?}", entry.options);
    }
    let target = scratch.directory("t");
    let empty = scratch.directory("empty");
    mount_overlay(&[layer, empty], None, &OverlayOptions::default(), &target).unwrap();
    assert!(run(target.join("program")).unwrap().success());
}

#[test]
fn later_options_win_and_each_goes_where_it_belongs() {
    let options: Vec<String> =
        ["ro", "nosuid", "rw", "rbind", "rslave", "size=1=2", "sync", ""].map(String::from).to_vec();
    let expected = Sorted {
        attributes: Attributes { no_suid: true, ..Attributes::default() },
        bind: Some(Depth::Tree),
        propagation: vec![(Propagation::Slave, Depth::Tree)],
        settings: vec![("size".into(), Some("1=2".into())), ("sync".into(), None)],
    };
    assert_eq!(sort(&options), expected);
}

#[test]
fn the_table_of_this_process_is_read() {
    let mounts = mounts_under(Path::new("/")).unwrap();
    assert!(mounts.iter().any(|mount| mount.target == Path::new("/") && !mount.kind.is_empty()));
    assert!(mounts_under(Path::new("/proc")).unwrap().iter().all(|m| m.target.starts_with("/proc")));
}

#[test]
fn a_table_is_read_as_documented_and_a_bad_line_is_named() {
    let line = b"36 35 98:0 /a\\040b /mnt\\134\\012x rw,noatime shared:1 master:2 new:9 - ext3 /dev/r\\043 rw,errors=c\n";
    let table = [&line[..], b"\n", line].concat();
    let parsed = parse_mountinfo(&table).unwrap();
    assert_eq!(parsed.len(), 2);
    let mount = &parsed[0];
    assert_eq!((mount.id, mount.parent, mount.device), (36, 35, (98, 0)));
    assert_eq!((mount.root.as_path(), mount.target.as_path()), (Path::new("/a b"), Path::new("/mnt\\\nx")));
    assert_eq!(mount.propagation, ["shared:1", "master:2", "new:9"]);
    assert_eq!((mount.kind.as_str(), mount.source.as_os_str()), ("ext3", std::ffi::OsStr::new("/dev/r#")));
    for (bad, at) in [
        (&b"x 35 98:0 / / rw - a b c"[..], "id"),
        (b"36 35 98 / / rw - a b c", "device"),
        (b"36 35 98:0 / mnt rw - a b c", "mount point"),
        (b"36 35 98:0 / / rw shared:1 a b c", "separator"),
        (b"36 35 98:0 / / rw - a b", "file system options"),
    ] {
        let table = [&line[..], bad].concat();
        match parse_mountinfo(&table).unwrap_err() {
            MountError::TableLine { line: 2, field } => assert_eq!(field, at),
            other => panic!("{other}"),
        }
    }
}

proptest! {
    #[test]
    fn no_table_makes_the_reader_panic(table in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_mountinfo(&table);
    }

    #[test]
    fn joined_layers_are_split_into_the_same(
        layers in proptest::collection::vec("[a-z:\\\\, /]{1,12}", 1..8)
    ) {
        let paths: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
        let value = join_layers(paths.iter().map(PathBuf::as_path)).into_string().unwrap();
        prop_assert_eq!(split_layers(&value), paths);
    }

    #[test]
    fn a_target_survives_the_kernels_escaping(name in proptest::collection::vec(1_u8..=255, 1..40)) {
        let mut line = b"1 1 0:1 / /".to_vec();
        for &byte in &name {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").bytes()),
                other => line.push(other),
            }
        }
        line.extend(b" rw - a b c");
        let mut expected = b"/".to_vec();
        expected.extend(&name);
        let parsed = parse_mountinfo(&line).unwrap();
        prop_assert_eq!(&parsed[0].target, &PathBuf::from(OsString::from_vec(expected)));
    }
}
