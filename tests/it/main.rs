//! The promises of the whole program, each tried on the real thing.

mod commands;
mod commands_store;
mod concurrent;
mod crash;
mod ctr_plugin;
mod ctr_same;
mod ctr_tasks;
mod fixtures;
mod harness;
mod json;
mod layouts;
mod lazy;
mod lazy_convert;
mod logs;
mod mistakes;
mod network;
mod order;
mod pull;
mod run;
mod run_flags;
mod serve;
mod services;
mod shell;
mod shim;
mod transfer;
mod upkeep;
