//! Whose words the mock speaks: which limits a provider has, where its API is, how it is shown a key.

use http::{HeaderMap, HeaderName, Uri, header};

use super::config::MockLimits;
use super::which::Which;
use crate::providers::Provider;

/// The limits that `dialect` has names for, in headers or in refusals.
const fn limits(dialect: Provider) -> &'static [Which] {
    match dialect {
        Provider::Openai | Provider::Compatible | Provider::Groq => {
            &[Which::Rps, Which::Rpm, Which::Rpd, Which::Tpm, Which::Tpd]
        }
        Provider::Azure => &[Which::Rpm, Which::Tpm],
        Provider::Mistral => &[Which::Rps, Which::Rpm, Which::Tpm],
        Provider::Anthropic => &[Which::Rps, Which::Rpm, Which::Itpm, Which::Otpm, Which::Tpm],
        Provider::Gemini => &[Which::Rps, Which::Rpm, Which::Rpd, Which::Itpm],
    }
}

/// Why `dialect` cannot speak of these limits, if so.
pub(super) fn unspeakable(dialect: Provider, set: &MockLimits) -> Option<String> {
    let known = limits(dialect);
    let unknown = Which::ALL.into_iter().find(|which| which.amount(set).is_some() && !known.contains(which))?;
    let known: Vec<_> = known.iter().map(|which| which.name()).collect();
    Some(format!("{dialect} has no {}; it has {}", unknown.name(), known.join(", ")))
}

/// The path below which a provider serves OpenAI's API, where that is not `/v1`.
pub(super) const fn root(dialect: Provider) -> &'static str {
    match dialect {
        Provider::Gemini => "/v1beta/openai",
        Provider::Groq | Provider::Azure => "/openai/v1",
        _ => "/v1",
    }
}

/// The deployment that an address of Azure's SDKs names, and the call to it. Without a version Azure knows no such address.
pub(super) fn deployment(dialect: Provider, address: &Uri) -> Option<(&str, &str)> {
    let below = address.path().strip_prefix("/openai/deployments/").filter(|_| dialect == Provider::Azure)?;
    let versioned = address.query()?.split('&').any(|pair| pair.starts_with("api-version="));
    let (name, call) = below.split_once('/')?;
    (versioned && !name.is_empty() && matches!(call, "chat/completions" | "embeddings")).then_some((name, call))
}

/// The header that names a request; Gemini has none.
pub(super) fn request_id(dialect: Provider) -> Option<HeaderName> {
    Some(HeaderName::from_static(match dialect {
        Provider::Gemini => return None,
        Provider::Anthropic => "request-id",
        Provider::Azure => "apim-request-id",
        Provider::Mistral => "mistral-correlation-id",
        _ => "x-request-id",
    }))
}

/// The key of a request, empty if there is none.
pub(super) fn key(dialect: Provider, headers: &HeaderMap) -> &str {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let own = match dialect {
        Provider::Azure => text("api-key"),
        Provider::Anthropic => text("x-api-key"),
        _ => None,
    };
    own.unwrap_or_else(|| match text(header::AUTHORIZATION.as_str()).unwrap_or_default().split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => "",
    })
}
