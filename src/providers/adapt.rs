//! What changes in a chat completion when another provider's model answers it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::Provider;
use super::models::family;

/// Who is to take a request.
#[derive(Clone, Copy, Debug)]
pub struct Taker<'a> {
    /// The provider; the request goes to its OpenAI-compatible address.
    pub provider: Provider,
    /// The model.
    pub model: &'a str,
    /// The most output tokens that the model gives; `None` if that is not known.
    pub max_output: Option<u64>,
    /// What the model does not take besides what its provider does not: names of parameters, or of contents (`images`,
    /// `audio`, `files`).
    pub lacks: &'a [String],
}

/// What to do with what a model does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsupported {
    /// The model cannot answer the request.
    #[default]
    Error,
    /// It is left out or lowered, and the result says so. Contents of messages are never left out.
    Drop,
}

/// A body for another model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Adapted {
    /// What to send.
    pub body: Value,
    /// What was left out or lowered, e.g. `logprobs` or `temperature 1.4 → 1`.
    pub dropped: Vec<String>,
}

impl Adapted {
    pub(crate) fn unchanged(body: &Value) -> Self {
        Self { body: body.clone(), dropped: Vec::new() }
    }
}

/// Why a model cannot answer a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{model} at {provider} does not take {}; leave it out, let it be dropped (unsupported = \"drop\"), or use another fallback", what.join(", "))]
#[non_exhaustive]
pub struct Unfit {
    /// The provider.
    pub provider: Provider,
    /// The model.
    pub model: String,
    /// What it does not take.
    pub what: Vec<String>,
}

/// Taken by every provider.
const COMMON: &[&str] = &[
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "parallel_tool_calls",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
];

/// Taken by OpenAI besides.
const OPENAI: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "metadata",
    "modalities",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "top_logprobs",
    "user",
    "verbosity",
    "web_search_options",
];

/// Refused by OpenAI's reasoning models …
const NOT_FOR_REASONING: &[&str] = &[
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "prediction",
    "presence_penalty",
    "temperature",
    "top_logprobs",
    "top_p",
];
/// … and by its others.
const ONLY_FOR_REASONING: &[&str] = &["reasoning_effort", "verbosity"];

/// Whether `provider` takes the parameter and heeds it. Anthropic's compatible address ignores what it does not know (its
/// own list), Groq, Mistral and Gemini answer it with an error.
fn takes(taker: &Taker<'_>, name: &str) -> bool {
    let more: &[&str] = match taker.provider {
        Provider::Compatible => return true,
        Provider::Openai | Provider::Azure => {
            let refused = if is_reasoning(taker) { NOT_FOR_REASONING } else { ONLY_FOR_REASONING };
            return !refused.contains(&name) && (COMMON.contains(&name) || OPENAI.contains(&name));
        }
        Provider::Anthropic => &["thinking"],
        Provider::Gemini => &["reasoning_effort", "response_format"],
        Provider::Groq => &[
            "frequency_penalty",
            "presence_penalty",
            "reasoning_effort",
            "response_format",
            "seed",
            "service_tier",
            "user",
        ],
        Provider::Mistral => &["frequency_penalty", "prediction", "presence_penalty", "random_seed", "response_format"],
    };
    COMMON.contains(&name) || more.contains(&name)
}

fn is_reasoning(taker: &Taker<'_>) -> bool {
    let name = family(Provider::Openai, taker.model);
    let reasoning = ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|start| name.starts_with(start));
    reasoning && !name.contains("-chat")
}

/// The same parameter under the name that the taker knows.
fn renamed<'a>(taker: &Taker<'_>, name: &'a str) -> &'a str {
    match (taker.provider, name) {
        (Provider::Mistral, "max_completion_tokens") => "max_tokens",
        (Provider::Mistral, "seed") => "random_seed",
        (Provider::Openai | Provider::Azure, "max_tokens") if is_reasoning(taker) => "max_completion_tokens",
        (Provider::Mistral | Provider::Compatible, name) => name,
        (_, "random_seed") => "seed",
        (_, name) => name,
    }
}

