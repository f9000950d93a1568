//! A provider to test against: an OpenAI-compatible HTTP/1.1 server that enforces limits per API key, as OpenAI does or in
//! one of the other ways that are in use.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use tollgate::mock::{Mock, MockConfig, MockLimits};
//!
//! let limits = MockLimits { rpm: Some(500), tpm: Some(200_000), ..MockLimits::default() };
//! let mock = Mock::start(MockConfig { limits, ..MockConfig::default() }).await?;
//! println!("export OPENAI_BASE_URL={}", mock.url());
//! let stats = mock.shutdown().await;
//! assert_eq!(stats.refused.total(), 0);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! What it does as the real one: charges tokens at admission by a rule ([`ChargeRule`]), refuses with OpenAI's texts
//! and wait hints, tells its books in the `x-ratelimit-*` headers, settles to the real usage, and streams. Each limit has
//! its shape ([`MockShapes`]), and limits may change while it runs. It says all this in OpenAI's words or in those of another
//! provider ([`MockConfig::dialect`]), on the paths of OpenAI's API and those of Azure's SDKs. What it adds: seeded latency, lengths and [`Faults`],
//! every provider's errors by name ([`NamedError`]), a status page at `/status/api/v2/summary.json`, and its own view of
//! what happened ([`Stats`], also at `GET /stats`).
//!
//! The limits alone, without sockets and clock, are a [`Book`].
//!
//! # The books are kept independently
//!
//! Nothing in this folder uses the scheduler's arithmetic. The mock keeps plain levels, logs and counters in exact
//! integers; if the scheduler computes a limit wrongly, the mock cannot make the same mistake.
//!
//! # Limits of the imitation
//!
//! * Tokens are counted as characters ÷ 4 plus a little per message; there is no vocabulary here.
//! * Native APIs of other providers (Anthropic's `/messages`, Gemini's `generateContent`) are not there.
//! * An API key stands for an account: two keys never share a limit.
//! * Answers are plain words. There are no tools, no structured outputs, no files, no audio.

mod answer;
mod ask;
mod body;
mod book;
mod clock;
mod config;
mod dialect;
mod gate;
mod headers;
mod ledger;
mod luck;
mod meter;
mod named;
mod refuse;
mod server;
mod shown;
mod stats;
mod status;
mod which;
mod words;

pub use book::{Admitted, Book};
pub use config::{
    ChargeRule, Count, Faults, Latency, LimitChange, MockConfig, MockLimits, MockShapes, Outage, OutageKind,
    OutputModel, Stamp,
};
pub use named::{NamedError, UnknownError};
pub use server::Mock;
pub use shown::{Gauge, Refusal, Standing};
pub use stats::{FaultCounts, Refused, Stats};
pub use which::Which;
