//! The promises of the whole program, each tried on the real thing.

mod commands;
mod commands_store;
mod concurrent;
mod crash;
mod ctr_plugin;
mod ctr_same;
mod fixtures;
mod harness;
mod json;
mod layouts;
mod mistakes;
mod order;
mod pull;
mod run;
mod serve;
mod services;
mod transfer;
mod upkeep;
