//! What is known about each provider, as pure functions and data: header dialects, error bodies, charge rules, tiers.
//! Nothing here waits, reads a clock or touches a network; dates are resolved against a wall-clock argument.
//!
//! Everything that comes from a server is taken leniently: what cannot be read is absent, never an error or a panic.

mod adapt;
mod auth;
mod charge;
mod classify;
mod dialect;
mod duration;
mod headers;
mod models;
mod profile;
mod provider;
mod retire;
mod rule;
mod status;
mod tiers;
mod usage;

use std::time::Duration;

pub use adapt::{Adapted, Taker, Unfit, Unsupported, adapt};
pub use charge::{at_admission, at_completion, counts_when_done, is_guess};
pub(crate) use classify::clean;
pub use classify::{Class, Failure, LimitHit, Retry, classify, classify_stream_error, is_error_body};
pub(crate) use classify::{classify_sent, is_error_reply};
#[cfg(feature = "client")]
pub(crate) use classify::{classify_sent_stream_error, mask::hide, mentions};
pub(crate) use duration::since_midnight;
pub use duration::{parse_duration, parse_retry_after, until_midnight, until_pacific_midnight};
pub use headers::{Observation, Reading, observe};
pub use models::pool_of;
pub use profile::shape_of;
pub use provider::{Provider, UnknownProvider};
pub use retire::{Retirement, Scope, retirement};
pub use rule::{Amounts, Rule, Rules};
pub use status::{Component, Incident, Indicator, StatusPage, StatusReport};
pub use tiers::{TierLimits, as_of, has_tier, lookup, models, tiers};
#[cfg(feature = "client")]
pub(crate) use usage::usage_in_event;
pub use usage::{usage_in_bytes, usage_of};

/// The window of a monthly allowance. Providers count calendar months; the longest one is never too short.
const MONTH: Duration = Duration::from_secs(31 * 86_400);
