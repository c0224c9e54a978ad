//! What is in a layer and where its bytes are: tables of contents of every format, merged into one immutable index per image.
#![forbid(unsafe_code)]