/// `body`, which is made for another model, as `taker` takes it.
///
/// The model's name is replaced, parameters are renamed where they are called otherwise (`max_tokens`, `seed`, the role
/// `developer`), and values that ask for nothing (`"n": 1`, `"logprobs": false`, `null`) are left out where they are not
/// known. What the taker does not take is refused or dropped as `unsupported` says; servers of your own take everything.
///
/// ```
/// use serde_json::json;
/// use tollgate::providers::{Provider, Taker, Unsupported, adapt};
///
/// let body = json!({"model": "gpt-4o", "messages": [], "max_completion_tokens": 100, "logprobs": true});
/// let taker = Taker { provider: Provider::Mistral, model: "mistral-large-latest", max_output: None, lacks: &[] };
/// assert_eq!(adapt(&body, &taker, Unsupported::Error).unwrap_err().what, ["logprobs"]);
///
/// let adapted = adapt(&body, &taker, Unsupported::Drop)?;
/// assert_eq!(adapted.body, json!({"model": "mistral-large-latest", "messages": [], "max_tokens": 100}));
/// assert_eq!(adapted.dropped, ["logprobs"]);
/// # Ok::<(), tollgate::providers::Unfit>(())
/// ```
///
/// # Errors
/// When the taker does not take it. Bodies that are no chat completions are only given to providers that speak OpenAI's
/// whole API.
pub fn adapt(body: &Value, taker: &Taker<'_>, unsupported: Unsupported) -> Result<Adapted, Unfit> {
    let unfit = |what| Unfit { provider: taker.provider, model: taker.model.to_owned(), what };
    let Some(body) = body.as_object() else { return Err(unfit(vec!["a body that is no JSON object".to_owned()])) };
    let speaks_all = matches!(taker.provider, Provider::Openai | Provider::Azure | Provider::Compatible);
    if !body.contains_key("messages") && !speaks_all {
        return Err(unfit(vec!["a request that is no chat completion".to_owned()]));
    }
    let is_chat = body.contains_key("messages");
    let mut out = Map::new();
    let mut dropped = Vec::new();
    for (name, value) in body {
        let new = renamed(taker, name);
        let lacks = taker.lacks.iter().any(|lack| lack == name);
        if is_chat && (lacks || !takes(taker, new)) {
            if !asks_nothing(name, value) {
                dropped.push(name.clone());
            }
        } else if new == name || !body.contains_key(new) {
            out.insert(new.to_owned(), value.clone());
        }
    }
    out.insert("model".to_owned(), taker.model.into());
    if is_chat {
        narrow(&mut out, taker, &mut dropped);
    }
    let contents = missing_contents(&out, taker);
    if !contents.is_empty() {
        return Err(unfit(contents));
    }
    if unsupported == Unsupported::Error && !dropped.is_empty() {
        return Err(unfit(dropped));
    }
    Ok(Adapted { body: Value::Object(out), dropped })
}

/// A value that is the default everywhere.
fn asks_nothing(name: &str, value: &Value) -> bool {
    match name {
        _ if value.is_null() => true,
        "logprobs" | "store" => value == false,
        "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" | "metadata" => value.as_object().is_some_and(Map::is_empty),
        "response_format" => value["type"] == "text",
        "service_tier" => value == "auto" || value == "default",
        "modalities" => value.as_array().is_some_and(|list| list.iter().all(|mode| mode == "text")),
        _ => false,
    }
}

/// Parameters that are taken within bounds.
fn narrow(body: &mut Map<String, Value>, taker: &Taker<'_>, dropped: &mut Vec<String>) {
    let Taker { provider, max_output, .. } = *taker;
    if matches!(provider, Provider::Anthropic | Provider::Groq)
        && body.get("n").is_some_and(|n| !n.is_null() && *n != 1)
        && let Some(n) = body.remove("n")
    {
        dropped.push(format!("n {n} → 1"));
    }
    if provider == Provider::Anthropic
        && let Some(temperature) = body.get_mut("temperature").filter(|value| value.as_f64() > Some(1.0))
    {
        dropped.push(format!("temperature {temperature} → 1"));
        *temperature = 1.into();
    }
    // It reports the usage of every stream, unasked.
    if provider == Provider::Mistral {
        body.remove("stream_options");
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        if let (Some(most), Some(cap)) = (max_output, body.get_mut(name))
            && cap.as_u64() > Some(most)
        {
            dropped.push(format!("{name} {cap} → {most}"));
            *cap = most.into();
        }
    }
    let messages = body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten();
    let mut names = false;
    for message in messages.filter_map(Value::as_object_mut) {
        let openai = matches!(provider, Provider::Openai | Provider::Azure | Provider::Compatible);
        if let Some(role) = message.get_mut("role").filter(|role| **role == "developer" && !openai) {
            *role = "system".into();
        }
        names |= provider == Provider::Groq && message.remove("name").is_some();
    }
    if names {
        dropped.push("messages[].name".to_owned());
    }
}

