//! The command line, in the form of Go's `flag` package that containerd writes: `-id c1 -namespace default start`.

use std::path::PathBuf;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Action {
    /// Serve on the socket that is standard input: what `start` leaves behind.
    #[default]
    Serve,
    /// Find or make the shim, and print where it listens.
    Start,
    /// Take away what a killed shim left behind.
    Delete,
    /// Print the version.
    Version,
}

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Args {
    pub(crate) action: Action,
    /// Of the daemon's objects, the container's among them.
    pub(crate) namespace: String,
    /// The container's id.
    pub(crate) id: String,
    /// The daemon's gRPC socket.
    pub(crate) address: String,
    /// A program that publishes events.
    pub(crate) publish_binary: Option<PathBuf>,
    /// The container's bundle; the current directory without it.
    pub(crate) bundle: Option<PathBuf>,
    /// The socket of the shim that serves.
    pub(crate) socket: String,
}

/// Why a command line is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArgsError {
    /// A flag without its value.
    #[error("flag -{flag} needs a value")]
    NoValue {
        /// Its name.
        flag: String,
    },
    /// A flag that nobody knows.
    #[error("flag -{flag} is not known")]
    Unknown {
        /// Its name.
        flag: String,
    },
    /// Something else than `start` and `delete`.
    #[error("{word:?} is neither start nor delete")]
    Action {
        /// What was said.
        word: String,
    },
    /// Without a namespace nothing has a name.
    #[error("flag -namespace is needed")]
    NoNamespace,
}

impl Args {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// [`ArgsError`].
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                args.action = match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(ArgsError::Action { word }),
                };
                continue;
            };
            let (flag, inline) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (flag, None),
            };
            // These two are switches; a value they may have does not concern us.
            match flag {
                "debug" => continue,
                "v" => {
                    args.action = Action::Version;
                    return Ok(args);
                }
                _ => {}
            }
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| ArgsError::NoValue { flag: flag.to_owned() })
            };
            match flag {
                "namespace" => args.namespace = value()?,
                "id" => args.id = value()?,
                "address" => args.address = value()?,
                "publish-binary" => args.publish_binary = Some(value()?.into()),
                "bundle" => args.bundle = Some(value()?.into()),
                "socket" => args.socket = value()?,
                _ => return Err(ArgsError::Unknown { flag: flag.to_owned() }),
            }
        }
        if args.namespace.is_empty() {
            return Err(ArgsError::NoNamespace);
        }
        Ok(args)
    }

    /// The bundle: the one named, or the current directory.
    ///
    /// # Errors
    /// Those of asking for the current directory.
    pub(crate) fn bundle(&self) -> std::io::Result<PathBuf> {
        match &self.bundle {
            Some(bundle) if !bundle.as_os_str().is_empty() => std::path::absolute(bundle),
            _ => std::env::current_dir(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args, ArgsError> {
        Args::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_of_containerd_is_understood() {
        let args = parse(
            "-namespace default -address /run/c.sock -publish-binary /usr/bin/containerd -id c1 -debug start",
        )
        .unwrap();
        assert_eq!(
            (args.action, args.namespace.as_str(), args.id.as_str()),
            (Action::Start, "default", "c1")
        );
        assert_eq!(args.publish_binary.unwrap(), PathBuf::from("/usr/bin/containerd"));
        let args = parse("--namespace=a -id=b -bundle /b delete").unwrap();
        assert_eq!((args.action, args.bundle().unwrap()), (Action::Delete, PathBuf::from("/b")));
    }

    #[test]
    fn what_is_no_command_line_says_why() {
        assert_eq!(parse("-id"), Err(ArgsError::NoValue { flag: "id".into() }));
        assert_eq!(parse("-namespace a -colour red"), Err(ArgsError::Unknown { flag: "colour".into() }));
        assert_eq!(parse("-namespace a dance"), Err(ArgsError::Action { word: "dance".into() }));
        assert_eq!(parse("start"), Err(ArgsError::NoNamespace));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }
}
