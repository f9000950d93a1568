//! A rate-limit-aware request scheduler for LLM APIs.

mod cost;
pub mod engine;
#[cfg(feature = "mock")]
pub mod mock;
pub mod providers;
pub mod tokens;

pub use cost::{Charge, DAY, Dimension, Estimate, Limit, MINUTE, Usage};
pub use engine::RetryPolicy;
