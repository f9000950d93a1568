//! The kinds of failure.

use serde::Serialize;

/// What kind of failure a response is, and with it what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// A rate limit was reached; capacity comes back with time.
    RateLimited,
    /// The request is larger than the limit (or the body than allowed), so the same size can never pass.
    TooLarge,
    /// No credit left, or a spend limit reached. Also answered with 429, but waiting does not help.
    QuotaExhausted,
    /// Traffic rose too fast, below the limits (OpenAI's `slow_down`, Anthropic's acceleration limit).
    SlowDown,
    /// The provider has more load than it can serve.
    Overloaded,
    /// The provider failed.
    ServerError,
    /// The provider gave up waiting; or no whole answer came ([`Failure::unanswered`](super::Failure::unanswered)), for
    /// whatever reason the message tells.
    Timeout,
    /// Another request held a lock.
    Conflict,
    /// No room for this kind of service at the moment (flex processing, Mistral's service tiers).
    CapacityUnavailable,
    /// The request is malformed.
    Invalid,
    /// The prompt, or prompt and output together, exceed what the model can take.
    ContextLength,
    /// The content was refused.
    ContentPolicy,
    /// The key is wrong.
    Unauthorized,
    /// The account may not do this.
    Forbidden,
    /// There is no such model, deployment or address; or the address sends callers elsewhere (a redirect), which is not
    /// followed: it may take the key to somebody else, and lose the request.
    NotFound,
}

/// Whether the same request may be sent again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// After a growing pause, or the server's hint if that is longer.
    Backoff,
    /// When the limit has room again.
    AfterLimit,
}

impl Class {
    /// As it is written in reports, spans and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Class::RateLimited => "rate_limited",
            Class::TooLarge => "too_large",
            Class::QuotaExhausted => "quota_exhausted",
            Class::SlowDown => "slow_down",
            Class::Overloaded => "overloaded",
            Class::ServerError => "server_error",
            Class::Timeout => "timeout",
            Class::Conflict => "conflict",
            Class::CapacityUnavailable => "capacity_unavailable",
            Class::Invalid => "invalid",
            Class::ContextLength => "context_length",
            Class::ContentPolicy => "content_policy",
            Class::Unauthorized => "unauthorized",
            Class::Forbidden => "forbidden",
            Class::NotFound => "not_found",
        }
    }

    /// What a provider does that fails like this, for people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Class::Timeout => "no answer",
            Class::ServerError => "server error",
            Class::CapacityUnavailable => "no capacity",
            other => other.name(),
        }
    }

    /// What this class alone says about a retry; see also [`Failure::retry`](super::Failure::retry).
    pub const fn retry(self) -> Retry {
        match self {
            Class::RateLimited => Retry::AfterLimit,
            Class::SlowDown
            | Class::Overloaded
            | Class::ServerError
            | Class::Timeout
            | Class::Conflict
            | Class::CapacityUnavailable => Retry::Backoff,
            Class::TooLarge
            | Class::QuotaExhausted
            | Class::Invalid
            | Class::ContextLength
            | Class::ContentPolicy
            | Class::Unauthorized
            | Class::Forbidden
            | Class::NotFound => Retry::Never,
        }
    }

    /// The failure is of the provider's making: it says nothing about the caller's limits, and other requests to the
    /// same model are likely to meet it too.
    pub const fn is_provider_trouble(self) -> bool {
        matches!(self, Class::Overloaded | Class::ServerError | Class::Timeout | Class::CapacityUnavailable)
    }

    /// The failure is about what this model or this account can do: another one may well take the same request.
    pub const fn is_own_bound(self) -> bool {
        matches!(self, Class::ContextLength | Class::TooLarge | Class::NotFound | Class::Forbidden)
    }

    /// Every other request of the same account will fail alike until somebody acts.
    pub const fn is_account_wide(self) -> bool {
        matches!(self, Class::QuotaExhausted | Class::Unauthorized)
    }

    /// What to do next, in half a sentence; [`Failure::advice`](super::Failure::advice) knows more.
    pub const fn advice(self) -> &'static str {
        match self {
            Class::RateLimited => "a rate limit is reached; send again when it has room",
            Class::TooLarge => "the request is larger than the limit allows; shorten the input or lower the output cap",
            Class::QuotaExhausted => {
                "this account has no credit left or has reached its spend limit; waiting will not help; see the \
                 provider's billing page"
            }
            Class::SlowDown => {
                "traffic rose too fast; return to the earlier rate, hold it for 15 minutes, then raise it slowly"
            }
            Class::Overloaded => "the provider is overloaded; this is not your limit; send again after a pause",
            Class::ServerError => "the provider failed; send again after a pause",
            Class::Timeout => "the provider took too long; send again after a pause",
            Class::Conflict => "another request held a lock; send again after a pause",
            Class::CapacityUnavailable => {
                "there is no room in this service tier now; send again later or use another tier"
            }
            Class::Invalid => "the provider does not accept this request; correct it",
            Class::ContextLength => "the model cannot take that many tokens; shorten the input or lower the output cap",
            Class::ContentPolicy => "the content was refused; change the prompt",
            Class::Unauthorized => "the API key is not accepted; check the key and the address it is sent to",
            Class::Forbidden => "this account may not do this; check its plan, permissions, region and model access",
            Class::NotFound => "no such model or address; check the model's name and the base URL",
        }
    }
}
