//! The limits that providers publish per tier and model: defaults only. The account's own limits page, the admin
//! endpoints and the response headers know better.

use std::fmt;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::models::family;
use super::{MONTH, Provider};
use crate::cost::{Dimension, Limit};

static FILE: LazyLock<File> = LazyLock::new(|| {
    serde_json::from_str(include_str!("tiers.json")).expect("the embedded tiers.json is valid (tested)")
});

/// The published limits of a model in a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierLimits {
    /// The name of the row: a model, a class of models, or `*`.
    pub model: String,
    /// The limits; never empty.
    pub limits: Vec<Limit>,
    /// The date of the source, to the day, month or year.
    pub as_of: String,
    /// Where the numbers are from.
    pub source: String,
    /// `documented`, `documented_stale`, `third_party_copy`, `observed` or `partly_inferred`.
    pub confidence: String,
    /// Which models share these limits.
    pub shared_pool: Option<String>,
    /// A caution about the row.
    pub note: Option<String>,
    /// Cache reads count against the input tokens (Anthropic's Haiku 3 and 3.5).
    pub cache_reads_count: bool,
}

/// The published limits of `model` for an account of `tier`; `None` if none are known.
///
/// `tier` is read leniently (`1`, `tier1`, `Tier 1`, `build`); Anthropic's numbered tiers are those of 2025. Of the
/// rows, an exact name wins, then one of the same model (without date, `-latest`, fine-tuning, vendor prefix), then `*`.
///
/// ```
/// use tollgate::{Limit, providers::{Provider, lookup}};
///
/// let row = lookup(Provider::Openai, "Tier 1", "gpt-4o-2024-08-06").unwrap();
/// assert_eq!(row.limits, [Limit::rpm(500), Limit::tpm(30_000)]);
/// ```
pub fn lookup(provider: Provider, tier: &str, model: &str) -> Option<TierLimits> {
    let tier = find(provider, tier)?;
    // Rows may tell only about batches.
    let rows = || tier.models.0.iter().filter(|(_, row)| !row.limits().is_empty());
    let same = |(name, _): &&(String, Row)| family(provider, name) == family(provider, model);
    let (name, row) = rows()
        .find(|(name, _)| name == model)
        .or_else(|| rows().find(same))
        .or_else(|| rows().find(|(name, _)| name == "*"))?;
    Some(TierLimits {
        model: name.clone(),
        limits: row.limits(),
        as_of: row.as_of.clone(),
        source: row.source.clone(),
        confidence: row.confidence.clone(),
        shared_pool: row.shared_pool.clone(),
        note: row.note.clone(),
        cache_reads_count: row.cache_reads_count_toward_itpm,
    })
}

/// Whether `provider` has a tier of this name, in any of the spellings that [`lookup`] reads.
pub fn has_tier(provider: Provider, tier: &str) -> bool {
    find(provider, tier).is_some()
}

fn find(provider: Provider, tier: &str) -> Option<&'static Tier> {
    let wanted = plain(tier);
    let named = |name: &str| tiers_of(provider).iter().find(|(tier, _)| plain(tier) == name);
    let (_, tier) = named(&wanted).or_else(|| named(&format!("{wanted}2025")))?;
    Some(tier)
}

/// The models whose limits are known for an account of `tier`, as the rows of the data name them; `tier` as for [`lookup`].
pub fn models(provider: Provider, tier: &str) -> Vec<&'static str> {
    let rows = find(provider, tier).map_or(&[][..], |tier| &tier.models.0);
    rows.iter().filter(|(_, row)| !row.limits().is_empty()).map(|(name, _)| name.as_str()).collect()
}

/// The names of `provider`'s tiers, as the data has them, the lowest first.
pub fn tiers(provider: Provider) -> Vec<&'static str> {
    tiers_of(provider).iter().map(|(name, _)| name.as_str()).collect()
}

/// The date of the newest source in the data.
pub fn as_of() -> &'static str {
    &FILE.meta.newest_source
}

