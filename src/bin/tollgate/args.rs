//! What was typed. What it means is decided in `run::settings` and `mock`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tollgate::mock::{LimitChange, NamedError, Outage, OutageKind};
use tollgate::{Limits, Provider, Shape};

use crate::doctor::DoctorArgs;
use crate::limits::LimitsArgs;

/// Sends requests to LLM APIs as fast as the rate limits allow, and not faster.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send every request of a file, within the rate limits
    Run(Box<RunArgs>),
    /// Serve an imitation of the OpenAI API that enforces rate limits
    Mock(Box<MockArgs>),
    /// Find out why calls fail, or what an error means
    Doctor(Box<DoctorArgs>),
    /// Show what is known of the limits: configured, published, learned, and asked for
    Limits(Box<LimitsArgs>),
}

const RUN_EXAMPLES: &str = "\
Examples:
  Try it, without a key and without a network:
    tollgate run examples/requests.jsonl --mock
  Send a file to OpenAI with the limits of tier 2; results go to requests.results.jsonl:
    export OPENAI_API_KEY=sk-…
    tollgate run requests.jsonl --tier 2
  The same command again does what is missing, after Ctrl-C or a crash too:
    tollgate run requests.jsonl --tier 2
  Limits of your own, another provider, a report for a program to read:
    tollgate run requests.jsonl --provider groq --rpm 30 --tpm 6k --report report.json
  In a pipe:
    jq -c . requests.json | tollgate run - --tier 1 > results.jsonl

Each line of FILE is either the body of an API call, with an optional `metadata` that is carried to the result (and not sent,
unless the body says `store: true`), or a line in the shape of OpenAI's Batch API (custom_id, method, url, body).

Exit codes: 0 all rows succeeded, 1 some failed or were left, 2 wrong arguments or input (nothing was sent), 130 interrupted.";

#[derive(Debug, Parser)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The requests, one JSON object a line; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) input: PathBuf,

    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) mock: MockedArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rows and results")]
pub(crate) struct RowArgs {
    /// Where the results go; `-` is standard output [default: NAME.results.jsonl beside FILE]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Send plain bodies to this path below the base URL, instead of the one that their shape tells
    #[arg(long, value_name = "PATH")]
    pub(crate) endpoint: Option<String>,

    /// Go on without the lines that cannot be sent
    #[arg(long)]
    pub(crate) skip_invalid: bool,

    /// Run those rows again whose result is a failure
    #[arg(long)]
    pub(crate) retry_failed: bool,

    /// What to do with rows that an earlier run sent and that have no result: the provider may have done them
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Uncertain::Run)]
    pub(crate) uncertain: Uncertain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Uncertain {
    /// Send them again
    Run,
    /// Leave them without a result
    Skip,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where to send")]
pub(crate) struct TargetArgs {
    /// Send to a mock inside this process, which enforces the same limits: no key, no network
    #[arg(long, conflicts_with_all = ["base_url", "api_key_env"])]
    pub(crate) mock: bool,

    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// How long to wait for one answer [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
}

/// Whose API is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// A configuration file (TOML); the other options override its first account
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Whose rules and headers apply: openai, azure, anthropic, gemini, groq, mistral, or compatible for any other server
    /// that speaks OpenAI's API [default: told by the address]
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<Provider>,

    /// The address of the API, `/v1` included [default: OPENAI_BASE_URL, or the provider's]
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// The environment variable that holds the API key [default: OPENAI_API_KEY, or the provider's]. OpenAI is also told the
    /// organisation and project of OPENAI_ORG_ID and OPENAI_PROJECT_ID, if they are set
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) api_key_env: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Take the published limits of this tier, by number or name
    #[arg(long, value_name = "TIER")]
    pub(crate) tier: Option<String>,

    #[command(flatten)]
    pub(crate) amounts: AmountArgs,

    /// How the limits are enforced: refill, sliding, fixed, slice:SECONDS, calendar:pacific or calendar:utc; for one of
    /// them rpm=…, tpm=… or day=… [default: as the provider does, or found out from its answers]
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(ShapeOf, Shape)>,

    /// No limits but those that the provider's headers show
    #[arg(long, conflicts_with_all = ["tier", "rps", "rpm", "rpd", "tpm", "tpd", "itpm", "otpm", "config"])]
    pub(crate) unlimited: bool,

    /// Keep in this file what answers show of the limits (numbers, shapes, charge rules), and start from what it holds
    #[arg(long, value_name = "FILE")]
    pub(crate) learned: Option<PathBuf>,

    /// Requests under way at once [default: as many as the system allows, at most 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_concurrent: Option<u32>,

    /// Attempts per row, the first included [default: 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_attempts: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct AmountArgs {
    /// Requests per minute (like the next ones: 500, 30_000, 200k or 2m)
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) rpm: Option<u64>,
    /// Requests per second
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) rps: Option<u64>,
    /// Requests per day
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) rpd: Option<u64>,
    /// Tokens per minute
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) tpm: Option<u64>,
    /// Tokens per day
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) tpd: Option<u64>,
    /// Input tokens per minute
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) itpm: Option<u64>,
    /// Output tokens per minute
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) otpm: Option<u64>,
}

