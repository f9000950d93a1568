//! Whose rules are built in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A provider whose rules are built in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Provider {
    /// OpenAI itself.
    #[default]
    Openai,
    /// A server that speaks OpenAI's API and enforces its limits in a way that nobody has told: a gateway, a proxy, a
    /// self-hosted model.
    #[serde(alias = "openai_compatible")]
    Compatible,
    /// Azure OpenAI and Foundry deployments.
    #[serde(alias = "azure_openai")]
    Azure,
    /// Anthropic.
    Anthropic,
    /// The Gemini Developer API.
    Gemini,
    /// Groq.
    Groq,
    /// Mistral.
    Mistral,
}

impl Provider {
    /// Every provider, in the order in which help texts list them.
    pub const ALL: [Provider; 7] = [
        Provider::Openai,
        Provider::Compatible,
        Provider::Azure,
        Provider::Anthropic,
        Provider::Gemini,
        Provider::Groq,
        Provider::Mistral,
    ];

    /// The name used in configuration files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Provider::Openai => "openai",
            Provider::Compatible => "compatible",
            Provider::Azure => "azure",
            Provider::Anthropic => "anthropic",
            Provider::Gemini => "gemini",
            Provider::Groq => "groq",
            Provider::Mistral => "mistral",
        }
    }

    /// Where the provider serves its API, version included and without a trailing slash. Gemini's is the address that
    /// speaks OpenAI's API. `None` for Azure, where every resource has its own host, and for servers of your own.
    pub const fn default_base_url(self) -> Option<&'static str> {
        match self {
            Provider::Openai => Some("https://api.openai.com/v1"),
            Provider::Compatible | Provider::Azure => None,
            Provider::Anthropic => Some("https://api.anthropic.com/v1"),
            Provider::Gemini => Some("https://generativelanguage.googleapis.com/v1beta/openai"),
            Provider::Groq => Some("https://api.groq.com/openai/v1"),
            Provider::Mistral => Some("https://api.mistral.ai/v1"),
        }
    }

    /// The environment variable in which the provider's own SDK looks for the API key.
    pub const fn key_env(self) -> &'static str {
        match self {
            Provider::Openai | Provider::Compatible => "OPENAI_API_KEY",
            Provider::Azure => "AZURE_OPENAI_API_KEY",
            Provider::Anthropic => "ANTHROPIC_API_KEY",
            Provider::Gemini => "GEMINI_API_KEY",
            Provider::Groq => "GROQ_API_KEY",
            Provider::Mistral => "MISTRAL_API_KEY",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of the built-in providers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown provider `{0}`; expected openai, compatible, azure, anthropic, gemini, groq or mistral")]
pub struct UnknownProvider(pub String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    /// Reads [`Provider::name`] in any case; `azure_openai` is accepted for Azure, `openai_compatible` for others.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("azure_openai") {
            return Ok(Provider::Azure);
        }
        if text.eq_ignore_ascii_case("openai_compatible") {
            return Ok(Provider::Compatible);
        }
        let named = |provider: &Provider| provider.name().eq_ignore_ascii_case(text);
        Provider::ALL.into_iter().find(named).ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_read_back_from_its_name() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse(), Ok(provider));
            assert_eq!(provider.name().to_uppercase().parse(), Ok(provider));
            let json = serde_json::to_string(&provider).unwrap();
            assert_eq!(json, format!("\"{provider}\""));
        }
        assert_eq!("azure_openai".parse(), Ok(Provider::Azure));
        assert_eq!(serde_json::from_str::<Provider>("\"azure_openai\"").unwrap(), Provider::Azure);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list_of_known_ones() {
        let error = "cohere".parse::<Provider>().unwrap_err().to_string();
        assert!(error.contains("`cohere`"));
        for provider in Provider::ALL {
            assert!(error.contains(provider.name()), "{provider} is missing in: {error}");
        }
    }
}
