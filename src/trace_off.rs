//! Without `tracing` there is nothing to tell.

use std::time::Duration;

use crate::cost::{Charge, Estimate, Usage};
use crate::engine::Call;
use crate::lane::Lane;
use crate::providers::Failure;
use crate::request::Request;
use crate::target::Target;

#[derive(Debug, Default)]
pub(crate) struct RequestTrace {}

impl RequestTrace {
    pub(crate) fn new(_: &Request, _: &Estimate) -> Self {
        Self {}
    }

    pub(crate) fn queued(&mut self, _: &Lane) {}

    pub(crate) fn admitted(&mut self, _: &Target, _: &Charge, _: Duration) -> AttemptTrace {
        AttemptTrace {}
    }

    pub(crate) fn failed(&self, _: &str) {}
}

#[derive(Debug, Default)]
pub(crate) struct AttemptTrace {}

impl AttemptTrace {
    pub(crate) fn within<F: Future>(&self, future: F) -> F {
        future
    }

    pub(crate) fn used(&self, _: &Usage) {}

    pub(crate) fn failed(&self, _: &Failure) {}

    pub(crate) fn failed_for_good(&self, _: &Failure) {}

    pub(crate) fn settled(&self, _: Option<&Call>, _: &Charge, _: Option<&Charge>) {}
}

#[cfg(feature = "client")]
pub(crate) fn unread<T>() {}