/// Writes the shapes that were typed over `limits`.
pub(crate) fn shapes_over(typed: &[(ShapeOf, Shape)], limits: &mut Limits) {
    for (which, shape) in typed {
        let place = match which {
            ShapeOf::All => &mut limits.shape,
            ShapeOf::Requests => &mut limits.request_shape,
            ShapeOf::Tokens => &mut limits.token_shape,
            ShapeOf::Days => &mut limits.day_shape,
        };
        *place = Some(*shape);
    }
}

/// Which limits a `--shape` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShapeOf {
    All,
    Requests,
    Tokens,
    Days,
}

/// `sliding`, or `rpm=slice:10`.
pub(crate) fn shape(text: &str) -> Result<(ShapeOf, Shape), String> {
    let (which, shape) = match text.split_once('=') {
        None => (ShapeOf::All, text),
        Some(("rpm" | "rps", shape)) => (ShapeOf::Requests, shape),
        Some(("tpm", shape)) => (ShapeOf::Tokens, shape),
        Some(("day" | "rpd" | "tpd", shape)) => (ShapeOf::Days, shape),
        Some((which, _)) => return Err(format!("`{which}` names no limit; expected rpm, tpm or day")),
    };
    shape.parse().map(|shape| (which, shape)).map_err(|error: tollgate::UnknownShape| error.to_string())
}

impl AmountArgs {
    /// Writes what was typed over `limits`.
    pub(crate) fn over(self, limits: &mut Limits) {
        let Self { rpm, rps, rpd, tpm, tpd, itpm, otpm } = self;
        limits.rps = rps.or(limits.rps);
        limits.rpm = rpm.or(limits.rpm);
        limits.rpd = rpd.or(limits.rpd);
        limits.tpm = tpm.or(limits.tpm);
        limits.tpd = tpd.or(limits.tpd);
        limits.itpm = itpm.or(limits.itpm);
        limits.otpm = otpm.or(limits.otpm);
    }

    /// Whether any was typed.
    pub(crate) fn any(self) -> bool {
        let Self { rpm, rps, rpd, tpm, tpd, itpm, otpm } = self;
        [rpm, rps, rpd, tpm, tpd, itpm, otpm].iter().any(Option::is_some)
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Equal rows")]
pub(crate) struct CacheArgs {
    /// Keep answers in this folder, and send no row whose answer is there; only rows with temperature 0, and embeddings
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,

    /// The same, in memory and for this run only
    #[arg(long, conflicts_with = "cache")]
    pub(crate) cache_memory: bool,

    /// Rows of any temperature: equal ones get the same answer
    #[arg(long)]
    pub(crate) cache_sampled: bool,

    /// How long an answer is good [default: 86400]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) cache_ttl: Option<Duration>,

    /// When the provider fails, take an answer that has been too old for no longer than this
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) stale_if_error: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --mock")]
pub(crate) struct MockedArgs {
    /// How long the mock's answers take, give or take a quarter [default: 0.8]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "mock")]
    pub(crate) mock_latency: Option<Duration>,

    /// The mock's seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) mock_seed: u64,

    /// Let the mock give back tokens that were reserved and not used
    #[arg(long, requires = "mock")]
    pub(crate) mock_settle: bool,

    /// How the mock enforces its limits, written as for --shape [default: as --shape says, else refill]
    #[arg(long, value_name = "SHAPE", value_parser = shape, requires = "mock")]
    pub(crate) mock_shape: Vec<(ShapeOf, Shape)>,

    /// What the mock charges at admission
    #[arg(long, value_enum, value_name = "RULE", default_value_t = ChargeArg::Sum)]
    pub(crate) mock_charge: ChargeArg,

    /// Of what instant the mock's headers tell
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = StampArg::Completion)]
    pub(crate) mock_headers: StampArg,

