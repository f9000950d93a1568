//! From a request body to an [`Estimate`](crate::Estimate).
