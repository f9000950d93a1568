//! What an error says in words, where neither status nor code are told.

use http::StatusCode;

/// What the words stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// They are the words of an answer with this status.
    Status(u16),
    /// An account without money, which has the status of a limit.
    NoMoney,
    /// No answer came, for this reason.
    NoAnswer(&'static str),
}

const UNKNOWN_NAME: &str =
    "the provider's name cannot be looked up; check the base URL, your DNS and your connection, or run tollgate doctor";
const NO_CONNECTION: &str =
    "no connection to the provider; check the base URL, firewalls and proxy settings, or run tollgate doctor";
const BROKEN: &str = "the connection broke before the answer was there; send again after a pause; if it happens often, run tollgate doctor";
const LATE: &str =
    "no answer came in time; allow more time for long answers, and run tollgate doctor if short ones are late too";
const NO_TRUST: &str =
    "the connection could not be made secure; check your clock, certificates and proxy, or run tollgate doctor";

/// Phrases in lower case. The first that is found decides, so those that tell more come first.
const PHRASES: &[(&str, Meaning)] = &[
    // The gateway in front of the provider speaks of the connection behind it.
    ("upstream connect error", Meaning::Status(503)),
    // Gemini says the sentence below of minute limits too; only its own names a metric.
    ("quota exceeded for metric", Meaning::Status(429)),
    ("exceeded your current quota", Meaning::NoMoney),
    ("insufficient_quota", Meaning::NoMoney),
    ("credit balance is too low", Meaning::Status(400)),
    ("maximum context length", Meaning::Status(400)),
    ("exceeds the context window", Meaning::Status(400)),
    ("prompt is too long", Meaning::Status(400)),
    ("exceeds the maximum number of tokens", Meaning::Status(400)),
    ("incorrect api key", Meaning::Status(401)),
    ("invalid api key", Meaning::Status(401)),
    ("invalid x-api-key", Meaning::Status(401)),
    ("api key not valid", Meaning::Status(401)),
    ("didn't provide an api key", Meaning::Status(401)),
    ("tokens per ", Meaning::Status(429)),
    ("requests per ", Meaning::Status(429)),
    ("rate limit", Meaning::Status(429)),
    ("too many requests", Meaning::Status(429)),
    ("does not exist or you do not have access", Meaning::Status(404)),
    ("overloaded", Meaning::Status(503)),
    ("dns error", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("failed to lookup address", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("name or service not known", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("name resolution", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("could not resolve host", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("getaddrinfo", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("enotfound", Meaning::NoAnswer(UNKNOWN_NAME)),
    ("certificate", Meaning::NoAnswer(NO_TRUST)),
    ("ssl error", Meaning::NoAnswer(NO_TRUST)),
    ("connection reset", Meaning::NoAnswer(BROKEN)),
    ("econnreset", Meaning::NoAnswer(BROKEN)),
    ("broken pipe", Meaning::NoAnswer(BROKEN)),
    ("server disconnected", Meaning::NoAnswer(BROKEN)),
    ("socket hang up", Meaning::NoAnswer(BROKEN)),
    ("connection closed", Meaning::NoAnswer(BROKEN)),
    ("timed out", Meaning::NoAnswer(LATE)),
    ("etimedout", Meaning::NoAnswer(LATE)),
    ("timeouterror", Meaning::NoAnswer(LATE)),
    ("connection refused", Meaning::NoAnswer(NO_CONNECTION)),
    ("econnrefused", Meaning::NoAnswer(NO_CONNECTION)),
    ("network is unreachable", Meaning::NoAnswer(NO_CONNECTION)),
    ("connection error", Meaning::NoAnswer(NO_CONNECTION)),
    ("apiconnectionerror", Meaning::NoAnswer(NO_CONNECTION)),
    // How the SDKs call an answer by its status.
    ("ratelimiterror", Meaning::Status(429)),
    ("authenticationerror", Meaning::Status(401)),
    ("permissiondeniederror", Meaning::Status(403)),
    ("notfounderror", Meaning::Status(404)),
    ("badrequesterror", Meaning::Status(400)),
    ("internalservererror", Meaning::Status(500)),
];

/// What `text` stands for, if it says anything that is known.
pub(super) fn meaning(text: &str) -> Option<Meaning> {
    let lower = text.to_lowercase();
    let said = PHRASES.iter().find(|(phrase, _)| lower.contains(phrase)).map(|(_, meaning)| *meaning);
    titled(&lower).map(Meaning::Status).or(said)
}

/// The status with its name, as in the title of a gateway's page: `502 bad gateway`.
fn titled(lower: &str) -> Option<u16> {
    (400..600).find(|status| {
        let name = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        name.is_some_and(|name| lower.contains(&format!("{status} {}", name.to_lowercase())))
    })
}
