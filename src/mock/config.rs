//! Settings of the mock, plain and serialisable.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dialect;
use super::named::NamedError;
use super::which::Which;
use crate::cost::{DAY, Shape};
use crate::providers::Provider;

/// How the mock behaves. The default has no limits, no latency and no faults, and accepts any key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockConfig {
    /// Where to listen. Default: `127.0.0.1:0`, a free port on the loopback interface.
    pub listen: SocketAddr,
    /// How it speaks: whose headers it shows its limits in, whose words its errors are in, and how it wants to be shown keys.
    /// How it counts is told by the other settings. Default: as OpenAI.
    pub dialect: Provider,
    /// The limits of every API key and model pool. Default: none.
    pub limits: MockLimits,
    /// Models with limits of their own, which replace [`limits`](Self::limits) as a whole. Default: none.
    pub models: BTreeMap<String, MockLimits>,
    /// What a request is charged at admission. Default: input plus output cap.
    pub charge: ChargeRule,
    /// How the input is counted for the charge. Default: by characters.
    pub count: Count,
    /// The output tokens that a request without an output cap is charged for, per choice. Default: 217, which OpenAI
    /// was seen to predict for gpt-5-nano. With 0, its output is charged when the answer is complete.
    pub predicted_output: u64,
    /// Whether the charged tokens are corrected to `usage.total_tokens` when the answer is complete. Default: true.
    pub settle: bool,
    /// When a window (fixed, or cut into slices) begins, since the start; others begin a window's length before and after
    /// it. Default: `None`, told by the [`seed`](Self::seed). Seconds when serialised.
    #[serde(with = "maybe_seconds")]
    pub phase: Option<Duration>,
    /// Limits that change while it runs. Default: none.
    pub changes: Vec<LimitChange>,
    /// The wall-clock time of the start, in seconds since 1970, by which calendar days end. Default: `None`, the real
    /// one. A [`Book`](super::Book), which reads no clock, takes 0 then.
    pub started: Option<i64>,
    /// Whether a request refused with 429 still takes one request from RPM. Default: false.
    ///
    /// Both exist: OpenAI's guide says that failed requests count, while the waits printed in its 429s are exactly those
    /// of a bucket that refusals do not touch.
    pub refusals_count: bool,
    /// How long answers take. Default: no time at all.
    pub latency: Latency,
    /// Seed of lengths, jitter and faults. What happens to a request depends only on the seed and on how many requests
    /// arrived before it. Default: 0.
    pub seed: u64,
    /// What goes wrong, and how often. Default: nothing.
    pub faults: Faults,
    /// When nothing goes well. Default: never.
    pub outages: Vec<Outage>,
    /// The error that every call is answered with, before any limit is asked; errors of the key or the server also meet the
    /// list of models. Default: none.
    pub error: Option<NamedError>,
    /// The incident that the status page reports for chat completions. Default: none.
    pub incident: Option<String>,
    /// The API keys that are accepted; `None` accepts every non-empty one. Never serialised and never in `Debug`: people
    /// put real keys here. Default: `None`.
    #[serde(skip_serializing)]
    pub keys: Option<Vec<String>>,
    /// How long answers are. Default: see [`OutputModel`].
    pub output: OutputModel,
    /// Whether answers carry `x-ratelimit-*` headers, and of what instant. Default: of the completion.
    pub headers: Stamp,
}

impl Default for MockConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            dialect: Provider::default(),
            limits: MockLimits::default(),
            models: BTreeMap::new(),
            charge: ChargeRule::default(),
            count: Count::default(),
            predicted_output: 217,
            settle: true,
            phase: None,
            changes: Vec::new(),
            started: None,
            refusals_count: false,
            latency: Latency::default(),
            seed: 0,
            faults: Faults::default(),
            outages: Vec::new(),
            error: None,
            incident: None,
            keys: None,
            output: OutputModel::default(),
            headers: Stamp::default(),
        }
    }
}

