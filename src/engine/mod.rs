//! The scheduler as plain values. Nothing in this folder waits, reads a clock or touches a network: every function is
//! told the time, and asking early is harmless.

mod breaker;
mod bucket;
mod ceiling;
mod gate;
mod gates;
mod machine;
mod places;
mod queue;
mod rate;
mod retry;

pub use breaker::{Breaker, BreakerStatus, Change};
pub use bucket::Bucket;
pub use ceiling::{Ceiling, CeilingStatus};
pub use gate::{Books, Gate, GateStatus, Settlement, Source};
pub use gates::{Gates, Wait};
pub use machine::{Ask, End, Forecast, Grant, Hold, LaneStatus, Machine, Refusal, Submitted, Ticket, Wake};
pub use places::Places;
pub use queue::{Priority, Tenant};
pub(crate) use retry::seconds;
pub use retry::{Backoff, RetryBudget, RetryPolicy};
