//! What is written is read back by the parsers of `lazy-index`, decoded group by group, and compared with what went in.

mod index;
mod layers;
mod model;
mod soci;
