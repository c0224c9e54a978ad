//! Row U9: the escapes containerd's suite tries, each with where its entries must end up.

use std::fs;
use std::os::unix::fs::symlink;

use storage_layer::{LayerError, Whiteouts};

use crate::support::{Tar, Yard};

/// `etc/passwd` inside, and what the case adds.
fn with_passwd() -> Tar {
    Tar::new().dir("etc", 0o770).file("/etc/passwd", b"inside")
}

#[test]
fn vuln_u09_links_that_leave_the_root_lead_to_places_inside_it() {
    let cases = [
        ("absolute link", Tar::new().dir("etc", 0o755).symlink("localetc", "/etc")),
        ("up and out", Tar::new().dir("etc", 0o755).dir("dummy", 0o755).symlink("localetc", "/dummy/../etc")),
        ("relative", Tar::new().dir("etc", 0o755).symlink("localetc", "../../../etc")),
        (
            "two links",
            Tar::new()
                .dir("etc", 0o755)
                .dir("dummy", 0o755)
                .symlink("/dummy/etc", "/etc")
                .symlink("localetc", "./dummy/etc"),
        ),
        ("dangling", Tar::new().symlink("localetc", "../../etc")),
        ("dangling and absolute", Tar::new().symlink("localetc", "/etc")),
    ];
    for (name, tar) in cases {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
            let yard = Yard::new();
            let tar = tar.clone().file("/localetc/unbroken", b"unbroken").end();
            yard.unpack_as(&tar, whiteouts).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(yard.read("etc/unbroken"), b"unbroken", "{name}");
            assert!(yard.stat("localetc").is_symlink(), "{name}");
        }
    }
}

#[test]
fn vuln_u09_a_file_written_through_a_link_replaces_the_one_inside() {
    let tar = Tar::new().dir("etc", 0o755).file("etc/emptied", b"notempty").symlink("localetc", "/etc");
    let yard = Yard::new();
    yard.unpack(&tar.file("/localetc/emptied", b"").end()).unwrap();
    assert_eq!(yard.read("etc/emptied"), b"");
}

#[test]
fn vuln_u09_hard_links_find_their_target_inside() {
    let cases = [
        ("relative", "breakouts/d1", "../../etc", "/breakouts/d1/passwd"),
        ("down and out", "breakouts/d1", "../downandout/../../etc", "/breakouts/d1/passwd"),
        ("absolute", "localetc", "/etc", "/localetc/passwd"),
        ("long relative", "localetc", "../../../../../../../etc", "/localetc/passwd"),
        ("up and out", "localetc", "upandout/../../../etc", "/localetc/passwd"),
        ("direct relative", "unused", "/", "../../../../../etc/passwd"),
        ("direct absolute", "unused", "/", "/etc/passwd"),
    ];
    for (name, link, to, target) in cases {
        let tar = with_passwd().dir("downandout", 0o755).dir("upandout", 0o755).dir("breakouts", 0o755);
        let yard = Yard::new();
        let tar = tar.symlink(link, to).link("breakouts/mypasswd", target).end();
        yard.unpack(&tar).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(yard.same_file("breakouts/mypasswd", "etc/passwd"), "{name}");
    }
}

#[test]
fn vuln_u09_a_hard_link_to_what_is_only_outside_is_refused() {
    let yard = Yard::new();
    let outside = format!("{}/passwd", yard.victim());
    for target in [outside.as_str(), "../victim/passwd", "../file", "../../victim/passwd"] {
        let error = yard.unpack(&Tar::new().link("stolen", target).end()).unwrap_err();
        assert!(matches!(error, LayerError::Entry { .. }), "{error}");
        assert!(yard.is_missing("stolen"));
    }
}

#[test]
fn vuln_u09_a_name_that_climbs_out_is_refused_and_one_that_only_turns_back_is_not() {
    for name in ["..", "../etc", "a/../../etc", "/../etc", "./../x", "a/b/../../../x"] {
        let yard = Yard::new();
        let error = yard.unpack(&Tar::new().file(name, b"x").end()).unwrap_err().to_string();
        assert!(error.contains("climbs out"), "{name}: {error}");
        assert!(yard.picture().len() == 1, "{name}");
    }
    let yard = Yard::new();
    let tar = with_passwd().symlink("localetc/sub/..", "/etc/").link("/localetc/localpasswd", "/etc/passwd");
    yard.unpack(&tar.end()).unwrap();
    assert!(yard.same_file("etc/localpasswd", "etc/passwd"));
}

#[test]
fn vuln_u09_what_stands_in_the_target_is_replaced_not_followed() {
    let prepared = || {
        let yard = Yard::new();
        fs::create_dir(yard.root().join("etc")).unwrap();
        fs::write(yard.root().join("etc/passwd"), "inside").unwrap();
        yard
    };
    // A link replaces a directory; later names go through it.
    for to in ["/etc", "../../etc"] {
        let yard = prepared();
        fs::create_dir(yard.root().join("localetc")).unwrap();
        let tar = Tar::new().symlink("localetc", to).link("/localetc/localpasswd", "/etc/passwd").end();
        yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
        assert!(yard.same_file("etc/localpasswd", "etc/passwd"));
    }
    // A directory replaces a link; what was reached through it stays.
    let yard = prepared();
    symlink("/etc", yard.root().join("localetc")).unwrap();
    let tar = Tar::new().dir("/localetc/", 0o755).link("/localetc/localpasswd", "/etc/passwd").end();
    yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
    assert!(yard.stat("localetc").is_dir());
    assert!(yard.same_file("localetc/localpasswd", "etc/passwd"));
    // So does a file that had another name.
    let yard = prepared();
    symlink("etc", yard.root().join("localetc")).unwrap();
    fs::hard_link(yard.root().join("etc/passwd"), yard.root().join("etc/localpasswd")).unwrap();
    let tar = Tar::new().dir("/localetc/", 0o755).file("/localetc/localpasswd", b"different").end();
    yard.unpack_as(&tar, Whiteouts::Apply).unwrap();
    assert!(!yard.same_file("localetc/localpasswd", "etc/passwd"));
    assert_eq!(yard.read("etc/passwd"), b"inside");
}
