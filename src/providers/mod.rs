//! What is known about each provider, as pure functions and data: header dialects, error bodies, charge rules, tiers.
//! Nothing here waits, reads a clock or touches a network; dates are resolved against a wall-clock argument.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A provider whose rules are built in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Provider {
    /// OpenAI, and servers that speak its API.
    #[default]
    Openai,
    /// Azure OpenAI and Foundry deployments.
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
    /// The name used in configuration files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Provider::Openai => "openai",
            Provider::Azure => "azure",
            Provider::Anthropic => "anthropic",
            Provider::Gemini => "gemini",
            Provider::Groq => "groq",
            Provider::Mistral => "mistral",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One limit as a response shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// x
    pub dimension: crate::Dimension,
    /// x
    pub limit: Option<u64>,
    /// x
    pub remaining: Option<u64>,
    /// x
    pub reset: Option<std::time::Duration>,
    /// x
    pub window: Option<std::time::Duration>,
    /// x
    pub rounding: u64,
}
impl Reading {
    /// x
    pub fn inferred_window(&self) -> Option<std::time::Duration> {
        let used = self.limit?.checked_sub(self.remaining?)?;
        let est = self.reset?.as_secs_f64() * self.limit? as f64 / used as f64;
        [60u64, 86400].into_iter().find(|w| (est / *w as f64 - 1.0).abs() < 0.1).map(std::time::Duration::from_secs)
    }
}
