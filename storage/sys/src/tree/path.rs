//! Names of entries as they may be used: clean, relative to the root, of legal length.

use std::fmt;

/// Path of an entry below the root of a tree, in bytes; the empty path is the root.
///
/// No leading or trailing slash, no `.`, `..` or empty component, no NUL; at most [`EntryPath::BYTES_MAX`] bytes and
/// 255 bytes a component. Symbolic links on the way are not looked at here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

/// Why a name cannot be an entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathRefused {
    /// `..` leads above the root.
    Climbs,
    /// A NUL byte inside.
    Nul,
    /// Longer than [`EntryPath::BYTES_MAX`].
    TooLong,
    /// A component of more than 255 bytes.
    ComponentTooLong,
}

impl fmt::Display for PathRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Climbs => "it climbs out of the root with \"..\"",
            Self::Nul => "it contains a NUL byte",
            Self::TooLong => "it is longer than 4095 bytes",
            Self::ComponentTooLong => "one of its components is longer than 255 bytes",
        })
    }
}

impl std::error::Error for PathRefused {}

impl EntryPath {
    /// Longest path, in bytes: Linux's `PATH_MAX` less the closing NUL.
    pub const BYTES_MAX: usize = 4095;

    /// Reads the name of an entry. A leading slash is dropped; `..` goes back one component.
    ///
    /// # Errors
    /// As [`PathRefused`] says; [`PathRefused::Climbs`] when `..` meets the root.
    pub fn parse(raw: &[u8]) -> Result<Self, PathRefused> {
        Self::clean(raw, false)
    }

    /// Reads a name as [`EntryPath::parse`] does, but `..` at the root stays there, as it does for a process whose
    /// root this is.
    ///
    /// # Errors
    /// As [`PathRefused`] says, never [`PathRefused::Climbs`].
    pub fn parse_confined(raw: &[u8]) -> Result<Self, PathRefused> {
        Self::clean(raw, true)
    }

    /// The root.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    fn clean(raw: &[u8], confine: bool) -> Result<Self, PathRefused> {
        if raw.contains(&0) {
            return Err(PathRefused::Nul);
        }
        if raw.len() > Self::BYTES_MAX + 1 {
            return Err(PathRefused::TooLong);
        }
        let mut path = Vec::with_capacity(raw.len());
        for component in raw.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if path.is_empty() && confine => {}
                b".." if path.is_empty() => return Err(PathRefused::Climbs),
                b".." => path.truncate(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                name if name.len() > 255 => return Err(PathRefused::ComponentTooLong),
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        if path.len() > Self::BYTES_MAX {
            return Err(PathRefused::TooLong);
        }
        Ok(Self(path))
    }

    /// A path made of components that were checked before.
    pub(super) fn trusted(path: Vec<u8>) -> Self {
        Self(path)
    }

    /// The entry `name` of this directory; `name` comes from the kernel or from another path.
    pub fn child(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory and the last component; `None` for the root.
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Some((&self.0[..slash], &self.0[slash + 1..])),
            None => Some((&[], &self.0)),
        }
    }

    /// The directory this lies in; the root is its own.
    pub fn parent(&self) -> Self {
        Self(self.split().map_or_else(Vec::new, |(directory, _)| directory.to_vec()))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned_as_a_process_in_the_root_would_read_them() {
        for (raw, clean) in [
            ("", ""),
            (".", ""),
            ("./", ""),
            ("/", ""),
            ("//", ""),
            ("/.", ""),
            ("a", "a"),
            ("/a/b/", "a/b"),
            ("a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("a/sub/..", "a"),
        ] {
            assert_eq!(EntryPath::parse(raw.as_bytes()).unwrap().as_bytes(), clean.as_bytes(), "{raw:?}");
        }
        assert_eq!(EntryPath::parse_confined(b"../../etc/passwd").unwrap().as_bytes(), b"etc/passwd");
    }

    #[test]
    fn a_name_that_climbs_out_or_is_too_long_is_refused() {
        assert_eq!(EntryPath::parse(b".."), Err(PathRefused::Climbs));
        assert_eq!(EntryPath::parse(b"a/../../b"), Err(PathRefused::Climbs));
        assert_eq!(EntryPath::parse(b"/../b"), Err(PathRefused::Climbs));
        assert_eq!(EntryPath::parse(b"a\0b"), Err(PathRefused::Nul));
        assert_eq!(EntryPath::parse(&[b'x'; 256]), Err(PathRefused::ComponentTooLong));
        assert_eq!(EntryPath::parse(&b"ab/".repeat(1366)), Err(PathRefused::TooLong));
        assert!(EntryPath::parse(&[b'x'; 255]).is_ok());
    }

    proptest! {
        #[test]
        fn a_parsed_path_has_no_component_that_moves(raw in "[a.\\x00/]{0,40}") {
            for parsed in [EntryPath::parse(raw.as_bytes()), EntryPath::parse_confined(raw.as_bytes())] {
                let Ok(path) = parsed else { continue };
                prop_assert!(path.is_root() || path.as_bytes().split(|&b| b == b'/')
                    .all(|c| !c.is_empty() && c != b"." && c != b".."));
                prop_assert_eq!(EntryPath::parse(path.as_bytes()).unwrap(), path);
            }
        }
    }
}
