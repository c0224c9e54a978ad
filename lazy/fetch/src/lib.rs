//! Brings in the bytes of an image that a reader asks for: verified, once, in the right order, and keeps them.
#![forbid(unsafe_code)]
