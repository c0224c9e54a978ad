//! The command line of images that are shown before they have arrived: flags of `pull` and `run`, and `lazy ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::registry::LoginArgs;

pub(super) const LAZY_HELP: &str = "\
Examples:
  windlass pull --lazy always registry.example.com/team/app:1.0
  windlass lazy status app
  windlass lazy fill app
  windlass lazy trace export app > app.trace
  windlass lazy metrics | curl --data-binary @- http://pushgateway:9091/metrics/job/windlass";

/// How an image is brought, for `pull` and `run`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LazyArgs {
    /// Show the image before it has arrived: auto, where that is sooner; always; never; required, or fail
    /// [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) lazy: Option<LazyWish>,
    /// Of an image that is shown so, bring in nothing but what is read
    #[arg(long)]
    pub(crate) no_fill: bool,
}

impl LazyArgs {
    /// The word on the wire; empty is the engine's choice.
    pub(crate) fn word(&self) -> String {
        let word = self.lazy.and_then(|wish| wish.to_possible_value());
        word.map(|word| word.get_name().to_owned()).unwrap_or_default()
    }
}

/// Whether an image may be shown before it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LazyWish {
    /// Where that is expected to be sooner.
    Auto,
    /// Wherever it is possible.
    Always,
    /// Everything is brought and unpacked.
    Never,
    /// Or the pull fails.
    Required,
}

/// `lazy ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum LazyVerb {
    /// Say how images are here and why, how much of them, and what their readers waited for
    #[command(visible_alias = "ls")]
    Status(LazyStatusArgs),
    /// Bring in what is missing of an image, and prove it
    Fill(LazyFillArgs),
    /// Print counters in Prometheus' text format
    Metrics,
    /// The recorded order in which a start reads the image: export, import, push
    Trace {
        /// What to do with it.
        #[command(subcommand)]
        verb: TraceVerb,
    },
}

/// `lazy status`.
#[derive(Debug, Args)]
pub(crate) struct LazyStatusArgs {
    /// Image; all of them without one
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

/// `lazy fill`.
#[derive(Debug, Args)]
pub(crate) struct LazyFillArgs {
    /// Image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `lazy trace ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TraceVerb {
    /// Write the trace of an image to standard output
    Export {
        /// Image
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// Take a trace for an image; its next start fetches along it
    Import {
        /// Image
        #[arg(value_name = "IMAGE")]
        image: String,
        /// File of the trace; `-` is standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Send the trace of an image to its registry, as a referrer of its manifest
    Push {
        /// Image
        #[arg(value_name = "IMAGE")]
        image: String,
        /// How the registry is spoken to.
        #[command(flatten)]
        login: Box<LoginArgs>,
    },
}
