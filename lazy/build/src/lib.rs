//! Makes layers that can be read lazily, and tables of contents of layers that were not made for it.
#![forbid(unsafe_code)]
