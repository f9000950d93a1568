//! What a message is made of: texts, pictures, sound, files.

use serde_json::Value;

use super::images::{self, Detail, FLAT};
use super::prompt::Prompt;

/// A page of a file: about 500 tokens of text and a picture of it. OpenAI reads PDFs both ways; the number of pages is
/// only guessed from the size.
const PAGE_TOKENS: u64 = 500 + FLAT;
const PAGE_BYTES: u64 = 32 * 1024;

/// A message's content: a text, or parts.
pub(super) fn content(prompt: &mut Prompt, content: &Value) {
    match content {
        Value::Null => {}
        Value::String(text) => prompt.text(text),
        Value::Array(parts) => parts.iter().for_each(|one| part(prompt, one)),
        other => part(prompt, other),
    }
}

/// One part of a content, in OpenAI's dialects (chat and Responses) or Anthropic's.
pub(super) fn part(prompt: &mut Prompt, part: &Value) {
    if let Value::String(text) = part {
        return prompt.text(text);
    }
    match part["type"].as_str().unwrap_or_default() {
        "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" => words(prompt, part, "text"),
        "refusal" => words(prompt, part, "refusal"),
        "thinking" => words(prompt, part, "thinking"),
        // `{"url": …, "detail": …}` in a chat, the URL itself in Responses.
        "image_url" | "input_image" | "computer_screenshot" => {
            let image = &part["image_url"];
            let url = image.as_str().or_else(|| image["url"].as_str());
            let detail = image["detail"].as_str().or_else(|| part["detail"].as_str());
            picture(prompt, detail, url.and_then(images::data_url_size));
        }
        "image" => {
            picture(prompt, None, part["source"]["data"].as_str().and_then(images::base64_size));
        }
        "input_audio" => {
            let audio = part.get("input_audio").unwrap_or(part);
            let compressed = audio["format"].as_str() != Some("wav");
            prompt.frame(audio_tokens(base64_bytes(&audio["data"]), compressed));
        }
        "file" | "input_file" | "document" => {
            let file = part.get("file").unwrap_or(part);
            let source = &file["source"];
            if source["type"] == "text" {
                words(prompt, source, "data");
            } else {
                let bytes = base64_bytes(&file["file_data"]).max(base64_bytes(&source["data"]));
                let tokens = bytes.div_ceil(PAGE_BYTES).max(1).saturating_mul(PAGE_TOKENS);
                prompt.both(tokens, tokens);
            }
        }
        "tool_use" => super::chat::call(prompt, part),
        "tool_result" => {
            prompt.frame(4);
            content(prompt, &part["content"]);
        }
        _ => prompt.json(part),
    }
}

/// A picture of which nothing is known.
pub(super) fn unmeasured_picture(prompt: &mut Prompt) {
    picture(prompt, None, None);
}

fn picture(prompt: &mut Prompt, detail: Option<&str>, size: Option<(u64, u64)>) {
    let tokens = images::image_tokens(prompt.model(), Detail::named(detail), size);
    prompt.picture(tokens);
}

fn words(prompt: &mut Prompt, part: &Value, key: &str) {
    match &part[key] {
        Value::String(text) => prompt.text(text),
        _ => prompt.json(part),
    }
}

fn base64_bytes(data: &Value) -> u64 {
    data.as_str().map_or(0, str::len) as u64 / 4 * 3
}

/// Sound is a token per 100 ms (OpenAI, "Audio": 10 per second of input). Guessed from the size at rates that are low
/// for each kind, 32 kB/s for WAV (16 kHz, 16 bits, mono) and 4 kB/s for MP3, as a low rate means a long recording.
/// The character rule was seen to ignore it.
fn audio_tokens(bytes: u64, compressed: bool) -> u64 {
    bytes.div_ceil(if compressed { 400 } else { 3_200 })
}

impl Prompt {
    /// Adds a value of unknown shape by its JSON text. Pictures and files embedded in it count as one picture each.
    pub(super) fn json(&mut self, value: &Value) {
        if !has_media(value) {
            return self.text(&value.to_string());
        }
        let mut bare = value.clone();
        strip_media(&mut bare, self);
        self.text(&bare.to_string());
    }
}

fn has_media(value: &Value) -> bool {
    match value {
        Value::String(text) => is_media(text),
        Value::Array(values) => values.iter().any(has_media),
        Value::Object(fields) => fields.values().any(has_media),
        _ => false,
    }
}

fn strip_media(value: &mut Value, prompt: &mut Prompt) {
    match value {
        Value::String(text) if is_media(text) => {
            text.clear();
            unmeasured_picture(prompt);
        }
        Value::Array(values) => values.iter_mut().for_each(|one| strip_media(one, prompt)),
        Value::Object(fields) => fields.values_mut().for_each(|one| strip_media(one, prompt)),
        _ => {}
    }
}

/// A base64 data URL, or a long string that cannot be anything but base64.
fn is_media(text: &str) -> bool {
    const LONG: usize = 1024;
    if text.starts_with("data:") {
        return text
            .bytes()
            .take(256)
            .position(|byte| byte == b',')
            .is_some_and(|comma| text[..comma].ends_with(";base64"));
    }
    let Some(head) = text.as_bytes().get(..LONG) else { return false };
    let has = |class: fn(&u8) -> bool| head.iter().any(class);
    head.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'))
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
}
