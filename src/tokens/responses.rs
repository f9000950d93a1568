//! The Responses API: a list of items instead of messages.
//!
//! Short texts were seen to cost what they cost as chat messages: content + 7 for one user message.

use serde_json::Value;

use super::prompt::Prompt;
use super::{chat, parts, tools};

/// Collects a Responses body.
pub(super) fn collect(prompt: &mut Prompt, body: &Value) {
    chat::frame(prompt);
    match &body["instructions"] {
        Value::Null => {}
        Value::String(text) => chat::plain(prompt, text),
        other => parts::content(prompt, other),
    }
    match &body["input"] {
        Value::Null => {}
        Value::String(text) => chat::plain(prompt, text),
        Value::Array(items) => items.iter().for_each(|one| item(prompt, one)),
        other => item(prompt, other),
    }
    // The values that fill a stored prompt's placeholders; its own text is not here.
    if let Some(Value::Object(variables)) = body["prompt"].get("variables") {
        variables.values().for_each(|value| parts::content(prompt, value));
    }
    tools::collect(prompt, body);
    tools::schema(prompt, &body["text"]["format"]);
}

fn item(prompt: &mut Prompt, item: &Value) {
    let kind = item["type"].as_str().unwrap_or_default();
    match kind {
        "function_call" | "custom_tool_call" => chat::call(prompt, item),
        // `function_call_output`, `computer_call_output` and their like: the tool's message.
        _ if kind.ends_with("_call_output") => {
            prompt.frame(4);
            parts::content(prompt, &item["output"]);
        }
        "reasoning" => {
            parts::content(prompt, &item["summary"]);
            parts::content(prompt, &item["content"]);
            // About a quarter of it: base64 of what were tokens of some four characters.
            let sealed = item["encrypted_content"].as_str().map_or(0, str::len) as u64;
            prompt.both(sealed / 4, sealed / 4);
        }
        "image_generation_call" => parts::unmeasured_picture(prompt),
        "item_reference" => {}
        _ if item.get("content").is_some() => chat::message(prompt, item),
        _ => parts::part(prompt, item),
    }
}
