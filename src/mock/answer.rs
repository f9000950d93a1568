//! Bodies of good answers, as OpenAI writes them. The text is plain words, one token each, cut from a constant.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Ask, Endpoint};
use super::luck::scatter;

/// Four letters and a space each, so that a slice of n words is found by multiplication.
const WORDS: &str = "this that with from have they know want been good much some time very when come \
                     here just like long make many more only over such take than them well were what ";
const WORD: usize = 5;

/// Streams send at most this many pieces of text per choice, so that long answers stay cheap.
const PIECES: u64 = 32;

/// Everything that an answer is made of.
pub(crate) struct Answer<'a> {
    pub(crate) ask: &'a Ask,
    /// Output tokens of each choice; empty for embeddings.
    pub(crate) lengths: &'a [u64],
    /// Random bits for identifiers and content.
    pub(crate) bits: u64,
    /// Seconds since 1970.
    pub(crate) created: u64,
}

#[derive(Serialize)]
struct Chat<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<ChatUsage>>,
    service_tier: &'static str,
    system_fingerprint: &'static str,
}

#[derive(Default, Serialize)]
struct Choice {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
    refusal: Option<()>,
    annotations: [(); 0],
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
struct ChatUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Clone, Copy, Default, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl Answer<'_> {
    pub(crate) fn output(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// The body of an answer that is not streamed.
    pub(crate) fn whole(&self) -> Bytes {
        match self.ask.endpoint {
            Endpoint::Chat => self.chat(),
            Endpoint::Responses => bytes(&self.response("completed")),
            Endpoint::Embeddings => self.embeddings().into(),
        }
    }

    /// The events of an answer that is streamed.
    pub(crate) fn events(&self) -> Vec<Bytes> {
        match self.ask.endpoint {
            Endpoint::Chat => self.chat_events(),
            Endpoint::Responses | Endpoint::Embeddings => self.response_events(),
        }
    }

    fn chat(&self) -> Bytes {
        let choice = |(index, length): (usize, &u64)| {
            let content = words(self.start(index), 0, *length).trim_end().into();
            let message = Message { role: "assistant", content, refusal: None, annotations: [] };
            Choice {
                index,
                message: Some(message),
                finish_reason: Some(self.finish_reason(*length)),
                ..Choice::default()
            }
        };
        let choices: Vec<_> = self.lengths.iter().enumerate().map(choice).collect();
        let usage = Some(Some(self.chat_usage()));
        bytes(&self.envelope(&self.id("chatcmpl-"), "chat.completion", &choices, usage))
    }

    fn chat_events(&self) -> Vec<Bytes> {
        let id = self.id("chatcmpl-");
        // `usage: null` on all chunks but the last, where usage was asked for; nothing where it was not.
        let no_usage = self.ask.include_usage.then_some(None);
        let chunk = |index, delta, finish_reason| {
            let choice = Choice { index, delta: Some(delta), finish_reason, ..Choice::default() };
            data(&self.envelope(&id, "chat.completion.chunk", &[choice], no_usage))
        };
        let mut events = Vec::new();
        for index in 0..self.lengths.len() {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            events.push(chunk(index, delta, None));
        }
        for (index, length) in self.lengths.iter().enumerate() {
            for text in self.slices(index, *length) {
                events.push(chunk(index, Delta { role: None, content: Some(text) }, None));
            }
        }
        for (index, length) in self.lengths.iter().enumerate() {
            events.push(chunk(index, Delta::default(), Some(self.finish_reason(*length))));
        }
        if self.ask.include_usage {
            events.push(data(&self.envelope(&id, "chat.completion.chunk", &[], Some(Some(self.chat_usage())))));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    fn envelope<'b>(
        &'b self,
        id: &'b str,
        object: &'static str,
        choices: &'b [Choice],
        usage: Option<Option<ChatUsage>>,
    ) -> Chat<'b> {
        Chat {
            id,
            object,
            created: self.created,
            model: &self.ask.model,
            choices,
            usage,
            service_tier: "default",
            system_fingerprint: "fp_mock",
        }
    }

    fn chat_usage(&self) -> ChatUsage {
        ChatUsage {
            prompt_tokens: self.ask.input,
            completion_tokens: self.output(),
            total_tokens: self.ask.input.saturating_add(self.output()),
            prompt_tokens_details: PromptDetails::default(),
            completion_tokens_details: CompletionDetails::default(),
        }
    }

    /// The object of the Responses API; without output and usage while it is `in_progress`.
    fn response(&self, status: &str) -> serde_json::Value {
        let done = status != "in_progress";
        let capped = done && self.ask.cap == Some(self.output());
        let output = if done { vec![self.response_message()] } else { Vec::new() };
        let usage = done.then(|| {
            json!({
                "input_tokens": self.ask.input,
                "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": self.output(),
                "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": self.ask.input.saturating_add(self.output()),
            })
        });
        json!({
            "id": self.id("resp_"),
            "object": "response",
            "created_at": self.created,
            "status": if capped { "incomplete" } else { status },
            "error": null,
            "incomplete_details": capped.then(|| json!({ "reason": "max_output_tokens" })),
            "instructions": null,
            "max_output_tokens": self.ask.cap,
            "model": self.ask.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "temperature": 1.0,
            "text": { "format": { "type": "text" } },
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": null,
            "metadata": {},
        })
    }

    fn response_message(&self) -> serde_json::Value {
        let text = words(self.start(0), 0, self.output());
        json!({
            "id": self.id("msg_"),
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{ "type": "output_text", "annotations": [], "text": text.trim_end() }],
        })
    }

