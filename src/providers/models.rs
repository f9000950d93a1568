//! Names of models: which ones are the same, and which share an allowance.

use super::Provider;

/// The name of the pool that `model` draws on: models with the same pool share one set of limits.
///
/// Snapshots share their alias' pool and fine-tuned models their base's. Anthropic counts per class: Opus 4.5 to 4.8
/// are one pool, Sonnet 4.5 and 4.6 another (rate-limits page, 2026); older 4.x models are put with them, which can
/// only book too much. Azure counts per deployment, so there every name is a pool of its own.
///
/// ```
/// use tollgate::providers::{Provider, pool_of};
///
/// assert_eq!(pool_of(Provider::Openai, "gpt-4o-2024-08-06"), "gpt-4o");
/// assert_eq!(pool_of(Provider::Anthropic, "claude-opus-4-5-20251101"), "opus-4.x");
/// assert_eq!(pool_of(Provider::Azure, "my-deployment-2024-08-06"), "my-deployment-2024-08-06");
/// ```
pub fn pool_of(provider: Provider, model: &str) -> &str {
    if provider == Provider::Azure { model } else { family(provider, model) }
}

/// The name without vendor, fine-tuning, date and `-latest`; for Anthropic the name of its class.
pub(super) fn family(provider: Provider, model: &str) -> &str {
    // ft:gpt-4o-mini-2024-07-18:my-org::id
    let model = model.strip_prefix("ft:").map_or(model, |rest| rest.split_once(':').map_or(rest, |(base, _)| base));
    let model = model.rsplit_once('/').map_or(model, |(_, name)| name);
    let mut name = without_date(model);
    name = name.strip_suffix("-latest").unwrap_or(name);
    match provider {
        // -MMDD of old snapshots (gpt-4-0613). Elsewhere four digits may tell two models apart.
        Provider::Openai | Provider::Compatible | Provider::Azure if name.starts_with("gpt-") => {
            without_digits(name, 4)
        }
        // -YYMM (mistral-small-2506)
        Provider::Mistral => without_digits(name, 4),
        // -001
        Provider::Gemini => without_digits(name, 3),
        Provider::Anthropic => class(name),
        _ => name,
    }
}

/// Anthropic's model classes, by the start of the name after `claude-`.
const CLASSES: &[(&str, &str)] = &[
    ("opus-4", "opus-4.x"),
    ("sonnet-4", "sonnet-4.x"),
    ("haiku-4-5", "haiku-4.5"),
    ("3-7-sonnet", "sonnet-3.7"),
    ("3-5-haiku", "haiku-3.5"),
    ("3-haiku", "haiku-3"),
];

fn class(name: &str) -> &str {
    let name = name.strip_prefix("claude-").unwrap_or(name);
    CLASSES.iter().find(|(start, _)| name.starts_with(start)).map_or(name, |(_, class)| class)
}

/// Cuts a `-YYYY-MM-DD` or `-YYYYMMDD` at the end.
fn without_date(name: &str) -> &str {
    let day = without_digits(name, 2);
    let month = without_digits(day, 2);
    let year = without_digits(month, 4);
    if day.len() < name.len() && month.len() < day.len() && year.len() < month.len() {
        year
    } else {
        without_digits(name, 8)
    }
}

/// Cuts a `-` and exactly `count` digits at the end.
fn without_digits(name: &str, count: usize) -> &str {
    match name.rsplit_once('-') {
        Some((stem, digits))
            if digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit()) && !stem.is_empty() =>
        {
            stem
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_tunings_and_vendor_prefixes_lead_to_the_same_pool() {
        use Provider::{Anthropic, Azure, Gemini, Groq, Mistral, Openai};
        let rows = [
            (Openai, "gpt-4o", "gpt-4o"),
            (Openai, "gpt-4o-2024-08-06", "gpt-4o"),
            (Openai, "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            (Openai, "ft:gpt-4o-mini-2024-07-18:acme::abc123", "gpt-4o-mini"),
            (Openai, "ft:gpt-4o", "gpt-4o"),
            (Openai, "gpt-4-0613", "gpt-4"),
            (Openai, "gpt-4-32k", "gpt-4-32k"),
            (Openai, "gpt-5.2-chat-latest", "gpt-5.2-chat"),
            (Openai, "omni-moderation-2024-09-26", "omni-moderation"),
            (Openai, "openai/gpt-4o", "gpt-4o"),
            (Openai, "Qwen/Qwen3-4B-Instruct-2507", "Qwen3-4B-Instruct-2507"),
            (Azure, "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
            (Anthropic, "claude-opus-4-5-20251101", "opus-4.x"),
            (Anthropic, "claude-opus-4-8", "opus-4.x"),
            (Anthropic, "claude-opus-5", "opus-5"),
            (Anthropic, "claude-sonnet-4-20250514", "sonnet-4.x"),
            (Anthropic, "claude-sonnet-5", "sonnet-5"),
            (Anthropic, "claude-haiku-4-5-20251001", "haiku-4.5"),
            (Anthropic, "claude-3-5-haiku-latest", "haiku-3.5"),
            (Anthropic, "claude-3-haiku-20240307", "haiku-3"),
            (Anthropic, "claude-3-7-sonnet-20250219", "sonnet-3.7"),
            (Groq, "openai/gpt-oss-20b", "gpt-oss-20b"),
            (Mistral, "mistral-small-2506", "mistral-small"),
            (Gemini, "models/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ];
        for (provider, model, pool) in rows {
            assert_eq!(pool_of(provider, model), pool, "{provider} {model}");
            assert_eq!(pool_of(provider, pool), pool, "the pool of a pool is itself");
        }
    }

    #[test]
    fn odd_names_stay_as_they_are() {
        for name in ["", "-", "2024-08-06", "-20240806", "gpt-", "a-2024-8-6", "naïve-２０２４"] {
            assert_eq!(pool_of(Provider::Groq, name), name);
        }
    }
}
