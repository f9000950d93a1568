//! What was typed after `tollgate doctor`.

use std::time::Duration;

use clap::Parser;

use crate::args::{AmountArgs, ApiArgs, seconds};

const EXAMPLES: &str = "\
Examples:
  Why do my calls to OpenAI fail?
    tollgate doctor
  Another provider, and whether my settings fit the account's limits (one call of a few tokens, which costs money):
    tollgate doctor --provider groq --config tollgate.toml --model openai/gpt-oss-20b --probe
  What does this error mean?
    tollgate doctor --explain '{\"error\": {\"code\": \"insufficient_quota\", \"message\": \"…\"}}' --status 429
    pbpaste | tollgate doctor --explain -

The last line says in one sentence what is wrong. Exit codes: 0 nothing, 1 something that these checks cannot name, 2 the
arguments or the configuration, 10 the provider, 11 the key, 12 the limits, 13 billing, 14 the network, 15 the clock,
16 your request.";

#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(super) api: ApiArgs,

    /// The model that your calls name
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,

    /// Also send one smallest possible chat request, which costs money: it shows credit and limits
    #[arg(long, requires = "model")]
    pub(super) probe: bool,

    /// Compare the account's limits with those of this tier
    #[arg(long, value_name = "TIER")]
    pub(super) tier: Option<String>,

    #[command(flatten)]
    pub(super) amounts: AmountArgs,

    /// Another status page: the address of its summary.json
    #[arg(long, value_name = "URL")]
    pub(super) status_url: Option<String>,

    /// How long all checks may take together
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "8")]
    pub(super) timeout: Duration,

    /// Explain this error instead: the body of an answer, with or without status line and headers, or an SDK's message; a
    /// file that holds one; or `-` for standard input. Without --provider, the error tells whose it is
    #[arg(long, value_name = "ERROR", allow_hyphen_values = true)]
    pub(super) explain: Option<String>,

    /// The HTTP status of that error
    #[arg(long, value_name = "N", requires = "explain", value_parser = clap::value_parser!(u16).range(100..600))]
    pub(super) status: Option<u16>,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
