//! What every list takes.

use clap::Args;

/// `... ls`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ListArgs {
    /// Print only the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `... ls` of what can be filtered.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilteredArgs {
    /// What to print.
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Which, as containerd writes it: name==x, name~=^docker, labels."a.b"==c; a comma is and, several are or
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}
