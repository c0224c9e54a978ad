//! SOCI.
