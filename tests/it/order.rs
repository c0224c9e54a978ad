//! The folders are the order of dependence: a crate may use those of its own folder and of the folders left of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// From left to right. `bench` and `tests` stand outside: they may use all, nobody may use them.
const ORDER: [&str; 5] = ["storage", "snapshotters", "lazy", "runtime", "cli"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(1)
        .expect("tests is a folder of the workspace")
        .to_owned()
}

/// Every member's path in the workspace and its parsed manifest.
fn members() -> Result<Vec<(String, toml::Table)>> {
    let workspace: toml::Table = fs::read_to_string(top().join("Cargo.toml"))?.parse()?;
    let members = workspace["workspace"]["members"].as_array().context("members")?;
    members
        .iter()
        .map(|member| {
            let path = member.as_str().context("a member is text")?.to_owned();
            let manifest = fs::read_to_string(top().join(&path).join("Cargo.toml"))?.parse()?;
            Ok((path, manifest))
        })
        .collect()
}

fn folder(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Names of what a manifest depends on, whatever the kind and the target.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    let mut pending = vec![manifest];
    while let Some(table) = pending.pop() {
        for (key, value) in table {
            let Some(value) = value.as_table() else { continue };
            match key.as_str() {
                "dependencies" | "dev-dependencies" | "build-dependencies" => {
                    names.extend(value.keys().cloned())
                }
                "target" => pending.extend(value.values().filter_map(toml::Value::as_table)),
                _ => {}
            }
        }
    }
    names
}

#[test]
fn no_crate_depends_on_a_folder_to_its_right() {
    let members = members().unwrap();
    let paths: BTreeMap<String, String> = members
        .iter()
        .map(|(path, manifest)| (manifest["package"]["name"].as_str().unwrap().to_owned(), path.clone()))
        .collect();
    let rank = |path: &str| ORDER.iter().position(|name| *name == folder(path));
    let mut refused = Vec::new();
    for (path, manifest) in &members {
        for name in dependencies(manifest) {
            let Some(target) = paths.get(&name) else { continue };
            let allowed = match (rank(path), rank(target)) {
                (Some(from), Some(to)) => to <= from,
                (None, _) => true,
                (Some(_), None) => false,
            };
            if !allowed {
                refused.push(format!("{path} may not depend on {target}"));
            }
        }
    }
    assert!(refused.is_empty(), "against the order {ORDER:?}:\n{}", refused.join("\n"));
}

#[test]
fn every_crate_takes_the_workspaces_lints_and_is_named_by_its_path() {
    for (path, manifest) in members().unwrap() {
        let inherits =
            manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{path}/Cargo.toml has no `[lints] workspace = true`");
        let name = manifest["package"]["name"].as_str().unwrap();
        let expected = if path == "cli" { "windlass".to_owned() } else { path.replace('/', "-") };
        assert_eq!(name, expected, "the crate at {path}");
    }
}

#[test]
fn kernel_calls_and_unsafe_code_are_in_storage_sys_alone() {
    let mut refused = Vec::new();
    for (path, manifest) in members().unwrap() {
        if path == "storage/sys" {
            continue;
        }
        // Tests stop processes at system calls, read attributes and serve file systems; they too go without `unsafe`.
        let mut built = manifest;
        built.remove("dev-dependencies");
        let names = dependencies(&built);
        let is_program = path != "tests";
        refused.extend(
            ["rustix", "libc", "nix"]
                .iter()
                .filter(|name| is_program && names.iter().any(|have| have == *name))
                .map(|name| format!("{path} depends on {name}")),
        );
        for file in sources(&top().join(&path)) {
            let text = fs::read_to_string(&file).unwrap();
            // The attribute, in either form, is the only way past the workspace's `deny`.
            if ["allow(unsafe_code", "expect(unsafe_code"].iter().any(|attribute| {
                text.lines().any(|line| line.trim_start().starts_with('#') && line.contains(attribute))
            }) {
                refused.push(format!("{} lifts the ban on unsafe code", file.display()));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "fuzz") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
