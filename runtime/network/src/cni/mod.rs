//! The Container Network Interface: configuration lists and the protocol of their plug-ins (CNI specification 1.0.0).
//!
//! A plug-in is a program: parameters in `CNI_*` variables, its configuration on standard input, its result on standard
//! output. The plug-ins of a list run one after the other, each told what the one before it said (`prevResult`); DEL runs
//! them backwards with what ADD said in the end.
//!
//! Not here: which list, which ports (`attach`).

mod config;
mod run;

pub(crate) use config::{ConfigList, find, names};
pub(crate) use run::{Call, add, call_all_back, check};

pub use run::PluginError;

use std::net::IpAddr;

use serde_json::Value;

/// Addresses in a result of ADD, without their prefix lengths (1.0.0: `ips[].address`).
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    address_texts(result).iter().filter_map(|text| text.split('/').next()?.parse().ok()).collect()
}

/// The same as `ADDRESS/BITS`.
pub(crate) fn address_texts(result: &Value) -> Vec<String> {
    let entries = result["ips"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["address"].as_str()).map(str::to_owned).collect()
}

/// Name servers, search domains and options in a result of ADD.
pub(crate) fn dns(result: &Value) -> crate::Dns {
    let texts = |key: &str| -> Vec<String> {
        let entries = result["dns"][key].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry.as_str()).map(str::to_owned).collect()
    };
    crate::Dns { servers: texts("nameservers"), search: texts("search"), options: texts("options") }
}
