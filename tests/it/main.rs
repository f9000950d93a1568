//! The promises of the library, one module each.

mod accounts;
#[cfg(feature = "client")]
mod answers;
mod books;
#[cfg(all(feature = "cache", feature = "mock"))]
mod cache;
mod ceiling;
#[cfg(all(feature = "client", feature = "mock"))]
mod client;
mod day_limits;
#[cfg(all(feature = "client", feature = "mock"))]
mod dialects;
mod events;
mod fallback;
mod floors;
mod health;
mod lane;
#[cfg(feature = "mock")]
mod learning;
mod licences;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "client")]
mod monitor;
mod outage;
#[cfg(all(feature = "client", feature = "mock"))]
mod outage_sockets;
mod predict;
#[cfg(feature = "client")]
mod raw;
#[cfg(feature = "client")]
mod receiver;
mod refusals;
mod runtimes;
mod saturation;
mod secrets;
mod settings;
mod share;
#[cfg(feature = "client")]
mod streams;
#[cfg(feature = "tracing")]
mod trace;
#[cfg(feature = "client")]
mod webhook;
