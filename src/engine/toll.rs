//! What one request pays at the gates of a lane, worked out once for all of them.

use crate::cost::{Charge, Dimension};
use crate::providers::Amounts;

/// A charge, and what every rule makes of its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Toll {
    charge: Charge,
    tokens: Amounts,
}

impl Toll {
    pub(super) fn of(charge: &Charge) -> Self {
        Self { charge: *charge, tokens: Amounts::at_admission(Dimension::Tokens, charge) }
    }

    /// By the dearest rule.
    pub(super) fn most(&self, dimension: Dimension) -> u64 {
        self.charge.get(dimension)
    }

    pub(super) fn by_rule(&self, dimension: Dimension) -> Amounts {
        match dimension {
            Dimension::Tokens => self.tokens,
            _ => Amounts::all(self.most(dimension)),
        }
    }
}
