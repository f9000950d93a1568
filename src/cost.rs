//! What a request takes and what it used: the vocabulary of the books.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dimension {
    /// Calls, whatever their size.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Tokens of the prompt.
    InputTokens,
    /// Generated tokens.
    OutputTokens,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dimension::Requests => "requests",
            Dimension::Tokens => "tokens",
            Dimension::InputTokens => "input tokens",
            Dimension::OutputTokens => "output tokens",
        })
    }
}

/// One minute, the window of RPM and TPM.
pub const MINUTE: Duration = Duration::from_secs(60);
/// One day, the window of RPD and TPD.
pub const DAY: Duration = Duration::from_secs(86_400);

/// An amount of a [`Dimension`] per window, e.g. 30,000 tokens per minute.
///
/// The window refills continuously (capacity = amount, `amount / window` per second), as OpenAI, Groq and Anthropic
/// enforce it. `Display` uses the field's short names:
///
/// ```
/// use tollgate::Limit;
/// assert_eq!(Limit::tpm(30_000).to_string(), "TPM 30000");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// What is counted.
    pub dimension: Dimension,
    /// How much of it fits into one window.
    pub amount: u64,
    /// The window; 1 s to 31 d.
    pub window: Duration,
}

impl Limit {
    /// A limit of `amount` per `window`.
    pub const fn new(dimension: Dimension, amount: u64, window: Duration) -> Self {
        Self { dimension, amount, window }
    }

    /// Requests per minute.
    pub const fn rpm(amount: u64) -> Self {
        Self::new(Dimension::Requests, amount, MINUTE)
    }

    /// Requests per day.
    pub const fn rpd(amount: u64) -> Self {
        Self::new(Dimension::Requests, amount, DAY)
    }

    /// Tokens (input and output) per minute.
    pub const fn tpm(amount: u64) -> Self {
        Self::new(Dimension::Tokens, amount, MINUTE)
    }

    /// Tokens (input and output) per day.
    pub const fn tpd(amount: u64) -> Self {
        Self::new(Dimension::Tokens, amount, DAY)
    }

    /// Input tokens per minute.
    pub const fn itpm(amount: u64) -> Self {
        Self::new(Dimension::InputTokens, amount, MINUTE)
    }

    /// Output tokens per minute.
    pub const fn otpm(amount: u64) -> Self {
        Self::new(Dimension::OutputTokens, amount, MINUTE)
    }

    /// The short name without the amount: `RPM`, `TPD`, `ITPM`, or `tokens per 3600 s`.
    pub fn name(&self) -> String {
        let letter = match self.window {
            MINUTE => "M",
            DAY => "D",
            other => return format!("{} per {} s", self.dimension, other.as_secs_f64()),
        };
        let stem = match self.dimension {
            Dimension::Requests => "RP",
            Dimension::Tokens => "TP",
            Dimension::InputTokens => "ITP",
            Dimension::OutputTokens => "OTP",
        };
        format!("{stem}{letter}")
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.amount)
    }
}

/// What a request takes from each dimension. All arithmetic on it saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Charge {
    /// Calls.
    pub requests: u64,
    /// Input and output tokens together, as the provider counts them.
    pub tokens: u64,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
}

impl Charge {
    /// One request of `input` and `output` tokens.
    pub const fn tokens(input: u64, output: u64) -> Self {
        Self { requests: 1, tokens: input.saturating_add(output), input_tokens: input, output_tokens: output }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Charge) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }

    /// What is left of this after taking `other` away, not below zero.
    #[must_use]
    pub const fn minus(&self, other: &Charge) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            input_tokens: self.input_tokens.saturating_sub(other.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(other.output_tokens),
        }
    }

    /// The smaller of both in each dimension.
    #[must_use]
    pub fn at_most(&self, other: &Charge) -> Self {
        Self {
            requests: self.requests.min(other.requests),
            tokens: self.tokens.min(other.tokens),
            input_tokens: self.input_tokens.min(other.input_tokens),
            output_tokens: self.output_tokens.min(other.output_tokens),
        }
    }

    /// The part that counts in `dimension`.
    pub const fn get(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::Tokens => self.tokens,
            Dimension::InputTokens => self.input_tokens,
            Dimension::OutputTokens => self.output_tokens,
        }
    }
}

/// What a request is expected to cost, before it is sent.
///
/// The two readings of the input exist because providers charge by either: OpenAI admits by the larger of a character
/// estimate and the real count, Azure by characters alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Estimate {
    /// Tokens of the input by the model's own vocabulary, or the best substitute.
    pub input: u64,
    /// Tokens of the input by the provider's character rule (about characters / 4).
    pub input_by_chars: u64,
    /// Tokens of output that are reserved: choices × the output cap; `None` when the request sets no cap.
    pub output_cap: Option<u64>,
    /// How many answers the request asks for (`n`); at least 1.
    pub choices: u32,
}

impl Estimate {
    /// An estimate of known sizes: `input` tokens in, at most `output` tokens out.
    ///
    /// ```
    /// use tollgate::Estimate;
    /// assert_eq!(Estimate::tokens(400, 64).output_cap, Some(64));
    /// ```
    pub const fn tokens(input: u64, output: u64) -> Self {
        Self { input, input_by_chars: 0, output_cap: Some(output), choices: 1 }
    }
}

/// What a request really used, as the provider reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// All tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// The part of `input_tokens` that was read from a cache.
    pub cached_tokens: u64,
    /// Generated tokens, reasoning included.
    pub output_tokens: u64,
}

impl Usage {
    /// Usage of `input` and `output` tokens, nothing cached.
    pub const fn new(input: u64, output: u64) -> Self {
        Self { input_tokens: input, cached_tokens: 0, output_tokens: output }
    }

    /// Input and output together.
    pub const fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