    /// After so many seconds the mock's limits become this many times what they were; may be given several times
    #[arg(long, value_name = "SECONDS:FACTOR", value_parser = change, requires = "mock")]
    pub(crate) mock_change: Vec<LimitChange>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to tell")]
pub(crate) struct TalkArgs {
    /// Write the figures of the summary to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Serve figures for Prometheus at http://ADDR/metrics meanwhile: a port of this machine, or address:port
    #[arg(long, value_name = "ADDR", value_parser = socket)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Post what happens (an outage, a key that is refused, a limit that is used up …) to this address, signed as Standard
    /// Webhooks says
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,

    /// The environment variable that holds the secret for that [default: TOLLGATE_WEBHOOK_SECRET]
    #[arg(long, value_name = "VARIABLE", requires = "webhook")]
    pub(crate) webhook_secret_env: Option<String>,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Tell each row that fails
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

const MOCK_EXAMPLES: &str = "\
Examples:
  The limits that OpenAI gives gpt-4o-mini in tier 1, answers after about 0.8 s:
    tollgate mock --tier 1 --model gpt-4o-mini --latency 0.8
  Limits of your own, and one request in fifty fails:
    tollgate mock --rpm 60 --tpm 30k --error-503 0.02
  Requests in slices of ten seconds and tokens in fixed minutes, as Azure counts them; everything halves after two minutes:
    tollgate mock --rpm 60 --tpm 30k --shape rpm=slice:10 --shape tpm=fixed --change 120:0.5
  Then, in another terminal:
    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=anything python my_script.py
    curl http://127.0.0.1:8080/stats";

#[derive(Debug, Parser)]
#[command(after_help = MOCK_EXAMPLES)]
pub(crate) struct MockArgs {
    /// The port to listen on; 0 is any free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,

    /// An API key to accept; may be given several times [default: any key]
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Vec<String>,

    /// Speak as this provider: its headers, errors and key header; openai, azure, anthropic, gemini, groq or mistral
    #[arg(long, value_name = "NAME", default_value = "openai")]
    pub(crate) dialect: Provider,

    #[command(flatten)]
    pub(crate) limits: MockLimitArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits (of each key and model)")]
pub(crate) struct MockLimitArgs {
    /// Enforce the provider's published limits of this tier
    #[arg(long, value_name = "TIER")]
    pub(crate) tier: Option<String>,

    /// Whose limits of that tier
    #[arg(long, value_name = "MODEL", default_value = "gpt-4o-mini")]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) amounts: AmountArgs,

    /// How the limits are enforced: refill, sliding, fixed, slice:SECONDS, calendar:pacific or calendar:utc; for one of
    /// them rpm=…, tpm=… or day=… [default: refill]
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    pub(crate) shape: Vec<(ShapeOf, Shape)>,

    /// When the first whole window of fixed and slice begins, after the start [default: told by the seed]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) phase: Option<Duration>,

    /// After so many seconds all limits become this many times what they were; may be given several times
    #[arg(long, value_name = "SECONDS:FACTOR", value_parser = change)]
    pub(crate) change: Vec<LimitChange>,

    /// What a request is charged at admission
    #[arg(long, value_enum, value_name = "RULE", default_value_t = ChargeArg::Sum)]
    pub(crate) charge: ChargeArg,

    /// How its input is counted for that
    #[arg(long, value_enum, value_name = "HOW", default_value_t = CountArg::Chars)]
    pub(crate) count: CountArg,

    /// Output tokens charged for a request without a cap; 0 charges them when the answer is complete
    #[arg(long, value_name = "N", default_value_t = 217)]
    pub(crate) predict: u64,

    /// Correct the charge to the real usage when the answer is complete [default]
    #[arg(long, overrides_with = "no_settle")]
    pub(crate) settle: bool,

