//! What is written is read back by the parsers of `lazy-index`, decoded group by group, and compared with what went in.

#[path = "../../../fetch/src/decode.rs"]
mod decode;
mod index;
mod layers;
mod model;
