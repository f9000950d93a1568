//! What a provider's books take for a request, before and after.

use super::Provider;
use super::models::family;
use crate::cost::{Charge, Estimate, Usage};

/// What to reserve for `estimate` when it is sent to `provider`. `predicted_output` is the expected output per choice.
///
/// | provider | input | output |
/// |---|---|---|
/// | OpenAI and compatible, Azure | the larger of the exact count and the character count | the cap, else the prediction |
/// | Groq | the exact count | the cap, else the prediction |
/// | Anthropic, Mistral | the exact count | the prediction, at most the cap |
/// | Gemini | the exact count | the same, but not counted in `tokens` |
///
/// OpenAI's guide and its help centre disagree on whether input and cap are added; the sum is safe either way. Azure
/// counts by characters alone; the larger count never books less. Anthropic and Mistral reserve no output themselves:
/// they count what is produced, and a cap that is only there as a ceiling (64,000, say) must not block the books.
pub fn at_admission(provider: Provider, estimate: &Estimate, predicted_output: u64) -> Charge {
    let predicted = predicted_output.saturating_mul(u64::from(estimate.choices.max(1)));
    let capped = estimate.output_cap.unwrap_or(predicted);
    match provider {
        Provider::Openai | Provider::Compatible | Provider::Azure => {
            let larger = Charge::tokens(estimate.input.max(estimate.input_by_chars), capped);
            let by_chars = if estimate.input_by_chars > 0 { estimate.input_by_chars } else { estimate.input };
            Charge { input_tokens: estimate.input, input_by_chars: by_chars, ..larger }
        }
        Provider::Groq => Charge::tokens(estimate.input, capped),
        Provider::Anthropic | Provider::Mistral => Charge::tokens(estimate.input, capped.min(predicted)),
        Provider::Gemini => input_only(Charge::tokens(estimate.input, capped)),
    }
}

/// Whether what to reserve for `estimate` depends on the predicted output.
pub fn is_guess(provider: Provider, estimate: &Estimate) -> bool {
    match provider {
        Provider::Anthropic | Provider::Mistral => estimate.output_cap != Some(0),
        _ => estimate.output_cap.is_none(),
    }
}

/// What `provider`'s books show for a request in the end; `None` for Azure, which keeps the estimate it admitted.
///
/// Cached tokens count in full at OpenAI and Gemini. At Groq, Mistral and Anthropic (cache reads) they do not count,
/// except for Anthropic's Haiku 3 and 3.5.
pub fn at_completion(provider: Provider, model: &str, admitted: &Charge, usage: &Usage) -> Option<Charge> {
    let cached = if cache_reads_count(provider, model) { 0 } else { usage.cached_tokens };
    let uncached = usage.input_tokens.saturating_sub(cached);
    let used = match provider {
        Provider::Azure => return None,
        Provider::Openai | Provider::Compatible => Charge::tokens(usage.input_tokens, usage.output_tokens),
        Provider::Gemini => input_only(Charge::tokens(usage.input_tokens, usage.output_tokens)),
        Provider::Anthropic | Provider::Groq | Provider::Mistral => Charge::tokens(uncached, usage.output_tokens),
    };
    Some(Charge { requests: admitted.requests, ..used })
}

/// The models marked † in Anthropic's table of limits (2025 and 2026).
fn cache_reads_count(provider: Provider, model: &str) -> bool {
    provider == Provider::Anthropic && matches!(family(provider, model), "haiku-3.5" | "haiku-3")
}

/// Whether `provider` takes a request's tokens when it is done, all of them: so Mistral, whose headers tell them afterwards.
pub const fn counts_when_done(provider: Provider) -> bool {
    matches!(provider, Provider::Mistral)
}

