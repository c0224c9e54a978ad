//! The promises of the whole program, each tried on the real thing.

mod crash;
mod fixtures;
mod harness;
mod json;
mod layouts;
mod mistakes;
mod order;
mod pull;
mod run;
mod services;
