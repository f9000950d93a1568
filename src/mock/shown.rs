//! What the mock tells of its limits: in a refusal, and in every answer's headers.

use std::time::Duration;

use super::which::Which;
use crate::providers::Provider;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The limit that holds it longest.
    pub which: Which,
    /// The limit's amount.
    pub limit: u64,
    /// Whole, rounded up. Of a limit that is cut into slices, what is used of the whole window.
    pub used: u64,
    /// What the request would take.
    pub requested: u64,
    /// Until the request fits if nobody else comes; `None` when it is larger than the limit and never will.
    pub wait: Option<Duration>,
}

/// What the headers show of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// Its amount.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// Refill: until it is full again. Fixed windows, slices, calendar days: until the window ends. Sliding: until the
    /// oldest admission leaves the window.
    pub reset: Duration,
    /// The window that the amount is for.
    pub window: Duration,
}

/// What the headers show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Of RPM or RPD; in Azure's dialect of the slice that they are cut into.
    pub requests: Option<Gauge>,
    /// Of TPM or TPD.
    pub tokens: Option<Gauge>,
    /// Of ITPM.
    pub input: Option<Gauge>,
    /// Of OTPM.
    pub output: Option<Gauge>,
    /// The tokens that the request was charged in the end, which Mistral shows.
    pub charged: Option<u64>,
    pub(crate) dialect: Provider,
    /// The wall clock, since 1970.
    pub(crate) wall: Duration,
}