    /// Leave the charge as it was at admission
    #[arg(long)]
    pub(crate) no_settle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChargeArg {
    /// The input and the output cap together
    Sum,
    /// The larger of the two
    Max,
    /// The input, and the real output when the answer is complete
    Input,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CountArg {
    /// Characters ÷ 4
    Chars,
    /// As in the answer's usage
    Exact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StampArg {
    /// There are no rate-limit headers
    None,
    /// As it was when the request was admitted
    Admission,
    /// As it is when the answer is complete
    Completion,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Behaviour")]
pub(crate) struct BehaviourArgs {
    /// How long answers take, give or take a quarter
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub(crate) latency: Duration,

    /// Of what instant the rate-limit headers tell
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = StampArg::Completion)]
    pub(crate) headers: StampArg,

    /// Seed of latencies, lengths, faults and the phase of windows
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Faults (each a probability from 0 to 1)")]
pub(crate) struct FaultArgs {
    /// Answer 503, overloaded
    #[arg(long = "error-503", value_name = "P", default_value_t = 0.0)]
    pub(crate) error_503: f64,
    /// Answer 500
    #[arg(long = "error-500", value_name = "P", default_value_t = 0.0)]
    pub(crate) error_500: f64,
    /// Answer 429 although the limits have room
    #[arg(long = "error-429", value_name = "P", default_value_t = 0.0)]
    pub(crate) error_429: f64,
    /// Close the connection without an answer
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) reset: f64,
    /// Never answer
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) hang: f64,
    /// Let the body trickle
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) slow_body: f64,
    /// Close the connection after half of the body
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) half_body: f64,
    /// Fail every call from one second up to another: with 503, or with `:reset` or `:hang`; may be given several times
    #[arg(long, value_name = "FROM..TO[:KIND]", value_parser = outage, help_heading = "Outages")]
    pub(crate) outage: Vec<Outage>,
    /// Answer every call with this error, such as insufficient_quota; a wrong name lists them all
    #[arg(long, value_name = "NAME", help_heading = "Outages")]
    pub(crate) error: Option<NamedError>,
    /// Report this incident on the status page, /status/api/v2/summary.json
    #[arg(long, value_name = "TEXT", help_heading = "Outages")]
    pub(crate) incident: Option<String>,
}

/// `60:0.5`.
fn change(text: &str) -> Result<LimitChange, String> {
    let wrong = || "expected SECONDS:FACTOR, such as 60:0.5".to_owned();
    let (at, factor) = text.split_once(':').ok_or_else(wrong)?;
    let factor: f64 = factor.trim().parse().map_err(|_| wrong())?;
    if !(factor > 0.0 && factor.is_finite()) {
        return Err(wrong());
    }
    Ok(LimitChange { at: seconds(at)?, factor })
}

/// `9464`, which only this machine can reach, or `0.0.0.0:9464`.
fn socket(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    port.or_else(|_| text.parse())
        .map_err(|_| "expected a port, or an address with one, such as 127.0.0.1:9464".to_owned())
}

/// A number of seconds, fractions allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim().parse().map_err(|_| "expected a number of seconds, such as 0.8".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected a number of seconds from 0 on".to_owned())
}

/// `5..35`, `5..35:hang`: seconds after the start, and what it looks like.
fn outage(text: &str) -> Result<Outage, String> {
    let (times, kind) = text.split_once(':').unwrap_or((text, "503"));
    let kind = match kind {
        "503" => OutageKind::Error503,
        "reset" => OutageKind::Reset,
        "hang" => OutageKind::Hang,
        other => return Err(format!("unknown kind `{other}`; expected 503, reset or hang")),
    };
    let (from, to) = times.split_once("..").ok_or("expected two numbers of seconds, such as 5..35")?;
    Ok(Outage { from: seconds(from)?, to: seconds(to)?, kind })
}

/// A whole number above zero, as people write large ones: `30_000`, `30,000`, `200k`, `2m`.
fn amount(text: &str) -> Result<u64, String> {
    let wrong = || "expected a whole number above 0, such as 500, 30_000, 200k or 2m".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = match lower.strip_suffix(['k', 'm']) {
        Some(digits) => (digits, if lower.ends_with('k') { 1_000 } else { 1_000_000 }),
        None => (lower.as_str(), 1),
    };
    let plain: String = digits.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let number: u64 = plain.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|amount| *amount > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn outages_are_read_with_and_without_a_kind() {
        let read = |text| outage(text).map(|outage| (outage.from.as_millis(), outage.to.as_millis(), outage.kind));
        assert_eq!(read("5..35"), Ok((5_000, 35_000, OutageKind::Error503)));
        assert_eq!(read("0.5..1:hang"), Ok((500, 1_000, OutageKind::Hang)));
        for wrong in ["5", "5..", "a..b", "1..2:fire"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        let read = |text| socket(text).map(|address| address.to_string()).ok();
        assert_eq!(read("9464").as_deref(), Some("127.0.0.1:9464"));
        assert_eq!(read("0.0.0.0:9464").as_deref(), Some("0.0.0.0:9464"));
        assert_eq!(read("[::1]:0").as_deref(), Some("[::1]:0"));
        for wrong in ["", "localhost", "127.0.0.1", "70000", "1.2.3.4:x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let read = ["500", "30_000", "30,000", "200k", "2M"].map(|text| amount(text).ok());
        assert_eq!(read, [500, 30_000, 30_000, 200_000, 2_000_000].map(Some));
        for wrong in ["0", "", "k", "-1", "1.5", "99999999999999999999", "99999999999999999k", "5x"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
    }
}
