//! Chat messages.
//!
//! Source: OpenAI cookbook, "How to count tokens with tiktoken" (`num_tokens_from_messages`). What it leaves out is
//! marked as a guess.

use serde_json::Value;

use super::encoding::Encoding;
use super::prompt::Prompt;
use super::{parts, tools};

/// The frame of a message.
const PER_MESSAGE: u64 = 3;
/// A name costs this on top of its text.
const PER_NAME: u64 = 1;
/// Every reply begins with `<|start|>assistant<|message|>`; once per request, whatever `n` is.
const REPLY: u64 = 3;
/// The frame of a tool call, ` to=functions.` and a message's own three: a guess, the cookbook has none.
const PER_CALL: u64 = 8;
/// gpt-oss servers put this system message before every conversation, 61 tokens with its frame (harmony response
/// format, "System message"): model identity, knowledge cutoff, date, reasoning effort and channels. The rest is for the
/// heading that the user's own instructions get.
const HARMONY_SYSTEM: u64 = 66;

/// Collects a chat body.
pub(super) fn collect(prompt: &mut Prompt, body: &Value) {
    frame(prompt);
    // Anthropic keeps the system message outside the conversation.
    if let Some(system) = body.get("system").filter(|system| !system.is_null()) {
        prompt.frame(PER_MESSAGE + 1);
        parts::content(prompt, system);
    }
    match &body["messages"] {
        Value::Array(messages) => messages.iter().for_each(|one| message(prompt, one)),
        other => parts::content(prompt, other),
    }
    tools::collect(prompt, body);
    tools::schema(prompt, &body["response_format"]);
}

/// What every conversation costs before its first message.
pub(super) fn frame(prompt: &mut Prompt) {
    prompt.frame(REPLY);
    if prompt.encoding() == Encoding::O200kHarmony {
        prompt.frame(HARMONY_SYSTEM);
    }
}

/// A message that is nothing but text, the role being one token.
pub(super) fn plain(prompt: &mut Prompt, text: &str) {
    prompt.frame(PER_MESSAGE + 1);
    prompt.text(text);
}

/// One message.
pub(super) fn message(prompt: &mut Prompt, message: &Value) {
    prompt.frame(PER_MESSAGE);
    let Some(fields) = message.as_object() else {
        return parts::content(prompt, message);
    };
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("role", Value::String(role)) => prompt.label(role),
            ("name", Value::String(name)) => {
                prompt.frame(PER_NAME);
                prompt.label(name);
            }
            ("content", content) => parts::content(prompt, content),
            ("tool_calls", Value::Array(calls)) => calls.iter().for_each(|one| call(prompt, one)),
            ("function_call", one) => call(prompt, one),
            // Bookkeeping between client and server that the model does not see.
            ("type" | "id" | "status" | "tool_call_id" | "audio" | "annotations", _) => {}
            (_, Value::Null | Value::Bool(_)) => {}
            // `refusal`, and other providers' fields such as `reasoning_content`.
            (_, Value::String(text)) => prompt.text(text),
            (_, other) => prompt.json(other),
        }
    }
}

/// A call that the model made: its name and arguments, in whichever of the dialects.
pub(super) fn call(prompt: &mut Prompt, call: &Value) {
    if call.is_null() {
        return;
    }
    prompt.frame(PER_CALL);
    let inner = ["function", "custom"].iter().find_map(|kind| call.get(kind)).unwrap_or(call);
    let mut seen = false;
    for key in ["name", "arguments", "input"] {
        match inner.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => prompt.text(text),
            Some(other) => prompt.json(other),
        }
        seen = true;
    }
    if !seen {
        prompt.json(call);
    }
}
