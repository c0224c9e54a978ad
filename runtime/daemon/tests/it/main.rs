//! A real daemon in this process, on a root of its own, spoken to over its socket: by clients made from the same
//! definitions, and by Debian's unmodified `ctr`.

mod content;
mod ctr;
mod fixture;
mod lifecycle;
mod records;
mod snapshots;
