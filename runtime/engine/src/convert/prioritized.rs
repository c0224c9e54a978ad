//! What is to be read first, as people and traces say it.

use lazy_fetch::{Trace, decode_path};
use storage_sys::tree::EntryPath;

use crate::EngineError;

/// Most paths of a list: what a start reads is some thousands.
const PATHS_MAX: usize = 100_000;

/// The paths in `list`, clean and in its order: a trace (`windlass lazy trace export`) or a path a line, where empty lines
/// and those that begin with `#` do not count.
///
/// # Errors
/// [`EngineError::Prioritized`].
pub(super) fn paths(list: &[u8]) -> Result<Vec<Vec<u8>>, EngineError> {
    let is_trace = list.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let named: Vec<Vec<u8>> = if is_trace {
        let trace: Trace = serde_json::from_slice(list)
            .map_err(|_| EngineError::Prioritized("it begins like a trace and is none"))?;
        trace.events.iter().filter_map(|event| decode_path(&event.path)).collect()
    } else {
        let lines = list.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).map(<[u8]>::to_vec).collect()
    };
    if named.len() > PATHS_MAX {
        return Err(EngineError::Prioritized("it has more than 100,000 paths"));
    }
    let clean = named.iter().map(|path| EntryPath::parse(path).map(|path| path.as_bytes().to_vec()));
    let mut paths = clean
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| EngineError::Prioritized("one of its paths leads outside, or is too long"))?;
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| !path.is_empty() && seen.insert(path.clone()));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_traces_give_clean_paths_once_and_in_order() {
        let expected = [b"usr/bin/python3".to_vec(), b"etc/hosts".to_vec()];
        let lines = b"# a start\n/usr/bin/python3\r\n\n./etc//hosts\nusr/bin/python3\n/\n";
        assert_eq!(paths(lines).unwrap(), expected);
        let trace = br#" {"version":1,"image":"x","events":[
            {"path":"usr/bin/python3","offset":0,"length":9,"at_ms":1},
            {"path":"usr/bin/python3","offset":9,"length":9,"at_ms":2},
            {"path":"etc%2Fhosts","offset":0,"length":9,"at_ms":3}]}"#;
        assert_eq!(paths(trace).unwrap(), expected);
        assert!(paths(b"").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [&b"{\"events\": 1}"[..], b"../../etc/passwd"] {
            assert!(matches!(paths(bad), Err(EngineError::Prioritized(_))), "{}", bad.escape_ascii());
        }
    }
}
