//! What one request pays at the gates of a lane, worked out once for all of them.

use crate::cost::{Charge, Dimension};
use crate::providers::{Amounts, Rule};

/// What every rule makes of a charge, in each dimension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Toll([Amounts; Dimension::ALL.len()]);

impl Toll {
    pub(super) fn of(charge: &Charge) -> Self {
        Self(Dimension::ALL.map(|dimension| Amounts::at_admission(dimension, charge)))
    }

    /// By the dearest rule.
    pub(super) fn most(&self, dimension: Dimension) -> u64 {
        self.by_rule(dimension)[Rule::LargerPlusCap]
    }

    pub(super) fn by_rule(&self, dimension: Dimension) -> &Amounts {
        &self.0[dimension as usize]
    }
}
