//! Which limits the mock has.

use std::time::Duration;

use super::config::MockLimits;
use crate::cost::{DAY, MINUTE, SECOND, Shape};

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of `MockLimits`, where they are explained")]
pub enum Which {
    Rps,
    Rpm,
    Rpd,
    Tpm,
    Tpd,
    Itpm,
    Otpm,
}

impl Which {
    pub(crate) const ALL: [Which; 7] =
        [Which::Rps, Which::Rpm, Which::Rpd, Which::Tpm, Which::Tpd, Which::Itpm, Which::Otpm];

    /// `RPS`, `RPM`, `RPD`, `TPM`, `TPD`, `ITPM` or `OTPM`.
    pub fn name(self) -> &'static str {
        match self {
            Which::Rps => "RPS",
            Which::Rpm => "RPM",
            Which::Rpd => "RPD",
            Which::Tpm => "TPM",
            Which::Tpd => "TPD",
            Which::Itpm => "ITPM",
            Which::Otpm => "OTPM",
        }
    }

    /// What is counted, as in the error's `type`.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Which::Rps | Which::Rpm | Which::Rpd => "requests",
            Which::Tpm | Which::Tpd | Which::Itpm | Which::Otpm => "tokens",
        }
    }

    pub(crate) fn period(self) -> &'static str {
        match self {
            Which::Rps => "sec",
            Which::Rpm | Which::Tpm | Which::Itpm | Which::Otpm => "min",
            Which::Rpd | Which::Tpd => "day",
        }
    }

    pub(crate) fn window(self) -> Duration {
        match self {
            Which::Rps => SECOND,
            Which::Rpm | Which::Tpm | Which::Itpm | Which::Otpm => MINUTE,
            Which::Rpd | Which::Tpd => DAY,
        }
    }

    pub(crate) fn amount(self, limits: &MockLimits) -> Option<u64> {
        match self {
            Which::Rps => limits.rps,
            Which::Rpm => limits.rpm,
            Which::Rpd => limits.rpd,
            Which::Tpm => limits.tpm,
            Which::Tpd => limits.tpd,
            Which::Itpm => limits.itpm,
            Which::Otpm => limits.otpm,
        }
    }

    pub(crate) fn shape(self, limits: &MockLimits) -> Shape {
        let shapes = &limits.shapes;
        match self {
            Which::Rps => shapes.rps,
            Which::Rpm => shapes.rpm,
            Which::Rpd => shapes.rpd,
            Which::Tpm => shapes.tpm,
            Which::Tpd => shapes.tpd,
            Which::Itpm => shapes.itpm,
            Which::Otpm => shapes.otpm,
        }
    }

    pub(super) fn requested(self, tokens: u64, input: u64) -> u64 {
        match self {
            Which::Rps | Which::Rpm | Which::Rpd => 1,
            Which::Tpm | Which::Tpd => tokens,
            Which::Itpm => input,
            // Counted when it is there; no cap reserves it.
            Which::Otpm => 0,
        }
    }
}