/// Kinds of contents that the taker lacks.
fn missing_contents(body: &Map<String, Value>, taker: &Taker<'_>) -> Vec<String> {
    let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    let parts = messages.filter_map(|message| message.get("content")?.as_array()).flatten();
    let mut missing: Vec<String> = parts
        .filter_map(|part| match part.get("type")?.as_str()? {
            "image_url" => Some("images"),
            "input_audio" => Some("audio"),
            "file" => Some("files"),
            _ => None,
        })
        .filter(|kind| taker.lacks.iter().any(|lack| lack == kind))
        .map(str::to_owned)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taker(provider: Provider, model: &str) -> Taker<'_> {
        Taker { provider, model, max_output: None, lacks: &[] }
    }

    /// What is dropped of a chat with these parameters.
    fn dropped(taker: &Taker<'_>, parameters: Value) -> Vec<String> {
        let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        let adapted = adapt(&body, taker, Unsupported::Drop).unwrap();
        assert_eq!(adapted.body["model"], taker.model);
        match adapt(&body, taker, Unsupported::Error) {
            Ok(strict) => assert_eq!((strict.dropped.len(), &strict.body), (0, &adapted.body)),
            Err(unfit) => assert_eq!(unfit.what, adapted.dropped),
        }
        adapted.dropped
    }

    #[test]
    fn each_provider_loses_what_it_does_not_take_and_nothing_else() {
        let everything = json!({
            "max_tokens": 9, "temperature": 0.5, "stop": ["x"], "tools": [], "stream": true, "seed": 7, "logprobs": true,
            "response_format": {"type": "json_object"}, "frequency_penalty": 0.5, "reasoning_effort": "low", "user": "u"
        });
        let rows: [(Provider, &str, &[&str]); 7] = [
            (Provider::Openai, "gpt-4.1", &["reasoning_effort"]),
            (Provider::Openai, "gpt-5.4", &["temperature", "logprobs", "frequency_penalty"]),
            (
                Provider::Anthropic,
                "claude-sonnet-5",
                &["seed", "logprobs", "response_format", "frequency_penalty", "reasoning_effort", "user"],
            ),
            (Provider::Gemini, "gemini-2.5-flash", &["seed", "logprobs", "frequency_penalty", "user"]),
            (Provider::Groq, "llama-3.3-70b-versatile", &["logprobs"]),
            (Provider::Mistral, "mistral-large-latest", &["logprobs", "reasoning_effort", "user"]),
            (Provider::Compatible, "own", &[]),
        ];
        for (provider, model, expected) in rows {
            assert_eq!(dropped(&taker(provider, model), everything.clone()), expected, "{provider} {model}");
        }
    }

    #[test]
    fn parameters_are_renamed_to_what_the_taker_calls_them() {
        let body = json!({"model": "m", "messages": [{"role": "developer", "content": "Be brief."}], "max_completion_tokens": 50, "seed": 3,
            "stream_options": {"include_usage": true}});
        let adapted = |provider, model| adapt(&body, &taker(provider, model), Unsupported::Error).unwrap().body;
        let mistral = adapted(Provider::Mistral, "mistral-small-latest");
        assert_eq!((&mistral["max_tokens"], &mistral["random_seed"]), (&json!(50), &json!(3)));
        assert_eq!(mistral["messages"][0]["role"], "system");
        assert!(mistral.get("stream_options").is_none() && mistral.get("max_completion_tokens").is_none());
        let body = json!({"model": "m", "messages": [], "max_tokens": 50});
        let openai = |model| adapt(&body, &taker(Provider::Openai, model), Unsupported::Error).unwrap().body;
        assert_eq!(openai("gpt-5-mini")["max_completion_tokens"], 50);
        assert_eq!(openai("gpt-4o")["max_tokens"], 50);
        assert_eq!(openai("gpt-5.2-chat-latest")["max_tokens"], 50);
    }

    #[test]
    fn values_that_ask_for_nothing_are_no_loss() {
        let defaults = json!({"n": 1, "logprobs": false, "store": false, "presence_penalty": 0, "logit_bias": {}, "user": null,
            "response_format": {"type": "text"}, "service_tier": "auto", "modalities": ["text"]});
        for provider in Provider::ALL {
            assert!(dropped(&taker(provider, "m"), defaults.clone()).is_empty(), "{provider}");
        }
    }

    #[test]
    fn bounds_are_kept_and_told() {
        let anthropic = taker(Provider::Anthropic, "claude-sonnet-5");
        let lowered = dropped(&anthropic, json!({"n": 3, "temperature": 1.4}));
        assert_eq!(lowered, ["n 3 → 1", "temperature 1.4 → 1"]);
        let small = Taker { max_output: Some(4_096), ..anthropic };
        assert_eq!(dropped(&small, json!({"max_tokens": 64_000})), ["max_tokens 64000 → 4096"]);
        assert!(dropped(&small, json!({"max_tokens": 4_096})).is_empty());
        let named = json!({"messages": [{"role": "user", "content": "Hi", "name": "ann"}]});
        assert_eq!(dropped(&taker(Provider::Groq, "m"), named), ["messages[].name"]);
    }

    #[test]
    fn contents_are_never_dropped() {
        let lacks = ["images".to_owned(), "tools".to_owned()];
        let blind = Taker { lacks: &lacks, ..taker(Provider::Groq, "m") };
        let body =
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]});
        assert_eq!(adapt(&body, &blind, Unsupported::Drop).unwrap_err().what, ["images"]);
        assert_eq!(dropped(&blind, json!({"tools": [{}]})), ["tools"]);
    }

    #[test]
    fn other_requests_go_only_where_the_whole_api_is_spoken() {
        let body = json!({"model": "text-embedding-3-small", "input": "x", "dimensions": 8});
        assert!(adapt(&body, &taker(Provider::Anthropic, "m"), Unsupported::Drop).is_err());
        let azure = adapt(&body, &taker(Provider::Azure, "my-embeddings"), Unsupported::Error).unwrap();
        assert_eq!(azure.body, json!({"model": "my-embeddings", "input": "x", "dimensions": 8}));
        assert!(adapt(&json!([]), &taker(Provider::Compatible, "m"), Unsupported::Drop).is_err());
    }
}
