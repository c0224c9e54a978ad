//! The harness itself, against programs that are not ours.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tests::{Registry, difference, finish, read_tree};

use crate::{fixtures, pull};

#[test]
fn skopeo_reads_from_the_registry_what_was_pushed() -> Result<()> {
    let registry = Registry::start_with_login("ada", "lovelace")?;
    let image = fixtures::everything().build()?;
    let reference = registry.push(&image, "a/b", "1")?;
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "inspect",
        "--creds",
        "ada:lovelace",
        "--tls-verify=false",
        &format!("docker://{reference}"),
    ]);
    let inspected = finish(&mut skopeo, Duration::from_secs(30))?.success()?;
    for layer in &image.layers {
        assert!(inspected.contains(&layer.to_string()), "{inspected}");
    }
    Ok(())
}

#[test]
fn two_trees_of_one_image_are_equal_and_any_change_is_seen() -> Result<()> {
    tests::require_root()?;
    let image = fixtures::everything().all_gzip().build()?;
    let (_one, first) = pull::umoci(&image)?;
    let (_two, second) = pull::umoci(&image)?;
    let expected = read_tree(&first)?;
    assert_eq!(difference(&expected, &read_tree(&second)?), "");
    assert_eq!(expected[std::path::Path::new("bin/tool")].links, 3);
    assert_eq!(expected[std::path::Path::new("bin/ping")].xattrs.len(), 1);
    let changes = [
        "setfattr -n user.x -v 1 etc/empty",
        "touch -d @1 etc/shadow",
        "chmod u-s bin/wall; chmod 644 bin/wall",
        "ln bin/su bin/su2",
        "chown -h 1 bin/sh",
        "rm run-fifo",
        "printf x > etc/empty",
    ];
    for change in changes {
        finish(Command::new("sh").args(["-c", change]).current_dir(&second), Duration::from_secs(10))?
            .success()?;
        assert_ne!(difference(&expected, &read_tree(&second)?), "", "{change} was not seen");
        let (_directory, again) = pull::umoci(&image)?;
        finish(
            Command::new("sh").args(["-c", "rm -rf \"$1\" && cp -a \"$0\" \"$1\""]).arg(&again).arg(&second),
            Duration::from_secs(10),
        )?
        .success()?;
    }
    Ok(())
}