impl fmt::Debug for MockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listen,
            dialect,
            limits,
            models,
            charge,
            count,
            predicted_output,
            settle,
            phase,
            changes,
            started,
            refusals_count,
            latency,
            seed,
            faults,
            outages,
            error,
            incident,
            keys,
            output,
            headers,
        } = self;
        f.debug_struct("MockConfig")
            .field("listen", listen)
            .field("dialect", dialect)
            .field("limits", limits)
            .field("models", models)
            .field("charge", charge)
            .field("count", count)
            .field("predicted_output", predicted_output)
            .field("settle", settle)
            .field("phase", phase)
            .field("changes", changes)
            .field("started", started)
            .field("refusals_count", refusals_count)
            .field("latency", latency)
            .field("seed", seed)
            .field("faults", faults)
            .field("outages", outages)
            .field("error", error)
            .field("incident", incident)
            .field("keys", &keys.as_ref().map(|keys| format!("{} keys", keys.len())))
            .field("output", output)
            .field("headers", headers)
            .finish()
    }
}

impl MockConfig {
    /// What is wrong with these settings, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let Faults { error_503, error_500, error_429, reset, hang, slow_body, slow_body_for: _, half_body } =
            self.faults;
        let chances = [error_503, error_500, error_429, reset, hang, slow_body, half_body];
        if chances.iter().any(|chance| !(0.0..=1.0).contains(chance)) || chances.iter().sum::<f64>() > 1.0 + 1e-9 {
            return Some("faults must be probabilities from 0 to 1 whose sum is at most 1".into());
        }
        if !(0.0..=1.0).contains(&self.latency.jitter) {
            return Some("latency.jitter must be from 0 to 1".into());
        }
        let OutputModel { least, most, mean_without_cap: _ } = self.output;
        if !(0.0..=1.0).contains(&least) || !(0.0..=1.0).contains(&most) || least > most {
            return Some("output.least and output.most must be from 0 to 1, in this order".into());
        }
        if self.changes.iter().any(|change| !(change.factor > 0.0 && change.factor.is_finite())) {
            return Some("the factor of a change must be above 0".into());
        }
        let all = || self.models.values().chain([&self.limits]);
        if let Some(problem) = all().find_map(|limits| dialect::unspeakable(self.dialect, limits)) {
            return Some(problem);
        }
        all().flat_map(|limits| Which::ALL.map(|which| (which, which.shape(limits)))).find_map(unplayable)
    }
}

/// Why this limit cannot be enforced in this shape, if so.
fn unplayable((which, shape): (Which, Shape)) -> Option<String> {
    match shape {
        Shape::Refill | Shape::Sliding | Shape::Fixed => None,
        Shape::Slice(length) if !length.is_zero() && length <= which.window() => None,
        Shape::Calendar(_) if which.window() == DAY => None,
        shape => Some(format!("{} cannot have the shape {shape} in the mock", which.name())),
    }
}

/// Limits of one API key and model pool. Dated snapshots (`gpt-4o-2024-08-06`) share a pool with their alias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockLimits {
    /// Requests per second; `None` is no limit.
    pub rps: Option<u64>,
    /// Requests per minute; `None` is no limit.
    pub rpm: Option<u64>,
    /// Requests per day; `None` is no limit.
    pub rpd: Option<u64>,
    /// Tokens per minute; `None` is no limit.
    pub tpm: Option<u64>,
    /// Tokens per day; `None` is no limit.
    pub tpd: Option<u64>,
    /// Input tokens per minute, as Anthropic and Gemini count; `None` is no limit.
    pub itpm: Option<u64>,
    /// Output tokens per minute, as Anthropic counts: those that were written, whatever the cap; `None` is no limit.
    pub otpm: Option<u64>,
    /// How each of them is enforced. Default: all refill.
    pub shapes: MockShapes,
}

impl MockLimits {
    /// Each amount multiplied by `factor`, at least 1.
    pub(crate) fn times(self, factor: f64) -> Self {
        let times = |amount: u64| ((amount as f64 * factor).round() as u64).max(1);
        let Self { rps, rpm, rpd, tpm, tpd, itpm, otpm, shapes } = self;
        let all = [rps, rpm, rpd, tpm, tpd, itpm, otpm].map(|amount| amount.map(times));
        let [rps, rpm, rpd, tpm, tpd, itpm, otpm] = all;
        Self { rps, rpm, rpd, tpm, tpd, itpm, otpm, shapes }
    }
}

