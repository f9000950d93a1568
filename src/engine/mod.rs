//! The scheduler as plain values. Nothing in this folder waits, reads a clock or touches a network: every function is
//! told the time, and asking early is harmless.
//!
//! [`Machine`] is one lane, for whoever wants to schedule without tokio, or in virtual time as the tests and benches do. Its parts, by
//! the field's words:
//!
//! | here | what it is |
//! |---|---|
//! | `bucket`, `refill` | a token bucket (GCRA): one limiter; the same kept by every charge rule at once |
//! | `window` | a log of admissions: sliding or fixed windows, slices, calendar days |
//! | `belief`, `slices` | a version space: the shapes and charge rules that may be true of one limit |
//! | `sight` | what one answer's header says, and between which instants it was written |
//! | `gate`, `gates` | one limit with its refusals; all limits of a lane, all or nothing |
//! | `toll`, `paid`, `ledger` | what a request takes by every rule; sums of that; the lane's books |
//! | `around`, `sent` | which other requests an answer's numbers can hold |
//! | `queue`, `served`, `sums` | deficit round robin among tenants within priorities, and forecasts of it |
//! | `concurrency` | how many requests at once: fixed, or additive increase and multiplicative decrease |
//! | `ceiling` | the rate of sending that the provider bears, after it complained |
//! | `breaker` | the circuit breaker |
//! | `predict` | how long the next answer will be |
//! | `bound` | the least time that the limits allow |

mod around;
mod ask;
mod belief;
mod book;
mod bound;
mod breaker;
mod bucket;
mod ceiling;
mod change;
mod concurrency;
mod forecast;
mod gate;
mod gates;
mod health;
mod ledger;
mod machine;
mod moment;
mod paid;
mod predict;
mod queue;
mod rate;
mod refill;
mod refusal;
mod retry;
mod rotation;
mod route;
mod sent;
mod served;
mod sight;
mod slices;
mod sums;
mod tenant;
mod toll;
mod watch;
mod window;

pub use ask::{Ask, End, Grant, Submitted, Ticket, Wake};
pub use breaker::{Breaker, BreakerStatus};
pub use bucket::Bucket;
pub use ceiling::{Ceiling, CeilingStatus};
pub use change::Change;
pub use concurrency::Concurrency;
pub use forecast::{Forecast, Hold};
pub use gate::{GateStatus, Source};
pub use gates::{Gates, Overdrawn, Wait};
pub use health::{Call, CallStats, Health, HealthBook, Outcome, Quantiles, Recent};
pub use machine::{LaneStatus, Machine};
pub use moment::Moment;
pub use predict::{Guess, Output, Predictions, Predictor, Predictors};
pub use queue::Priority;
pub use refusal::Refusal;
pub(crate) use retry::seconds;
pub use retry::{Backoff, RetryBudget, RetryPolicy};
pub use rotation::{Member, Out, Rotation};
pub(crate) use route::weight;
pub use route::{Offer, Wish, choose};
pub use tenant::Tenant;
pub(crate) use watch::Watch;
