//! Usage as the providers report it, in replies and in stream events.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::cost::Usage;

/// The usage in a reply or a stream event: chat and Responses (`usage`, `response.usage`), Anthropic (`usage`,
/// `message.usage`), Gemini (`usageMetadata`), Groq (`x_groq.usage`). `None` where it is missing or `null`, as in most
/// chunks of a stream. Anthropic's counts are cumulative: of several, the last wins per field.
///
/// ```
/// use serde_json::json;
/// use tollgate::{Usage, providers::usage_of};
///
/// let reply = json!({"choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18}});
/// assert_eq!(usage_of(&reply), Some(Usage::new(13, 5)));
/// ```
pub fn usage_of(reply: &Value) -> Option<Usage> {
    Reply::deserialize(reply).ok()?.usage()
}

/// As [`usage_of`], from the bytes of a whole JSON reply; everything but the usage is skipped without being stored.
pub fn usage_in_bytes(reply: &[u8]) -> Option<Usage> {
    serde_json::from_slice::<Reply>(reply).ok()?.usage()
}

/// The usage in an event of a stream, and whether it is that of the whole answer. It is not yet in Anthropic's first event, nor
/// where a server counts along with every piece of the answer.
#[cfg(feature = "client")]
pub(crate) fn usage_in_event(event: &[u8]) -> Option<(Usage, bool)> {
    let usage = usage_in_bytes(event)?;
    Some((usage, serde_json::from_slice::<Progress>(event).is_ok_and(|progress| progress.is_over())))
}

/// What an event tells of how far its answer has come.
#[cfg(feature = "client")]
#[derive(Deserialize)]
struct Progress {
    /// Anthropic's `message_start`.
    message: Option<IgnoredAny>,
    #[serde(default, alias = "candidates")]
    choices: Lenient<Vec<Choice>>,
}

#[cfg(feature = "client")]
#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "finishReason")]
    finish_reason: Option<IgnoredAny>,
}

#[cfg(feature = "client")]
impl Progress {
    fn is_over(&self) -> bool {
        let choices = self.choices.get().map_or(&[][..], |choices| choices);
        self.message.is_none() && (choices.iter().all(|choice| choice.finish_reason.is_some()))
    }
}

/// The places where usage is found.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    usage: Lenient<Counts>,
    #[serde(default, rename = "usageMetadata")]
    usage_metadata: Lenient<Counts>,
    #[serde(default)]
    response: Lenient<Inner>,
    #[serde(default)]
    message: Lenient<Inner>,
    #[serde(default)]
    x_groq: Lenient<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    usage: Lenient<Counts>,
}

/// Every field under which a provider counts; those of the others stay zero.
#[derive(Deserialize)]
struct Counts {
    #[serde(default, alias = "input_tokens", alias = "promptTokenCount")]
    prompt_tokens: Lenient<u64>,
    #[serde(default, alias = "output_tokens", alias = "candidatesTokenCount")]
    completion_tokens: Lenient<u64>,
    #[serde(default, alias = "totalTokenCount")]
    total_tokens: Lenient<u64>,
    #[serde(default, alias = "input_tokens_details")]
    prompt_tokens_details: Lenient<Details>,
    // Anthropic's input_tokens leave out both of these, OpenAI's include what is cached.
    #[serde(default)]
    cache_creation_input_tokens: Lenient<u64>,
    #[serde(default)]
    cache_read_input_tokens: Lenient<u64>,
    #[serde(default, rename = "cachedContentTokenCount")]
    cached_content: Lenient<u64>,
    #[serde(default, rename = "thoughtsTokenCount")]
    thoughts: Lenient<u64>,
    #[serde(default, rename = "toolUsePromptTokenCount")]
    tool_use_prompt: Lenient<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Lenient<u64>,
}

/// A value of the expected kind, or anything else: one odd field must not hide the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Known(T),
    Other(IgnoredAny),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Lenient::Other(IgnoredAny)
    }
}

impl<T> Lenient<T> {
    fn get(&self) -> Option<&T> {
        match self {
            Lenient::Known(value) => Some(value),
            Lenient::Other(_) => None,
        }
    }
}

impl Lenient<u64> {
    fn count(&self) -> u64 {
        self.get().copied().unwrap_or(0)
    }
}

impl Reply {
    fn usage(&self) -> Option<Usage> {
        let nested =
            [&self.response, &self.message, &self.x_groq].into_iter().filter_map(|inner| Some(&inner.get()?.usage));
        [&self.usage, &self.usage_metadata].into_iter().chain(nested).find_map(|counts| counts.get()?.usage())
    }
}

