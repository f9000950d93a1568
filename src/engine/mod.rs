//! The scheduler as plain values. Nothing in this folder waits, reads a clock or touches a network: every function is
//! told the time, and asking early is harmless.

mod belief;
mod book;
mod bound;
mod breaker;
mod bucket;
mod ceiling;
mod change;
mod gate;
mod gates;
mod health;
mod machine;
mod paid;
mod places;
mod predict;
mod queue;
mod rate;
mod refill;
mod retry;
mod rotation;
mod route;
mod sent;
mod sight;
mod tenant;
mod toll;
mod watch;
mod window;

pub use breaker::{Breaker, BreakerStatus};
pub use bucket::Bucket;
pub use ceiling::{Ceiling, CeilingStatus};
pub use change::Change;
pub use gate::{Gate, GateStatus, Source};
pub use gates::{Gates, Overdrawn, Wait};
pub use health::{Call, Health, HealthBook, Outcome, Quantiles, Recent, Window};
pub use machine::{Ask, End, Forecast, Grant, Hold, LaneStatus, Machine, Refusal, Submitted, Ticket, Wake};
pub use places::Places;
pub use predict::{Guess, Output, Predictions, Predictor, Predictors};
pub use queue::Priority;
pub(crate) use retry::seconds;
pub use retry::{Backoff, RetryBudget, RetryPolicy};
pub use rotation::{Member, Out, Rotation};
pub use route::{Offer, Wish, choose, weight};
pub use tenant::Tenant;
pub use watch::Watch;
