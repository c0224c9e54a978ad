//! Configuration lists: those of this machine, below `/etc/cni/net.d`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::NetworkError;

/// Largest configuration that is read, in bytes; real ones have a few hundred.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Version of configurations that name none (CNI specification, "0.1.0" by its text; 0.4.0 is the oldest with CHECK and
/// what plug-ins of this decade all speak).
const VERSION_DEFAULT: &str = "0.4.0";

/// A network: its name and its plug-ins, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigList {
    /// Name of the network.
    pub(crate) name: String,
    /// `cniVersion` of the results.
    pub(crate) version: String,
    /// Configurations of the plug-ins, at least one, each an object with a `type`.
    pub(crate) plugins: Vec<Value>,
}

impl ConfigList {
    /// Reads a list (`.conflist`), or a single plug-in's configuration (`.conf`, `.json`) as a list of one.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let name =
            value["name"].as_str().filter(|name| is_name(name)).ok_or("its name is missing or no name")?;
        let version = value["cniVersion"].as_str().unwrap_or(VERSION_DEFAULT).to_owned();
        let plugins = match value.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err("plugins is not a list".to_owned()),
            None => vec![value.clone()],
        };
        if plugins.is_empty() {
            return Err("its list of plug-ins is empty".to_owned());
        }
        for plugin in &plugins {
            let kind = plugin["type"].as_str().ok_or("a plug-in without a type")?;
            // A type is the name of a program in the plug-in directories, and must not lead out of them.
            if !is_name(kind) {
                return Err(format!("{kind:?} is not the name of a plug-in"));
            }
        }
        Ok(Self { name: name.to_owned(), version, plugins })
    }

    /// What a plug-in is given: its configuration with the list's name and version, what was published, and what the
    /// plug-in before it said.
    pub(crate) fn input(&self, plugin: &Value, capabilities: &Value, before: Option<&Value>) -> Value {
        let mut input = plugin.clone();
        input["name"] = json!(self.name);
        input["cniVersion"] = json!(self.version);
        let wanted = plugin["capabilities"].as_object().into_iter().flatten();
        let runtime: serde_json::Map<String, Value> = wanted
            .filter(|(_, wanted)| **wanted == Value::Bool(true))
            .filter_map(|(name, _)| Some((name.clone(), capabilities.get(name)?.clone())))
            .collect();
        if let Some(object) = input.as_object_mut() {
            object.remove("capabilities");
            if !runtime.is_empty() {
                object.insert("runtimeConfig".to_owned(), Value::Object(runtime));
            }
            if let Some(before) = before {
                object.insert("prevResult".to_owned(), before.clone());
            }
        }
        input
    }
}

/// The CNI specification's grammar for names: a letter or digit, then letters, digits, `_`, `.`, `-`.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The network `name` of `directory`; files in the order of their names, the first one that has it.
///
/// # Errors
/// [`NetworkError::NoNetwork`]; [`NetworkError::Configuration`] when it is not found and a file there cannot be read.
pub(crate) fn find(directory: &Path, name: &str) -> Result<ConfigList, NetworkError> {
    let mut broken = None;
    let mut known = Vec::new();
    for path in files(directory)? {
        match read(&path) {
            Ok(list) if list.name == name => return Ok(list),
            Ok(list) => known.push(list.name),
            Err(reason) => broken = broken.or(Some(NetworkError::Configuration { path, reason })),
        }
    }
    known.push(crate::kind::BRIDGE.to_owned());
    let (name, directory, known) = (name.to_owned(), directory.to_owned(), known.join(", "));
    Err(broken.unwrap_or(NetworkError::NoNetwork { name, directory, known }))
}

/// Names of the networks that `directory` configures; files that cannot be read are left out.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let paths = files(directory).unwrap_or_default();
    paths.iter().filter_map(|path| read(path).ok()).map(|list| list.name).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, NetworkError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(NetworkError::io("list", directory)(source)),
    };
    let is_config = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| matches!(extension.to_str(), Some("conflist" | "conf" | "json")))
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_config).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<ConfigList, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(CONFIG_BYTES_MAX).read_to_end(&mut text).map_err(|error| error.to_string())?;
    ConfigList::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_and_a_single_plug_in_are_read() {
        let list = ConfigList::parse(br#"{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#);
        let list = list.unwrap();
        assert_eq!((list.name.as_str(), list.version.as_str(), list.plugins.len()), ("a", "1.0.0", 1));
        let single = ConfigList::parse(br#"{"name":"b","type":"ptp"}"#).unwrap();
        assert_eq!(single.version, "0.4.0");
        assert_eq!(single.plugins[0]["type"], "ptp");
    }

    #[test]
    fn what_is_no_configuration_is_refused_in_words() {
        for (text, part) in [
            ("", "EOF"),
            (r#"{"plugins":[{"type":"bridge"}]}"#, "name"),
            (r#"{"name":"../x","type":"bridge"}"#, "name"),
            (r#"{"name":"a","plugins":[]}"#, "empty"),
            (r#"{"name":"a","plugins":{}}"#, "list"),
            (r#"{"name":"a","plugins":[{}]}"#, "type"),
            (r#"{"name":"a","plugins":[{"type":"../../bin/sh"}]}"#, "plug-in"),
        ] {
            let reason = ConfigList::parse(text.as_bytes()).unwrap_err();
            assert!(reason.contains(part), "{text}: {reason}");
        }
    }

    #[test]
    fn a_plug_in_is_told_only_what_it_asks_for_and_what_the_one_before_said() {
        let list = ConfigList::parse(
            br#"{"name":"a","plugins":[{"type":"portmap","capabilities":{"portMappings":true,"ips":false}}]}"#,
        )
        .unwrap();
        let offered = json!({"portMappings": [{"hostPort": 1}], "ips": ["10.0.0.1"], "mac": "x"});
        let before = json!({"ips": []});
        let input = list.input(&list.plugins[0], &offered, Some(&before));
        assert_eq!(input["runtimeConfig"], json!({"portMappings": [{"hostPort": 1}]}));
        assert_eq!(input["prevResult"], before);
        assert_eq!((input["name"].as_str(), input["cniVersion"].as_str()), (Some("a"), Some("0.4.0")));
        assert!(input.get("capabilities").is_none());
    }

    #[test]
    fn a_network_is_found_by_name_and_a_missing_one_says_what_there_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("10-b.conflist"), r#"{"name":"b","plugins":[{"type":"ptp"}]}"#).unwrap();
        fs::write(path.join("notes.txt"), "not a network").unwrap();
        assert_eq!(find(path, "b").unwrap().plugins.len(), 1);
        let error = find(path, "c").unwrap_err().to_string();
        assert!(error.contains("known are b, bridge"), "{error}");
        assert_eq!(names(path), ["b"]);
        fs::write(path.join("20-broken.conf"), "{").unwrap();
        assert!(find(path, "b").is_ok());
        assert!(matches!(find(path, "c"), Err(NetworkError::Configuration { .. })));
        assert!(matches!(find(&path.join("none"), "c"), Err(NetworkError::NoNetwork { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = ConfigList::parse(text.as_bytes());
        }
    }
}
