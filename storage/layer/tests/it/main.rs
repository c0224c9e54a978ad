//! Layers unpacked for real: every test writes a directory, so all of them need root.
//!
//! `vulnerabilities` follows the catalogue of attacks on image tools row by row (`vuln_u01` to `vuln_u32`); `breakouts`
//! has the escapes that containerd's own suite tries; `formats` and `whiteouts` say what is read and what it makes;
//! `agreement` compares with other tar readers; `properties` and `pipeline` are the invariants; `packing` is the way
//! back, from a tree to a layer, `round_trips` over generated
//! trees; `records` is how damage is found and mended.
#![allow(clippy::unwrap_used)]

mod agreement;
mod breakouts;
mod formats;
mod packing;
mod pipeline;
mod properties;
mod records;
mod round_trips;
mod support;
mod vulnerabilities;
mod whiteouts;
