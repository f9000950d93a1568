//! Tool definitions and answer schemas.
//!
//! Source: OpenAI cookbook, "How to count tokens with tiktoken" (`num_tokens_for_tools`). It covers flat functions; nested
//! schemas are counted by their JSON text, which is longer than what the model is shown.

use serde_json::{Map, Value};

use super::encoding::Encoding;
use super::prompt::Prompt;

const FUNCTION_END: u64 = 12;
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const ENUM_ITEM: u64 = 3;
/// What an enumeration saves: the cookbook's `enum_init` is −3.
const ENUM_DISCOUNT: u64 = 3;

/// Collects the `tools` (or the older `functions`) of a body.
pub(super) fn collect(prompt: &mut Prompt, body: &Value) {
    let lists = [&body["tools"], &body["functions"]];
    let tools: Vec<&Value> = lists.into_iter().filter_map(Value::as_array).flatten().collect();
    if tools.is_empty() {
        return;
    }
    // The same tools come with every request of an application, so they are remembered together.
    prompt.together(|prompt| tools.into_iter().for_each(|one| tool(prompt, one)));
    prompt.frame(FUNCTION_END);
}

/// A schema that the answer must follow: by its JSON text; plain text and JSON modes cost nothing.
pub(super) fn schema(prompt: &mut Prompt, format: &Value) {
    match format["type"].as_str() {
        None if format.is_null() => {}
        Some("text" | "json_object") => {}
        _ => prompt.json(format.get("json_schema").unwrap_or(format)),
    }
}

fn tool(prompt: &mut Prompt, tool: &Value) {
    // Chat nests the function, Responses, Anthropic and the older `functions` do not.
    let function = tool.get("function").unwrap_or(tool);
    let parameters = ["parameters", "input_schema"].iter().find_map(|key| function.get(key));
    let plain = matches!(tool["type"].as_str(), None | Some("function")) || parameters.is_some();
    let (Some(name), true) = (function["name"].as_str(), plain) else {
        // A hosted or custom tool.
        prompt.frame(function_start(prompt.encoding()));
        return prompt.json(tool);
    };
    prompt.frame(function_start(prompt.encoding()));
    prompt.text(&format!("{name}:{}", description(function)));
    match parameters {
        Some(Value::Object(schema)) => object(prompt, schema),
        None | Some(Value::Null) => {}
        Some(other) => prompt.json(other),
    }
}

/// The parameters of a function.
fn object(prompt: &mut Prompt, schema: &Map<String, Value>) {
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) if !properties.is_empty() => {
                prompt.frame(PROPERTIES);
                properties.iter().for_each(|(name, one)| property(prompt, name, one));
            }
            // Shown by punctuation, if at all.
            ("type" | "properties" | "required" | "additionalProperties" | "$schema", _) => {}
            // `$defs`, `anyOf` and the like.
            (_, other) => prompt.json(other),
        }
    }
}

fn property(prompt: &mut Prompt, name: &str, schema: &Value) {
    let mut frame = PROPERTY;
    let mut kind = "";
    for (key, value) in schema.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("type", Value::String(named)) => kind = named,
            ("description", Value::String(_)) => {}
            ("enum", Value::Array(items)) => {
                frame = (frame + ENUM_ITEM * items.len() as u64).saturating_sub(ENUM_DISCOUNT);
                for item in items {
                    match item {
                        Value::String(text) => prompt.text(text),
                        other => prompt.json(other),
                    }
                }
            }
            // Nested: `properties`, `items`, `anyOf`, `type: [...]`. With its key, as safety margin.
            (key, other) => {
                prompt.text(key);
                prompt.json(other);
            }
        }
    }
    prompt.frame(frame);
    prompt.text(&format!("{name}:{kind}:{}", description(schema)));
}

/// A description without one full stop at its end, as the cookbook has it.
fn description(of: &Value) -> &str {
    let text = of["description"].as_str().unwrap_or_default();
    text.strip_suffix('.').unwrap_or(text)
}

/// The cookbook's `func_init`: 7 for gpt-4o and gpt-4o-mini, 10 for gpt-4 and gpt-3.5-turbo.
fn function_start(encoding: Encoding) -> u64 {
    match encoding {
        Encoding::O200kBase | Encoding::O200kHarmony => 7,
        _ => 10,
    }
}