    fn response_events(&self) -> Vec<Bytes> {
        let mut events = Vec::new();
        let mut push = |name: &str, rest: serde_json::Value| {
            let mut event = json!({ "type": name, "sequence_number": events.len() });
            if let (Some(event), serde_json::Value::Object(rest)) = (event.as_object_mut(), rest) {
                event.extend(rest);
            }
            events.push(Bytes::from(format!("event: {name}\ndata: {event}\n\n")));
        };
        let item = self.id("msg_");
        let place = |rest: serde_json::Value| {
            let mut place = json!({ "item_id": item, "output_index": 0, "content_index": 0 });
            if let (Some(place), serde_json::Value::Object(rest)) = (place.as_object_mut(), rest) {
                place.extend(rest);
            }
            place
        };
        let started = json!({
            "id": item, "type": "message", "status": "in_progress", "role": "assistant", "content": []
        });
        let part = |text: &str| json!({ "part": { "type": "output_text", "annotations": [], "text": text } });
        let text = words(self.start(0), 0, self.output());
        let text = text.trim_end();

        push("response.created", json!({ "response": self.response("in_progress") }));
        push("response.in_progress", json!({ "response": self.response("in_progress") }));
        push("response.output_item.added", json!({ "output_index": 0, "item": started }));
        push("response.content_part.added", place(part("")));
        for delta in self.slices(0, self.output()) {
            push("response.output_text.delta", place(json!({ "delta": delta })));
        }
        push("response.output_text.done", place(json!({ "text": text })));
        push("response.content_part.done", place(part(text)));
        push("response.output_item.done", json!({ "output_index": 0, "item": self.response_message() }));
        let end = self.response("completed");
        let name = if end["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
        push(name, json!({ "response": end }));
        events
    }

    /// Vectors of length one: every number has the same size, and chance gives the signs.
    fn embeddings(&self) -> String {
        let Ask { vectors, dimensions, base64, input, ref model, .. } = *self.ask;
        let size = 1.0 / (dimensions as f32).sqrt();
        let mut body = String::from(r#"{"object":"list","data":["#);
        for index in 0..vectors {
            let comma = if index == 0 { "" } else { "," };
            body.push_str(&format!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#));
            let seed = scatter(self.bits ^ index);
            let signs = (0..dimensions).map(|i| scatter(seed ^ (i / 64)) >> (i % 64) & 1 == 1);
            if base64 {
                let floats = signs.flat_map(|minus| if minus { -size } else { size }.to_le_bytes());
                body.push_str(&format!("\"{}\"", to_base64(&floats.collect::<Vec<_>>())));
            } else {
                let (plus, minus) = (format!("{size:.8},"), format!("-{size:.8},"));
                body.push('[');
                body.extend(signs.map(|negative| if negative { minus.as_str() } else { plus.as_str() }));
                body.pop(); // the last comma
                body.push(']');
            }
            body.push('}');
        }
        let model = serde_json::Value::from(model.as_str());
        body.push_str(&format!(r#"],"model":{model},"usage":{{"prompt_tokens":{input},"total_tokens":{input}}}}}"#));
        body
    }

    fn finish_reason(&self, length: u64) -> &'static str {
        if self.ask.cap == Some(length) { "length" } else { "stop" }
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:08x}", self.bits, scatter(self.bits) >> 32)
    }

    /// The word that a choice starts with.
    fn start(&self, index: usize) -> usize {
        (self.bits % 1_024) as usize + index
    }

    /// The text of a choice in a few slices; together they are the whole text.
    fn slices(&self, index: usize, length: u64) -> impl Iterator<Item = String> {
        let (start, pieces) = (self.start(index), length.min(PIECES));
        (0..pieces).map(move |i| {
            let slice = words(start, length * i / pieces, length * (i + 1) / pieces);
            if i + 1 == pieces { slice.trim_end().into() } else { slice }
        })
    }
}

/// The list of models; the mock answers for any name, these are for programs that ask first.
pub(crate) fn models() -> Bytes {
    let names = ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "gpt-5-nano"];
    let names = names.into_iter().chain(["text-embedding-3-small", "text-embedding-3-large"]);
    let data: Vec<_> = names.map(described).collect();
    bytes(&json!({ "object": "list", "data": data }))
}

/// One model, of any name. The SDKs write the slash of `openai/gpt-oss-20b` as `%2F`.
pub(crate) fn model(name: &str) -> Bytes {
    bytes(&described(&name.replace("%2F", "/")))
}

fn described(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system" })
}

/// JSON of our own types, which cannot fail to serialise.
pub(crate) fn bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn data(value: &impl Serialize) -> Bytes {
    let mut line = b"data: ".to_vec();
    line.extend(serde_json::to_vec(value).unwrap_or_default());
    line.extend(b"\n\n");
    line.into()
}

/// Words `from..to` of the endless text that starts at word `start`.
fn words(start: usize, from: u64, to: u64) -> String {
    let mut left = usize::try_from(to - from).unwrap_or(usize::MAX).saturating_mul(WORD);
    let mut at = (start + usize::try_from(from).unwrap_or(0)) * WORD % WORDS.len();
    let mut text = String::with_capacity(left);
    while left > 0 {
        let slice = &WORDS[at..WORDS.len().min(at + left)];
        text.push_str(slice);
        left -= slice.len();
        at = 0;
    }
    text
}

/// Standard base64 with padding; the official SDKs ask for embeddings in it.
fn to_base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= group.len() { DIGITS[value].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_word_for_each_token_and_slices_join_to_it() {
        let body = br#"{"model":"m","messages":["hi"],"n":2}"#;
        let ask = Ask::read(Endpoint::Chat, body, None).unwrap();
        for length in [1, 5, 31, 32, 33, 1_000] {
            let answer = Answer { ask: &ask, lengths: &[length, 3], bits: 77, created: 0 };
            let whole: serde_json::Value = serde_json::from_slice(&answer.whole()).unwrap();
            let content = whole["choices"][0]["message"]["content"].as_str().unwrap();
            assert_eq!(content.split(' ').count() as u64, length);
            assert!(content.split(' ').all(|word| word.len() == 4), "{content}");
            assert_eq!(answer.slices(0, length).collect::<String>(), content);
            assert_eq!(whole["usage"]["completion_tokens"], length + 3);
        }
    }

    #[test]
    fn base64_is_the_standard_one() {
        for (data, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(to_base64(data.as_bytes()), text);
        }
        assert_eq!(to_base64(&[0xfb, 0xff]), "+/8=");
    }
}
