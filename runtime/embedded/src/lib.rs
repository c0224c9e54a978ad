//! The OCI runtime that is built in: libcontainer behind the command line that runc and crun have.
#![forbid(unsafe_code)]