/// How each limit is enforced. [`Shape::Calendar`] is for the days only, and [`Shape::Gauge`] for none.
///
/// * `refill`: a level that leaks continuously; capacity = limit, `limit / window` per second (OpenAI).
/// * `sliding`: a log of what was admitted; what is in it leaves a window later.
/// * `fixed`: a counter that is zeroed once per window.
/// * `slice`: each slice of the window admits its part of the limit, rounded up, while headers and texts speak of the whole
///   window: of a counter that is zeroed once per window.
/// * `calendar`: a counter that is zeroed at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of `MockLimits`")]
pub struct MockShapes {
    pub rps: Shape,
    pub rpm: Shape,
    pub rpd: Shape,
    pub tpm: Shape,
    pub tpd: Shape,
    pub itpm: Shape,
    pub otpm: Shape,
}

impl MockShapes {
    /// The same shape for all; only that of a second is not cut into slices and ends at no midnight.
    pub const fn all(shape: Shape) -> Self {
        let rps = if matches!(shape, Shape::Slice(_) | Shape::Calendar(_)) { Shape::Refill } else { shape };
        Self { rps, rpm: shape, rpd: shape, tpm: shape, tpd: shape, itpm: shape, otpm: shape }
    }
}

impl Default for MockShapes {
    fn default() -> Self {
        Self::all(Shape::Refill)
    }
}

/// All limits become `factor` times what they were, `at` seconds after the start. What was used stays used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitChange {
    /// When, since the start; seconds when serialised.
    #[serde(with = "seconds")]
    pub at: Duration,
    /// Above 0.
    pub factor: f64,
}

/// What tokens a request is charged at admission. The output cap is `max_completion_tokens`, `max_tokens` or
/// `max_output_tokens`; without one it is [`MockConfig::predicted_output`]. Embeddings are charged for their input alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChargeRule {
    /// The estimated input plus choices × output cap: what the recorded exchanges show.
    #[default]
    InputPlusCap,
    /// The larger of the estimated input and choices × output cap: what OpenAI's rate-limit guide says.
    MaxOfInputAndCap,
    /// The estimated input; the real output is charged when the answer is complete.
    InputOnly,
}

/// How the input of a chat request is counted for the charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Count {
    /// Characters ÷ 4, rounded up, and a little per message.
    #[default]
    Characters,
    /// As in `usage`.
    Exact,
}

/// Of what instant the `x-ratelimit-*` headers of a good answer tell. Those of a refusal tell of the refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stamp {
    /// There are no such headers, not even with a refusal.
    None,
    /// As it was when the request was admitted.
    Admission,
    /// As it is when the answer is complete and settled; streams, whose headers go first, tell of the admission.
    #[default]
    Completion,
}

/// How long answers take. Durations are seconds when serialised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// Until the first token. Default: zero.
    #[serde(with = "seconds")]
    pub base: Duration,
    /// For each output token after that. Default: zero.
    #[serde(with = "seconds")]
    pub per_output_token: Duration,
    /// Both are multiplied by one number per request, drawn evenly from `1 - jitter ..= 1 + jitter`. Default: 0.
    pub jitter: f64,
}

impl Latency {
    /// About this long for every answer, whatever its length: give or take a quarter.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::mock::Latency;
    /// assert_eq!(Latency::about(Duration::from_millis(800)).jitter, 0.25);
    /// ```
    pub const fn about(total: Duration) -> Self {
        Self { base: total, per_output_token: Duration::ZERO, jitter: 0.25 }
    }
}

/// How many tokens an answer has, per choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputModel {
    /// With an output cap: at least this part of it. Default: 0.3.
    pub least: f64,
    /// With an output cap: at most this part of it. Default: 1.
    pub most: f64,
    /// Without an output cap: the mean of a skewed (log-normal) distribution. Default: 300.
    pub mean_without_cap: u64,
}

impl Default for OutputModel {
    fn default() -> Self {
        Self { least: 0.3, most: 1.0, mean_without_cap: 300 }
    }
}

