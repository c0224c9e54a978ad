//! Shows an image as a tree: a FUSE server that may die at any time, the keeper that outlives it, and the client that commands both.
#![forbid(unsafe_code)]