impl Counts {
    fn usage(&self) -> Option<Usage> {
        self.prompt_tokens.get().or(self.completion_tokens.get())?;
        let cached = self.prompt_tokens_details.get().map_or(0, |details| details.cached_tokens.count());
        let input_parts = [
            &self.prompt_tokens,
            &self.cache_creation_input_tokens,
            &self.cache_read_input_tokens,
            &self.tool_use_prompt,
        ];
        let input_tokens = input_parts.into_iter().fold(0u64, |sum, part| sum.saturating_add(part.count()));
        let stated = self.completion_tokens.count().saturating_add(self.thoughts.count());
        // Gemini's OpenAI-compatible address leaves thinking out of the output, but not out of the total.
        let output_tokens = stated.max(self.total_tokens.count().saturating_sub(input_tokens));
        let cached_tokens = cached.max(self.cache_read_input_tokens.count()).max(self.cached_content.count());
        Some(Usage { input_tokens, cached_tokens: cached_tokens.min(input_tokens), output_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_found_in_every_dialect() {
        let usage =
            |input_tokens, cached_tokens, output_tokens| Some(Usage { input_tokens, cached_tokens, output_tokens });
        let rows = [
            (
                "chat",
                json!({"usage": {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
                    "prompt_tokens_details": {"cached_tokens": 1920},
                    "completion_tokens_details": {"reasoning_tokens": 128}}}),
                usage(2006, 1920, 300),
            ),
            ("chunk before the last", json!({"choices": [{"delta": {"content": "a"}}], "usage": null}), None),
            (
                "last chunk",
                json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
                usage(9, 0, 4),
            ),
            ("embeddings", json!({"usage": {"prompt_tokens": 8, "total_tokens": 8}}), usage(8, 0, 0)),
            (
                "responses",
                json!({"usage": {"input_tokens": 13, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 567,
                    "output_tokens_details": {"reasoning_tokens": 512}, "total_tokens": 580}}),
                usage(13, 3, 567),
            ),
            (
                "responses stream",
                json!({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}),
                usage(1, 0, 2),
            ),
            ("responses begun", json!({"type": "response.created", "response": {"usage": null}}), None),
            (
                "anthropic",
                json!({"usage": {"input_tokens": 21, "cache_creation_input_tokens": 188,
                    "cache_read_input_tokens": 1000, "output_tokens": 393}}),
                usage(1209, 1000, 393),
            ),
            (
                "anthropic message_start",
                json!({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}),
                usage(25, 0, 1),
            ),
            (
                "anthropic message_delta",
                json!({"type": "message_delta", "usage": {"output_tokens": 15}}),
                usage(0, 0, 15),
            ),
            (
                "gemini",
                json!({"usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4,
                    "candidatesTokenCount": 20, "thoughtsTokenCount": 30, "totalTokenCount": 60}}),
                usage(10, 4, 50),
            ),
            (
                "gemini through the OpenAI-compatible address",
                json!({"usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 60}}),
                usage(10, 0, 50),
            ),
            (
                "groq",
                json!({"x_groq": {"id": "req_1", "usage": {"prompt_tokens": 7, "completion_tokens": 8}}}),
                usage(7, 0, 8),
            ),
            ("mistral error", json!({"object": "error", "message": "Rate limit exceeded"}), None),
            ("nothing", json!({}), None),
            ("empty", json!({"usage": {}}), None),
            ("not an object", json!([1, 2]), None),
            (
                "odd fields",
                json!({"usage": {"prompt_tokens": 5, "completion_tokens": -1, "total_tokens": "x"}}),
                usage(5, 0, 0),
            ),
            ("huge", json!({"usage": {"input_tokens": u64::MAX, "cache_read_input_tokens": 9}}), usage(u64::MAX, 9, 0)),
        ];
        for (name, reply, expected) in rows {
            assert_eq!(usage_of(&reply), expected, "{name}");
            assert_eq!(usage_in_bytes(reply.to_string().as_bytes()), expected, "{name}, from bytes");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn an_event_tells_whether_its_usage_is_that_of_the_whole_answer() {
        let rows = [
            (json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}), true),
            (json!({"choices": [{"finish_reason": "stop"}], "x_groq": {"usage": {"prompt_tokens": 9}}}), true),
            (json!({"choices": [{"finish_reason": null}], "usage": {"prompt_tokens": 9}}), false),
            (json!({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}), false),
            (json!({"type": "message_delta", "usage": {"output_tokens": 15}}), true),
            (json!({"type": "response.completed", "response": {"usage": {"input_tokens": 1}}}), true),
            (json!({"candidates": [{"content": {}}], "usageMetadata": {"promptTokenCount": 1}}), false),
            (json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}), true),
        ];
        for (event, whole) in rows {
            let told = usage_in_event(event.to_string().as_bytes());
            assert_eq!(told.map(|(_, whole)| whole), Some(whole), "{event}");
        }
        assert_eq!(usage_in_event(br#"{"choices":[],"usage":null}"#), None);
    }

    #[test]
    fn a_cut_reply_has_no_usage() {
        assert_eq!(usage_in_bytes(br#"{"usage":{"prompt_tokens":5},"choices":[{"mess"#), None);
        assert_eq!(usage_in_bytes(b""), None);
    }
}