/// Probabilities, from 0 to 1, of what may go wrong with a request that the limits admit; at most one thing happens to
/// each. All default to 0.
///
/// A failed request still takes one request from the limits. Its tokens are given back when the mock answers with an
/// error and [`MockConfig::settle`] is set; they stay charged where no answer comes (`reset`, `hang`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// 503 `server_is_overloaded` with `retry-after: 1`.
    pub error_503: f64,
    /// 500 `server_error`.
    pub error_500: f64,
    /// 429 `rate_limit_exceeded` although the limits have room. Takes nothing, unless
    /// [`MockConfig::refusals_count`] is set.
    pub error_429: f64,
    /// The connection is closed without a response.
    pub reset: f64,
    /// No response ever comes, and the connection stays open.
    pub hang: f64,
    /// The headers come at once, the body trickles over [`slow_body_for`](Self::slow_body_for).
    pub slow_body: f64,
    /// How long a slow body takes; seconds when serialised. Default: 5 s.
    #[serde(with = "seconds")]
    pub slow_body_for: Duration,
    /// The connection is closed after half of the body, or of the events of a stream. What it used stays charged.
    pub half_body: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_503: 0.0,
            error_500: 0.0,
            error_429: 0.0,
            reset: 0.0,
            hang: 0.0,
            slow_body: 0.0,
            slow_body_for: Duration::from_secs(5),
            half_body: 0.0,
        }
    }
}

/// A time in which every call that the limits admit meets the same fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// From so long after the mock started; seconds when serialised.
    #[serde(with = "seconds")]
    pub from: Duration,
    /// Up to so long after it; seconds when serialised.
    #[serde(with = "seconds")]
    pub to: Duration,
    /// What it looks like. Default: 503.
    #[serde(default)]
    pub kind: OutageKind,
}

/// What an [`Outage`] looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutageKind {
    /// 503 as [`Faults::error_503`].
    #[default]
    Error503,
    /// As [`Faults::reset`].
    Reset,
    /// As [`Faults::hang`].
    Hang,
}

/// `Duration` as a number of seconds, since `{ secs, nanos }` is no way to write 0.8 s in a configuration file.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
mod maybe_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.as_secs_f64()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_json_except_for_its_keys() {
        let config = MockConfig {
            limits: MockLimits { rpm: Some(3), ..MockLimits::default() },
            latency: Latency::about(Duration::from_millis(800)),
            keys: Some(vec!["sk-secret".into()]),
            phase: Some(Duration::from_millis(1_500)),
            changes: vec![LimitChange { at: Duration::from_secs(60), factor: 0.5 }],
            ..MockConfig::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains("0.8") && !json.contains("sk-secret"), "{json}");
        let back: MockConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(back, MockConfig { keys: None, ..config.clone() });
        assert!(!format!("{config:?}").contains("sk-secret"));
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(MockConfig::default().problem(), None);
        let faults = Faults { hang: 0.6, reset: 0.6, ..Faults::default() };
        assert!(MockConfig { faults, ..MockConfig::default() }.problem().is_some());
        let latency = Latency { jitter: f64::NAN, ..Latency::default() };
        assert!(MockConfig { latency, ..MockConfig::default() }.problem().is_some());
        let changes = vec![LimitChange { at: Duration::ZERO, factor: f64::NAN }];
        assert!(MockConfig { changes, ..MockConfig::default() }.problem().is_some());
        let shaped = |shapes| {
            let limits = MockLimits { shapes, ..MockLimits::default() };
            MockConfig { limits, ..MockConfig::default() }.problem()
        };
        let day = Shape::Calendar(crate::Zone::Pacific);
        assert_eq!(shaped(MockShapes { rpd: day, tpd: day, ..MockShapes::default() }), None);
        assert_eq!(shaped(MockShapes::all(Shape::Slice(Duration::from_secs(1)))), None);
        assert_eq!(shaped(MockShapes::all(day)).unwrap(), "RPM cannot have the shape calendar:pacific in the mock");
        assert!(shaped(MockShapes::all(Shape::Slice(Duration::from_secs(61)))).is_some());
        assert!(shaped(MockShapes { tpd: Shape::Gauge, ..MockShapes::default() }).is_some());
    }
}
