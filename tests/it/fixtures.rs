//! Images that several tests use.

use storage_model::Compression::{Gzip, None as Plain, Zstd};
use tests::{Entry, ImageBuilder, Kind};

/// Bytes that look random, do not compress, and are the same for the same seed (xorshift64*).
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Every kind of entry, every kind of change between layers, all three compressions.
pub(crate) fn everything() -> ImageBuilder {
    // VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let deep = format!("deep/{}", ["a-directory-with-a-rather-long-name"; 6].join("/"));
    let lower = vec![
        Entry::directory("./").mode(0o755),
        Entry::directory("etc/"),
        Entry::file("etc/hostname", "one\n").mtime(1_234_567_890, 123_456_789),
        Entry::file("etc/empty", ""),
        Entry::file("etc/shadow", "secret\n").mode(0o640).owner(0, 42),
        Entry::directory("tmp/").mode(0o1777),
        Entry::directory("srv/").mode(0o2775).owner(33, 33),
        Entry::file("srv/large", noise(1, 3 << 20)).owner(4_000_000_000, 3_000_000),
        Entry::directory("bin/"),
        Entry::file("bin/su", "set-id\n").mode(0o4755),
        Entry::file("bin/wall", "set-group\n").mode(0o2755).owner(0, 5),
        Entry::file("bin/ping", "capable\n").mode(0o755).xattr("security.capability", &capability),
        Entry::file("bin/tool", "several names\n").mode(0o755).xattr("user.origin", b"windlass\x00test"),
        Entry::new("bin/tool-too", Kind::Hardlink("bin/tool".into())),
        Entry::new("bin/tool-as-well", Kind::Hardlink("./bin/tool".into())),
        Entry::new("bin/sh", Kind::Symlink("dash".into())).mode(0o777).owner(7, 8),
        Entry::new("etc/absolute", Kind::Symlink("/etc/hostname".into())).mode(0o777),
        Entry::new("etc/nowhere", Kind::Symlink("../../../../does/not/exist".into())).mode(0o777),
        Entry::directory("dev/"),
        Entry::new("dev/null", Kind::Character(1, 3)).mode(0o666),
        Entry::new("dev/loop", Kind::Block(7, 0)).mode(0o660).owner(0, 6),
        Entry::new("run-fifo", Kind::Fifo).mode(0o600),
        Entry::file("naïve/ファイル with spaces", "a name\n"),
        Entry::file(format!("{deep}/{}", "n".repeat(200)), "long\n"),
        Entry::new("deep/link", Kind::Symlink(format!("/{deep}"))).mode(0o777),
        Entry::directory("gone/"),
        Entry::file("gone/file", "removed with its directory\n"),
        Entry::directory("opaque/"),
        Entry::file("opaque/old", "hidden by the mark\n"),
        Entry::directory("opaque/below/"),
        Entry::file("opaque/below/old", "hidden as well\n"),
        Entry::file("swap-file", "becomes a directory\n"),
        Entry::directory("swap-directory/"),
        Entry::file("swap-directory/inside", "its directory becomes a file\n"),
    ];
    let middle = vec![
        Entry::directory("etc/").mode(0o750),
        Entry::file("etc/.wh.hostname", ""),
        Entry::file(".wh.gone", ""),
        Entry::directory("opaque/").owner(10, 11),
        Entry::file("opaque/.wh..wh..opq", ""),
        Entry::file("opaque/new", "only this one\n"),
        Entry::directory("swap-file/"),
        Entry::file("swap-file/inside", "in the new directory\n"),
        Entry::file("swap-directory", "now a file\n"),
        Entry::file("bin/su", "replaced\n").mode(0o755).mtime(1_600_000_000, 1),
    ];
    let upper = vec![
        Entry::directory("gone/"),
        Entry::file("gone/again", "a new directory of an old name\n"),
        Entry::file("etc/hostname", "three\n").mode(0o600),
        Entry::file("implied/parents/only", "its directories have no entries\n"),
    ];
    ImageBuilder::default().layer(lower, Gzip).layer(middle, Zstd).layer(upper, Plain)
}

/// Path and content of each file of [`crowd`].
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Many files in several layers, and what must be in them: for the tests that cut a pull short.
pub(crate) fn crowd(layers: usize, files: usize, bytes: usize) -> (ImageBuilder, Files) {
    let mut builder = ImageBuilder::default();
    let mut expected = Vec::new();
    for layer in 0..layers {
        let content = |file: usize| noise((layer * files + file) as u64 + 1, bytes * (1 + file % 7) / 4);
        let made: Files =
            (0..files).map(|file| (format!("data/{layer}/{}/{file}", file % 20), content(file))).collect();
        builder = builder
            .layer(made.iter().map(|(path, bytes)| Entry::file(path.as_str(), bytes.as_slice())), Gzip);
        expected.extend(made);
    }
    (builder, expected)
}

/// Files of `expected` that are not below `root` with exactly their content.
pub(crate) fn damaged(root: &std::path::Path, expected: &Files) -> Vec<String> {
    let bad =
        expected.iter().filter(|(path, bytes)| std::fs::read(root.join(path)).ok().as_ref() != Some(bytes));
    bad.map(|(path, _)| path.clone()).collect()
}
