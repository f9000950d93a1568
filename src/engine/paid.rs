//! Sums over requests, by dimension and rule.

use crate::cost::{Charge, Dimension};
use crate::providers::{Amounts, Rule};

/// What some requests were charged, by every rule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paid {
    pub(super) requests: u64,
    tokens: Amounts,
    input: Pair,
    output: Pair,
}

/// What was charged at admission, and what was used in the end.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    charged: u64,
    used: u64,
}

/// What some requests are known to have used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    tokens: u64,
    input: u64,
    output: u64,
}

impl Paid {
    /// A request was charged, and has used nothing so far that is known.
    #[inline]
    pub(super) fn add(&mut self, charge: &Charge) {
        self.requests += charge.requests;
        self.tokens = self.tokens.plus(&Amounts::at_admission(Dimension::Tokens, charge));
        for (pair, n) in [(&mut self.input, charge.input_tokens), (&mut self.output, charge.output_tokens)] {
            *pair = Pair { charged: pair.charged.saturating_add(n), used: pair.used.saturating_add(n) };
        }
    }

    /// A request turned out to have used this.
    pub(super) fn correct(&mut self, charge: &Charge, used: &Charge) {
        let by_chars = charge.input_by_chars.saturating_add(used.output_tokens);
        for (rule, used) in [(Rule::Usage, used.tokens), (Rule::CharsThenOutput, by_chars)] {
            self.tokens[rule] = self.tokens[rule].saturating_add(used).saturating_sub(charge.tokens);
        }
        self.input.used = self.input.used.saturating_add(used.input_tokens).saturating_sub(charge.input_tokens);
        self.output.used = self.output.used.saturating_add(used.output_tokens).saturating_sub(charge.output_tokens);
    }

    /// A request never reached the provider.
    pub(super) fn remove(&mut self, charge: &Charge) {
        let mut one = Self::default();
        one.add(charge);
        *self = self.minus(&one);
    }

    /// The requests that are in this and not in `other`.
    pub(super) fn minus(&self, other: &Paid) -> Self {
        let less = |a: Pair, b: Pair| Pair {
            charged: a.charged.saturating_sub(b.charged),
            used: a.used.saturating_sub(b.used),
        };
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.minus(&other.tokens),
            input: less(self.input, other.input),
            output: less(self.output, other.output),
        }
    }

    /// What is known to have been used.
    pub(super) fn known(&self) -> Known {
        Known { tokens: self.tokens[Rule::Usage], input: self.input.used, output: self.output.used }
    }

    /// The same requests, of whose real usage only as much is counted as was `known` before.
    pub(super) fn by_then(&self, known: &Known) -> Self {
        let mut sum = *self;
        (sum.tokens[Rule::Usage], sum.input.used, sum.output.used) = (known.tokens, known.input, known.output);
        sum
    }

    /// The standard deviation of the tokens of a charge, told the sum of their squares.
    pub(super) fn deviation(&self, squares: f64) -> f64 {
        let requests = self.requests.max(1) as f64;
        let mean = self.tokens[Rule::LargerPlusCap] as f64 / requests;
        (squares / requests - mean * mean).max(0.0).sqrt()
    }

    pub(super) fn by_rule(&self, dimension: Dimension) -> Amounts {
        let pair = match dimension {
            Dimension::Requests => return Amounts::all(self.requests),
            Dimension::Tokens => return self.tokens,
            Dimension::InputTokens => self.input,
            Dimension::OutputTokens => self.output,
        };
        let mut amounts = Amounts::all(pair.charged);
        amounts[Rule::Usage] = pair.used;
        amounts
    }
}
