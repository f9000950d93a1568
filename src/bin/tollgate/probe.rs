//! The smallest paid call, which shows credit and limits.

use serde_json::{Value, json};
use tollgate::Provider;

/// Path and body, in the provider's own way where the common one shows less.
pub(crate) fn smallest(provider: Provider, model: &str) -> (&'static str, Value) {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let (path, cap) = match provider {
        Provider::Anthropic => ("/messages", "max_tokens"),
        // Newer models refuse the older name.
        Provider::Openai | Provider::Azure | Provider::Groq => ("/chat/completions", "max_completion_tokens"),
        _ => ("/chat/completions", "max_tokens"),
    };
    body[cap] = json!(1);
    (path, body)
}
