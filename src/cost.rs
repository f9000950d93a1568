//! What a request takes and what it used: the vocabulary of the books.

use std::fmt;
use std::str::FromStr;
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

impl Dimension {
    /// Every dimension.
    pub(crate) const ALL: [Dimension; 4] =
        [Dimension::Requests, Dimension::Tokens, Dimension::InputTokens, Dimension::OutputTokens];
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

/// One second, the window of RPS.
pub const SECOND: Duration = Duration::from_secs(1);
/// One minute, the window of RPM and TPM.
pub const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
/// One day, the window of RPD and TPD.
pub const DAY: Duration = Duration::from_secs(86_400);

/// An amount of a [`Dimension`] per window, e.g. 30,000 tokens per minute.
///
/// How the provider enforces it is its [`Shape`]; without one, the provider's profile decides, or the answers show it.
/// `Display` uses the field's short names:
///
/// ```
/// use tollgate::{Limit, Shape};
/// assert_eq!(Limit::tpm(30_000).to_string(), "TPM 30000");
/// assert_eq!(Limit::rpm(120).shaped(Shape::Sliding).shape, Some(Shape::Sliding));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// What is counted.
    pub dimension: Dimension,
    /// How much of it fits into one window.
    pub amount: u64,
    /// The window; 1 s to 31 d.
    pub window: Duration,
    /// How it is enforced, where that is known.
    #[serde(default)]
    pub shape: Option<Shape>,
}

impl Limit {
    /// A limit of `amount` per `window`.
    pub const fn new(dimension: Dimension, amount: u64, window: Duration) -> Self {
        Self { dimension, amount, window, shape: None }
    }

    /// The same limit, enforced like this.
    #[must_use]
    pub const fn shaped(self, shape: Shape) -> Self {
        Self { shape: Some(shape), ..self }
    }

    /// Requests per second.
    pub const fn rps(amount: u64) -> Self {
        Self::new(Dimension::Requests, amount, Duration::from_secs(1))
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
            SECOND => "S",
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

/// How a provider enforces a limit: the same number means different things.
///
/// In files and on the command line: `refill`, `sliding`, `fixed`, `slice:10` (seconds), `calendar:pacific`,
/// `calendar:utc`, `calendar:+05:30`, `gauge`.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Shape, Zone};
///
/// assert_eq!("slice:10".parse(), Ok(Shape::Slice(Duration::from_secs(10))));
/// assert_eq!("calendar:pacific".parse(), Ok(Shape::Calendar(Zone::Pacific)));
/// assert_eq!(Shape::Slice(Duration::from_millis(500)).to_string(), "slice:0.5");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Shape {
    /// A bucket of the whole amount that fills up continuously (OpenAI, Groq, Anthropic).
    Refill,
    /// Never more than the amount in any window, wherever it begins. Safe also where the truth is `Refill` or `Fixed`.
    Sliding,
    /// A counter that is zeroed once per window (Azure TPM). When that happens is read from headers; until then as
    /// `Sliding`.
    Fixed,
    /// The window is cut into slices of this length with an equal part each (Azure RPM: 10 s or 1 s).
    Slice(Duration),
    /// A counter that is zeroed at midnight (Gemini RPD).
    Calendar(Zone),
    /// What is under way at one time, whatever the window.
    Gauge,
}

/// Where midnight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Zone {
    /// Los Angeles, with its clock changes.
    Pacific,
    /// A fixed number of minutes east of Greenwich; 0 is UTC.
    East(i16),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Refill => f.write_str("refill"),
            Shape::Sliding => f.write_str("sliding"),
            Shape::Fixed => f.write_str("fixed"),
            Shape::Slice(length) => write!(f, "slice:{}", length.as_secs_f64()),
            Shape::Calendar(Zone::Pacific) => f.write_str("calendar:pacific"),
            Shape::Calendar(Zone::East(0)) => f.write_str("calendar:utc"),
            Shape::Calendar(Zone::East(east)) => {
                let sign = if *east < 0 { '-' } else { '+' };
                write!(f, "calendar:{sign}{:02}:{:02}", east.unsigned_abs() / 60, east.unsigned_abs() % 60)
            }
            Shape::Gauge => f.write_str("gauge"),
        }
    }
}

/// A word that names no [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown shape `{0}`; expected refill, sliding, fixed, slice:SECONDS (up to a day), calendar:pacific, calendar:utc, calendar:+HH:MM or gauge"
)]
pub struct UnknownShape(String);

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownShape(text.to_owned());
        let (name, rest) = text.trim().split_once(':').map_or((text.trim(), None), |(name, rest)| (name, Some(rest)));
        Ok(match (name, rest) {
            ("refill", None) => Shape::Refill,
            ("sliding", None) => Shape::Sliding,
            ("fixed", None) => Shape::Fixed,
            ("gauge", None) => Shape::Gauge,
            ("slice", Some(length)) => {
                let seconds: f64 = length.trim_end_matches('s').parse().map_err(|_| unknown())?;
                let length = Duration::try_from_secs_f64(seconds).map_err(|_| unknown())?;
                if length.is_zero() || length > DAY {
                    return Err(unknown());
                }
                Shape::Slice(length)
            }
            ("calendar", Some("pacific")) => Shape::Calendar(Zone::Pacific),
            ("calendar", Some("utc")) => Shape::Calendar(Zone::East(0)),
            ("calendar", Some(offset)) => Shape::Calendar(Zone::East(minutes_east(offset).ok_or_else(unknown)?)),
            _ => return Err(unknown()),
        })
    }
}

impl From<Shape> for String {
    fn from(shape: Shape) -> Self {
        shape.to_string()
    }
}

impl TryFrom<String> for Shape {
    type Error = UnknownShape;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// `+05:30` → 330; up to a day.
fn minutes_east(offset: &str) -> Option<i16> {
    let sign = match offset.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (hours * 60 + minutes))
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
    /// Tokens of the prompt by the provider's character rule.
    pub input_by_chars: u64,
    /// Generated tokens.
    pub output_tokens: u64,
}

impl Charge {
    /// One request of `input` and `output` tokens.
    pub const fn tokens(input: u64, output: u64) -> Self {
        Self {
            requests: 1,
            tokens: input.saturating_add(output),
            input_tokens: input,
            input_by_chars: input,
            output_tokens: output,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Charge) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            input_by_chars: self.input_by_chars.saturating_add(other.input_by_chars),
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
            input_by_chars: self.input_by_chars.saturating_sub(other.input_by_chars),
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
            input_by_chars: self.input_by_chars.min(other.input_by_chars),
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

    /// With what a later event of the same stream counts. Counts are of the whole so far, and an event may leave some out, as
    /// Anthropic's last one does with the input.
    #[cfg(feature = "client")]
    pub(crate) fn updated_by(&self, later: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.max(later.input_tokens),
            cached_tokens: self.cached_tokens.max(later.cached_tokens),
            output_tokens: self.output_tokens.max(later.output_tokens),
        }
    }

    /// Input and output together.
    pub const fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