fn tiers_of(provider: Provider) -> &'static [(String, Tier)] {
    let key = match provider {
        Provider::Azure => "azure_openai",
        // Most of what speaks OpenAI's API in front of a tier is a gateway to OpenAI.
        Provider::Compatible => "openai",
        other => other.name(),
    };
    FILE.providers.0.iter().find(|(name, _)| name == key).map_or(&[], |(_, provider)| &provider.tiers.0)
}

/// A tier's name without case and separators; a bare number is a tier.
fn plain(tier: &str) -> String {
    let name: String = tier.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) { format!("tier{name}") } else { name }
}

#[derive(Deserialize)]
struct File {
    meta: Meta,
    providers: Table<Tiers>,
}

#[derive(Deserialize)]
struct Meta {
    newest_source: String,
}

#[derive(Deserialize)]
struct Tiers {
    tiers: Table<Tier>,
}

#[derive(Deserialize)]
struct Tier {
    #[serde(default)]
    models: Table<Row>,
}

/// A model's limits in a tier; the units are told in the data's `meta`. An absent or `null` field is no limit.
#[derive(Deserialize)]
struct Row {
    rpm: Option<u64>,
    rpd: Option<u64>,
    rps: Option<u64>,
    tpm: Option<u64>,
    tpd: Option<u64>,
    itpm: Option<u64>,
    otpm: Option<u64>,
    tpm_input: Option<u64>,
    tokens_per_month: Option<u64>,
    as_of: String,
    source: String,
    /// Missing only in rows about batches alone, which are never handed out.
    #[serde(default)]
    confidence: String,
    shared_pool: Option<String>,
    note: Option<String>,
    #[serde(default)]
    cache_reads_count_toward_itpm: bool,
}

impl Row {
    fn limits(&self) -> Vec<Limit> {
        const SECOND: Duration = Duration::from_secs(1);
        let limits = [
            self.rps.map(|amount| Limit::new(Dimension::Requests, amount, SECOND)),
            self.rpm.map(Limit::rpm),
            self.rpd.map(Limit::rpd),
            self.tpm.map(Limit::tpm),
            self.itpm.or(self.tpm_input).map(Limit::itpm),
            self.otpm.map(Limit::otpm),
            self.tpd.map(Limit::tpd),
            self.tokens_per_month.map(|amount| Limit::new(Dimension::Tokens, amount, MONTH)),
        ];
        limits.into_iter().flatten().collect()
    }
}