/// Gemini's TPM counts input tokens only.
const fn input_only(charge: Charge) -> Charge {
    Charge { tokens: charge.input_tokens, ..charge }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{lookup, models, tiers};

    const fn charge(tokens: u64, input_tokens: u64, output_tokens: u64) -> Charge {
        Charge { requests: 1, tokens, input_tokens, input_by_chars: input_tokens, output_tokens }
    }

    #[test]
    fn each_provider_admits_by_its_own_rule() {
        let capped = Estimate { input: 100, input_by_chars: 120, output_cap: Some(1_000), choices: 2 };
        let open = Estimate { output_cap: None, ..capped };
        let by_chars = |charge| Charge { input_by_chars: 120, ..charge };
        let rows = [
            (Provider::Openai, by_chars(charge(1_120, 100, 1_000)), by_chars(charge(520, 100, 400))),
            (Provider::Azure, by_chars(charge(1_120, 100, 1_000)), by_chars(charge(520, 100, 400))),
            (Provider::Anthropic, charge(500, 100, 400), charge(500, 100, 400)),
            (Provider::Gemini, charge(100, 100, 1_000), charge(100, 100, 400)),
            (Provider::Groq, charge(1_100, 100, 1_000), charge(500, 100, 400)),
            (Provider::Mistral, charge(500, 100, 400), charge(500, 100, 400)),
        ];
        for (provider, with_cap, without_cap) in rows {
            assert_eq!(at_admission(provider, &capped, 200), with_cap, "{provider}, with a cap");
            assert_eq!(at_admission(provider, &open, 200), without_cap, "{provider}, without");
        }
    }

    #[test]
    fn a_cap_below_the_prediction_holds_everywhere() {
        for provider in Provider::ALL {
            assert_eq!(at_admission(provider, &Estimate::tokens(10, 5), 200).output_tokens, 5, "{provider}");
        }
    }

    #[test]
    fn a_charge_is_a_guess_where_the_prediction_changes_it() {
        for provider in Provider::ALL {
            for output_cap in [None, Some(0), Some(1_000)] {
                let estimate = Estimate { input: 10, input_by_chars: 0, output_cap, choices: 1 };
                let changes = at_admission(provider, &estimate, 10) != at_admission(provider, &estimate, 20);
                assert_eq!(is_guess(provider, &estimate), changes, "{provider} {output_cap:?}");
            }
        }
    }

    #[test]
    fn each_provider_settles_by_its_own_rule() {
        let usage = Usage { input_tokens: 100, cached_tokens: 64, output_tokens: 50 };
        let rows = [
            (Provider::Openai, Some(charge(150, 100, 50))),
            (Provider::Azure, None),
            (Provider::Anthropic, Some(charge(86, 36, 50))),
            (Provider::Gemini, Some(charge(100, 100, 50))),
            (Provider::Groq, Some(charge(86, 36, 50))),
            (Provider::Mistral, Some(charge(86, 36, 50))),
        ];
        for (provider, expected) in rows {
            assert_eq!(at_completion(provider, "m", &charge(1_120, 120, 1_000), &usage), expected, "{provider}");
        }
    }

    #[test]
    fn cache_reads_count_where_the_tier_table_says_so() {
        let provider = Provider::Anthropic;
        for tier in tiers(provider) {
            for model in models(provider, tier) {
                let counted = lookup(provider, tier, model).unwrap().cache_reads_count;
                assert_eq!(cache_reads_count(provider, model), counted, "{tier} {model}");
            }
        }
        let usage = Usage { input_tokens: 100, cached_tokens: 64, output_tokens: 50 };
        let settled = |model| at_completion(provider, model, &charge(150, 100, 50), &usage).unwrap().input_tokens;
        assert_eq!([settled("claude-3-5-haiku-20241022"), settled("claude-haiku-4-5")], [100, 36]);
    }

    #[test]
    fn a_mistral_request_settles_to_the_recorded_query_cost() {
        // Recorded: 122 tokens in all, 16 of them cached, x-ratelimit-tokens-query-cost: 106.
        let usage = Usage { input_tokens: 100, cached_tokens: 16, output_tokens: 22 };
        let settled = at_completion(Provider::Mistral, "m", &charge(0, 0, 0), &usage).unwrap();
        assert_eq!(settled.tokens, 106);
    }

    #[test]
    fn the_largest_numbers_saturate() {
        let estimate = Estimate { input: u64::MAX, input_by_chars: u64::MAX, output_cap: None, choices: u32::MAX };
        let usage = Usage { input_tokens: u64::MAX, cached_tokens: 0, output_tokens: u64::MAX };
        for provider in Provider::ALL {
            let admitted = at_admission(provider, &estimate, u64::MAX);
            assert_eq!((admitted.requests, admitted.tokens), (1, u64::MAX), "{provider}");
            if let Some(settled) = at_completion(provider, "m", &admitted, &usage) {
                assert_eq!((settled.requests, settled.tokens), (1, u64::MAX), "{provider}");
            }
        }
        let odd = Usage { input_tokens: 1, cached_tokens: 9, output_tokens: 0 };
        assert_eq!(at_completion(Provider::Groq, "m", &charge(1, 1, 0), &odd), Some(charge(0, 0, 0)));
    }
}
