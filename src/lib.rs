#![cfg_attr(feature = "client", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "client"), doc = "A rate-limit-aware request scheduler for LLM APIs.")]

mod account;
mod attempt;
mod builder;
#[cfg(feature = "cache")]
mod cache;
#[cfg(feature = "client")]
mod client;
mod clock;
mod config;
mod cost;
mod endpoint;
pub mod engine;
mod error;
mod event;
mod fallback;
#[cfg_attr(not(feature = "client"), path = "inspect_off.rs")]
mod inspect;
mod lane;
mod learned;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics_off.rs"]
mod metrics;
#[cfg(feature = "mock")]
pub mod mock;
#[cfg(feature = "client")]
mod monitor;
mod permit;
pub mod providers;
mod request;
mod route;
mod scheduler;
mod secret;
#[cfg(feature = "client")]
mod sse;
#[cfg(feature = "client")]
mod stream;
mod target;
pub mod tokens;
#[cfg_attr(not(feature = "tracing"), path = "trace_off.rs")]
mod trace;
mod watch;
#[cfg(feature = "client")]
mod webhook;

pub use attempt::Attempt;
pub use builder::Builder;
#[cfg(feature = "cache")]
pub use cache::{CacheConfig, CacheStats, Lead, Lookup};
#[cfg(feature = "client")]
pub use client::{Cached, ClientError, Reply};
pub use config::{Account, Config, ConfigError, Key, Limits, Tier};
pub use cost::{Charge, DAY, Dimension, Estimate, Limit, MINUTE, SECOND, Shape, UnknownShape, Usage, Zone};
pub use endpoint::EndpointSnapshot;
pub use engine::{CallStats, Forecast, Health, Hold, Outcome, Priority, Quantiles, Refusal, RetryPolicy};
pub use error::{AcquireError, BoxedError, Error, TryAcquireError};
pub use event::Event;
pub use fallback::{Fallback, FallbackRoute};
pub use lane::Counters;
pub use learned::{Fact, Learned, LearnedError, Spent};
pub use permit::Permit;
pub use providers::{Class, Failure, Provider, Unfit, Unsupported};
pub use request::Request;
/// The HTTP client whose responses [`Scheduler::submit`] reads.
#[cfg(feature = "client")]
pub use reqwest;
pub use route::Waiter;
pub use scheduler::{LaneSnapshot, Scheduler, Snapshot};
pub use secret::Secret;
#[cfg(feature = "client")]
pub use stream::ChatStream;
pub use target::Target;
pub use watch::WatchConfig;
#[cfg(feature = "client")]
pub use webhook::{WebhookConfig, WebhookStats};
