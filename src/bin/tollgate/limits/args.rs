//! What was typed after `tollgate limits`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tollgate::Shape;

use crate::args::{AmountArgs, ApiArgs, ShapeOf, seconds, shape};

const EXAMPLES: &str = "\
Examples:
  What does the tier table say of tier 1?
    tollgate limits --tier 1
  What would hold my requests, and what did earlier runs find out?
    tollgate limits --config tollgate.toml --learned limits.json
  What does the provider itself say, and how much is left now (one call of a few tokens, which costs money)?
    tollgate limits --tier 1 --model gpt-4o --probe";

#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LimitsArgs {
    #[command(flatten)]
    pub(super) api: ApiArgs,

    /// A model; may be given several times [default: all that the configuration, the file of learned limits or else the tier
    /// names]
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Vec<String>,

    /// The published limits of this tier, by number or name
    #[arg(long, value_name = "TIER")]
    pub(super) tier: Option<String>,

    #[command(flatten)]
    pub(super) amounts: AmountArgs,

    /// How the limits are enforced, written as for `run`
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    pub(super) shape: Vec<(ShapeOf, Shape)>,

    /// What earlier runs found out [default: the configuration's `learned_file`]
    #[arg(long, value_name = "FILE")]
    pub(super) learned: Option<PathBuf>,

    /// Send the smallest possible chat request for each --model, by the first account: its answer shows limits and what is
    /// left of them. It is paid like any other call: some ten tokens
    #[arg(long, requires = "model")]
    pub(super) probe: bool,

    /// How long to wait for its answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(super) timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