/// An object whose entries keep their order.
struct Table<T>(Vec<(String, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Table(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{DAY, MINUTE};

    #[test]
    fn published_limits_are_found_under_every_name_of_a_tier_and_a_model() {
        use Provider::{Anthropic, Azure, Gemini, Groq, Mistral, Openai};
        let rows: &[(Provider, &str, &str, &str, &str)] = &[
            (Openai, "1", "gpt-4o", "gpt-4o", "RPM 500, TPM 30000"),
            (Openai, "Tier 1", "gpt-4o-2024-08-06", "gpt-4o", "RPM 500, TPM 30000"),
            (Openai, "tier1", "gpt-4o-mini-2024-07-18", "gpt-4o-mini", "RPM 500, RPD 10000, TPM 200000"),
            (Openai, "TIER-1", "ft:gpt-4o-mini-2024-07-18:acme::x", "gpt-4o-mini", "RPM 500, RPD 10000, TPM 200000"),
            (Openai, "5", "gpt-4o", "gpt-4o", "RPM 10000, TPM 30000000"),
            (Openai, "tier_2", "o4-mini-2025-04-16", "o4-mini", "RPM 2000, TPM 2000000"),
            (Openai, "free", "text-embedding-3-large", "text-embedding-3-large", "RPM 100, RPD 2000, TPM 40000"),
            (Openai, "1", "omni-moderation-2024-09-26", "omni-moderation-latest", "RPM 500, RPD 10000, TPM 10000"),
            (Anthropic, "build", "claude-opus-4-5-20251101", "opus-4.x", "RPM 5000, ITPM 5000000, OTPM 1000000"),
            (Anthropic, "Start", "claude-sonnet-5", "sonnet-5", "RPM 1000, ITPM 2000000, OTPM 400000"),
            (Anthropic, "scale", "claude-3-5-haiku-20241022", "haiku-3.5", "RPM 4000, ITPM 400000, OTPM 80000"),
            (Anthropic, "1", "claude-sonnet-4-5", "sonnet-4.x", "RPM 50, ITPM 30000, OTPM 8000"),
            (Groq, "Free", "openai/gpt-oss-20b", "openai/gpt-oss-20b", "RPM 30, RPD 1000, TPM 8000, TPD 200000"),
            (Groq, "free", "gpt-oss-20b", "openai/gpt-oss-20b", "RPM 30, RPD 1000, TPM 8000, TPD 200000"),
            (Groq, "free", "whisper-large-v3", "whisper-large-v3", "RPM 20, RPD 2000"),
            (Gemini, "free", "gemini-2.5-flash", "gemini-2.5-flash", "RPM 10, RPD 250, ITPM 250000"),
            (Mistral, "free", "mistral-small-2506", "*", "RPS 1, TPM 500000, tokens per 2678400 s 1000000000"),
            (Azure, "Global Standard Default", "gpt-4o", "gpt-4o", "RPM 2700, TPM 450000"),
            (Azure, "global_standard_enterprise", "gpt-4o-2024-08-06", "gpt-4o", "RPM 180000, TPM 30000000"),
        ];
        for (provider, tier, model, row, limits) in rows {
            let found =
                lookup(*provider, tier, model).unwrap_or_else(|| panic!("{provider} {tier} {model} is not found"));
            let text: Vec<String> = found.limits.iter().map(Limit::to_string).collect();
            assert_eq!((found.model.as_str(), text.join(", ").as_str()), (*row, *limits), "{provider} {tier} {model}");
        }
    }

    #[test]
    fn what_is_not_published_is_not_made_up() {
        for (provider, tier, model) in [
            (Provider::Openai, "6", "gpt-4o"),
            (Provider::Openai, "", "gpt-4o"),
            (Provider::Openai, "1", "gpt-9"),
            (Provider::Openai, "free", "gpt-4o"),
            // The row tells only about batches.
            (Provider::Gemini, "tier2", "gemini-2.5-flash"),
            (Provider::Mistral, "tier1", "mistral-small-latest"),
        ] {
            assert_eq!(lookup(provider, tier, model), None, "{provider} {tier} {model}");
        }
    }

    #[test]
    fn rows_tell_their_source_and_their_peculiarities() {
        let row = lookup(Provider::Anthropic, "start", "claude-opus-4-8").unwrap();
        assert!(row.shared_pool.is_some_and(|pool| pool.contains("Opus 4.8")));
        assert!(!row.cache_reads_count && !row.source.is_empty() && !row.confidence.is_empty());
        assert!(lookup(Provider::Anthropic, "start", "claude-3-5-haiku-latest").unwrap().cache_reads_count);
    }

    #[test]
    fn every_row_of_the_data_is_a_sound_set_of_limits() {
        assert_eq!(as_of(), "2026-09-24");
        assert_eq!(tiers(Provider::Openai), ["free", "tier1", "tier2", "tier3", "tier4", "tier5"]);
        for provider in Provider::ALL {
            assert!(!tiers(provider).is_empty(), "{provider}");
            for (tier, _) in tiers_of(provider) {
                assert!(models(provider, tier).iter().all(|model| lookup(provider, tier, model).is_some()));
            }
            for (_, row) in tiers_of(provider).iter().flat_map(|(_, tier)| &tier.models.0) {
                for limit in row.limits() {
                    assert!(limit.amount > 0);
                    assert!([Duration::from_secs(1), MINUTE, DAY, MONTH].contains(&limit.window));
                }
            }
        }
    }
}
