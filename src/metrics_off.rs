//! Without the `metrics` facade nothing is counted for it.

use crate::cost::Charge;
use crate::engine::{Call, Refusal};
use crate::lane::Lane;

#[derive(Debug, Default)]
pub(crate) struct LaneMetrics {}

impl LaneMetrics {
    pub(crate) fn ended(&self, _: &Lane, _: &Call, _: &Charge, _: Option<&Charge>) {}

    pub(crate) fn retried(&self, _: &Lane) {}

    pub(crate) fn refused(&self, _: &Lane, _: &Refusal) {}
}
