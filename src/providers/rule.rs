//! What a provider takes from a token limit for one request. Nobody publishes it exactly, so it is data to choose from.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use super::Provider;
use crate::cost::{Charge, Dimension};

/// A rule by which a request may be charged.
///
/// OpenAI's guide says the maximum of cap and input, its help centre their sum; recordings fit one or the other. Azure
/// counts characters and never corrects; Groq and Anthropic count real usage in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The larger count of the input, and the output cap. Never less than any other rule takes at admission.
    LargerPlusCap,
    /// Input by the vocabulary, and the output cap.
    TokensPlusCap,
    /// Input by characters, and the output cap.
    CharsPlusCap,
    /// Input by the vocabulary or the output cap, whichever is more.
    TokensOrCap,
    /// Input by characters or the output cap, whichever is more.
    CharsOrCap,
    /// Input by the vocabulary alone.
    Tokens,
    /// Input by characters alone.
    Chars,
    /// What was really used. It is known only in the end; until then as much as by any other rule is reserved.
    Usage,
    /// Input by characters, which nobody corrects, and the real output when it is done; until then likewise.
    CharsThenOutput,
}

impl Rule {
    /// Every rule; the first takes the most.
    pub const ALL: [Rule; 9] = [
        Rule::LargerPlusCap,
        Rule::TokensPlusCap,
        Rule::CharsPlusCap,
        Rule::TokensOrCap,
        Rule::CharsOrCap,
        Rule::Tokens,
        Rule::Chars,
        Rule::Usage,
        Rule::CharsThenOutput,
    ];

    /// What it takes for `charge` when the request is admitted.
    pub fn amount(self, dimension: Dimension, charge: &Charge) -> u64 {
        Amounts::at_admission(dimension, charge)[self]
    }
}

/// Some of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(u16);

impl Rules {
    /// None of them.
    pub const NONE: Rules = Rules(0);
    /// All of them.
    pub const ALL: Rules = Rules::of(&Rule::ALL);

    /// These rules.
    pub const fn of(rules: &[Rule]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < rules.len() {
            bits |= 1 << rules[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// The rules by which `provider` may be charging a limit of `dimension`. Requests are always counted as such.
    ///
    /// Sources: the rate-limit pages of the providers, and what OpenAI's headers were seen to show.
    pub fn of_provider(provider: Provider, dimension: Dimension) -> Self {
        match (provider, dimension) {
            (_, Dimension::Requests) => Self::of(&[Rule::LargerPlusCap]),
            (Provider::Openai | Provider::Compatible, Dimension::Tokens) => Self::ALL,
            (Provider::Azure, Dimension::Tokens) => Self::of(&[Rule::LargerPlusCap, Rule::CharsPlusCap, Rule::Chars]),
            (Provider::Openai | Provider::Compatible | Provider::Azure, _) => {
                Self::of(&[Rule::LargerPlusCap, Rule::Usage])
            }
            (Provider::Anthropic | Provider::Gemini | Provider::Groq | Provider::Mistral, _) => {
                Self::of(&[Rule::Usage])
            }
        }
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether `rule` is one of them.
    pub const fn contains(self, rule: Rule) -> bool {
        self.0 & 1 << rule as u8 != 0
    }

    /// Without `rule`.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// The rules that are in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rules that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// One after another, the dearest first.
    pub fn iter(self) -> impl Iterator<Item = Rule> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let rule = *Rule::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(rule)
        })
    }

    /// Those by which a request costs in the end what it really used, or a part of that.
    pub const SETTLED: Rules = Rules::of(&[Rule::Usage, Rule::CharsThenOutput]);

    /// Those that can bind: the first rule takes at least as much as all others at admission, so where it is possible,
    /// only usage beyond the reserve has to be looked at besides.
    #[must_use]
    pub const fn binding(self) -> Self {
        const DEAREST: Rules = Rules::of(&[Rule::LargerPlusCap]).or(Rules::SETTLED);
        if self.contains(Rule::LargerPlusCap) { self.and(DEAREST) } else { self }
    }
}

/// One number for each rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts([u64; Rule::ALL.len()]);

impl Amounts {
    /// What each rule takes for `charge` at admission.
    #[inline]
    pub fn at_admission(dimension: Dimension, charge: &Charge) -> Self {
        if dimension != Dimension::Tokens {
            return Self::all(charge.get(dimension));
        }
        let Charge { tokens, input_tokens: exact, input_by_chars: chars, output_tokens: cap, .. } = *charge;
        let by_rule = [
            tokens,
            exact.saturating_add(cap),
            chars.saturating_add(cap),
            exact.max(cap),
            chars.max(cap),
            exact,
            chars,
            tokens,
            tokens,
        ];
        Self(by_rule.map(|amount| amount.min(tokens)))
    }

    /// The same number for every rule.
    pub const fn all(amount: u64) -> Self {
        Self([amount; Rule::ALL.len()])
    }

    /// Applies `change` to every number and its counterpart in `other`.
    #[must_use]
    #[inline]
    pub fn with(self, other: &Amounts, change: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| change(self.0[i], other.0[i])))
    }

    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: &Amounts) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// The difference, not below zero.
    #[must_use]
    pub fn minus(self, other: &Amounts) -> Self {
        self.with(other, u64::saturating_sub)
    }
}

impl Index<Rule> for Amounts {
    type Output = u64;

    fn index(&self, rule: Rule) -> &u64 {
        &self.0[rule as usize]
    }
}

impl IndexMut<Rule> for Amounts {
    fn index_mut(&mut self, rule: Rule) -> &mut u64 {
        &mut self.0[rule as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_rule_takes_its_own_amount() {
        let charge = Charge { requests: 1, tokens: 620, input_tokens: 100, input_by_chars: 120, output_tokens: 500 };
        let amounts = Rule::ALL.map(|rule| rule.amount(Dimension::Tokens, &charge));
        assert_eq!(amounts, [620, 600, 620, 500, 500, 100, 120, 620, 620]);
        assert!(Rule::ALL.iter().all(|rule| rule.amount(Dimension::Requests, &charge) == 1));
    }

    proptest! {
        #[test]
        fn the_first_rule_takes_as_much_as_any(input in 0u64..1 << 40, by_chars in 0u64..1 << 40, output in 0u64..1 << 40) {
            let tokens = input.max(by_chars) + output;
            let charge = Charge { requests: 1, tokens, input_tokens: input, input_by_chars: by_chars, output_tokens: output };
            let first = Rule::ALL[0].amount(Dimension::Tokens, &charge);
            prop_assert!(Rule::ALL.iter().all(|rule| rule.amount(Dimension::Tokens, &charge) <= first));
        }
    }
}
