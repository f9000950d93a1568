//! What a user should know about a failure: what is wrong, and what to do about it.

use super::rules::is_redirect;
use super::{Class, Failure, LimitHit};
use crate::cost::DAY;

impl Failure {
    /// What is wrong and what to do, in half a sentence: the class's advice, made exact where the provider told more.
    ///
    /// ```
    /// use tollgate::providers::{Observation, Provider, classify};
    ///
    /// let body = br#"{"error": {"type": "tokens", "code": "rate_limit_exceeded", "message":
    ///     "Rate limit reached on tokens per min (TPM): Limit 30000, Used 24102, Requested 7758. Please try again in 3.72s."}}"#;
    /// let failure = classify(Provider::Openai, 429, &Observation::default(), body);
    /// assert_eq!(failure.advice(), "the limit TPM 30000 is reached; send again in 3.7s");
    /// ```
    pub fn advice(&self) -> String {
        let told = match self.class {
            Class::NotFound if is_redirect(self.status) => {
                Some("redirects are not followed; set the account's `base_url` to where the API itself is".to_owned())
            }
            // The message says what it was.
            Class::Timeout if self.status == 0 => Some("send again after a pause".to_owned()),
            Class::QuotaExhausted => self.money().map(str::to_owned),
            Class::RateLimited => self.limit.map(|hit| self.reached(&hit)),
            Class::TooLarge => self.limit.and_then(|hit| too_large(&hit)),
            Class::Forbidden if self.has_code(&["unsupported_country_region_territory"]) => {
                Some("the provider does not serve the country that this request came from".to_owned())
            }
            _ => None,
        };
        told.unwrap_or_else(|| self.class.advice().to_owned())
    }

    fn money(&self) -> Option<&'static str> {
        let says = |words: &str| self.message.to_ascii_lowercase().contains(words);
        if self.has_code(&["credit_balance_exhausted"]) || says("credit balance is too low") {
            return Some("this account has no credit left; waiting will not help; see the provider's billing page");
        }
        let spend_limit = [
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "enforced_spend_limit_reached",
            "blocked_api_access",
        ];
        (self.has_code(&spend_limit) || says("specified api usage limits"))
            .then_some("a spend limit is reached; raise it on the provider's billing page, or wait for the next month")
    }

    fn reached(&self, hit: &LimitHit) -> String {
        let limit = described(hit);
        match (self.wait, hit.window) {
            (Some(wait), _) => format!("the limit {limit} is reached; send again in {wait:.1?}"),
            // Gemini's hint for a day limit is that of the minute limit, and was dropped.
            (None, Some(DAY)) => {
                format!("the day's limit {limit} is used up; minutes will not help, the next day or a higher tier will")
            }
            (None, _) => format!("the limit {limit} is reached; send again when it has room"),
        }
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

fn too_large(hit: &LimitHit) -> Option<String> {
    Some(format!(
        "the request takes {} {} and {} can never let it pass; shorten the input or lower the output cap",
        hit.requested?,
        hit.dimension,
        described(hit),
    ))
}

/// `TPM 30000`, or as much of it as is told.
fn described(hit: &LimitHit) -> String {
    hit.as_limit().map_or_else(|| format!("of {}", hit.dimension), |limit| limit.to_string())
}
