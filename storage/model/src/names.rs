//! Names that users give: namespaces and identifiers, in containerd's alphabet.

use std::fmt;
use std::str::FromStr;

/// Why text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing was given.
    #[error("a {what} may not be empty")]
    Empty {
        /// What was being named.
        what: &'static str,
    },
    /// Longer than containerd's limit.
    #[error("{what} {name:?}... is {length} characters long: at most {max} are allowed", max = NAME_BYTES_MAX)]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// Its first characters.
        name: String,
        /// Its length.
        length: usize,
    },
    /// A character or an order of characters that is not allowed.
    #[error("{name:?} is not a valid {what}: use letters and digits, with single . _ or - between them")]
    Alphabet {
        /// What was being named.
        what: &'static str,
        /// The text.
        name: String,
    },
}

/// Longest name, in bytes (containerd `pkg/identifiers`).
const NAME_BYTES_MAX: usize = 76;

/// `^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$`, at most 76 bytes (containerd `pkg/identifiers/validate.go`).
fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, name: name.chars().take(32).collect(), length: name.len() });
    }
    let words = name.split(['.', '_', '-']);
    if words.clone().all(|word| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric())) {
        Ok(())
    } else {
        Err(NameError::Alphabet { what, name: name.to_owned() })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A namespace: users of one engine who do not see each other's images.
    Namespace, "namespace"
}
name_type! {
    /// The identifier of a container or a lease.
    Identifier, "identifier"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vuln_c9_names_that_could_be_paths_are_refused() {
        let long = "a".repeat(77);
        for text in
            ["", "/", "..", ".", "a/b", "a\0b", "-a", "a-", "a..b", "a b", "\u{e9}", long.as_str(), "a\n"]
        {
            assert!(text.parse::<Identifier>().is_err(), "{text:?} was accepted");
        }
        for text in ["a", "default", "k8s.io", "a_b-c.D9", "76".repeat(38).as_str()] {
            assert!(text.parse::<Namespace>().is_ok(), "{text:?} was refused");
        }
    }
}
