//! Networks of containers: namespaces, CNI plug-ins, published ports, and what cleans them up.
#![forbid(unsafe_code)]
