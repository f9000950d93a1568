//! From a request body to what must be counted.

use std::fmt;

use serde_json::Value;

use super::encoding::{Encoding, encoding_for};
use super::images::FLAT;
use super::texts::Texts;
use super::{chat, count, responses};
use crate::Estimate;

/// Up to this much text, count where you are; count more on a blocking thread.
///
/// 64 KiB of prose take about 1.3 ms, of the worst text about 8 ms, of text that came before 10 µs. The first count of a
/// process also loads the vocabulary, unless [`warm_up`](super::warm_up) did.
pub const INLINE_BYTES: usize = 64 * 1024;

/// What a request will be charged for, taken out of its body and not yet counted.
///
/// It owns copies of the texts, so it can be sent to a blocking thread; making it costs about as much as copying them.
/// `Debug` shows sizes, not texts.
///
/// # Limits
///
/// Only what stands in the body is counted. Conversations kept by the provider (`previous_response_id`), files given
/// by id and searches made by hosted tools are unknown here; the books correct themselves when the answer reports its
/// usage.
#[derive(Clone)]
pub struct Prompt {
    model: String,
    encoding: Encoding,
    known_model: bool,
    texts: Texts,
    /// Tokens that are no text: the frames of messages, pictures, token ids.
    fixed: u64,
    /// Characters of the texts that the character rule reads.
    chars: u64,
    /// What the character rule adds for pictures and the like.
    flat: u64,
    rule: CharacterRule,
    operation: &'static str,
    output_cap: Option<u64>,
    choices: u32,
}

/// How a provider turns characters into tokens at admission.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CharacterRule {
    /// `ceil(characters / 4) + 2`, observed for one message: 61 → 18, 120,000 → 30,002. Taken once per request, over
    /// the contents of all messages, tool calls and tool definitions (tools were seen to raise the charge; how is not
    /// published). Requests of many short messages are decided by the exact count anyway.
    Conversation,
    /// `floor(characters / 4)` over all inputs, observed for embeddings: 34 → 8, three inputs of 20 together → 5.
    Embeddings,
}

/// What counting a [`Prompt`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counted {
    /// The charge to expect.
    pub estimate: Estimate,
    /// The vocabulary that was used.
    pub encoding: Encoding,
    /// `false` when the model is not in the table and the vocabulary is a guess.
    pub known_model: bool,
}

impl Prompt {
    /// The prompt in `body` of a request to `path`, e.g. `/v1/chat/completions`.
    ///
    /// A query is ignored, and so is what stands before the last parts of the path. A body without a model, sent to
    /// an Azure path, gets the deployment's name (`/openai/deployments/NAME/chat/completions`) for its model. For an
    /// unknown path the body decides, as in [`detect`](Self::detect).
    pub fn for_path(path: &str, body: &Value) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
        let deployment = path.split_once("/deployments/").and_then(|(_, rest)| rest.split('/').next());
        let model = model_of(body).or(deployment).unwrap_or_default();
        if path.ends_with("/chat/completions") || path.ends_with("/messages") {
            Self::chat_with(model, body)
        } else if path.ends_with("/embeddings") {
            Self::embeddings_with(model, body)
        } else if path.ends_with("/responses") {
            Self::responses_with(model, body)
        } else if path.ends_with("/completions") {
            Self::completions_with(model, body)
        } else {
            Self::detect_with(model, body)
        }
    }

    /// The prompt in a body of unknown destination: `messages` is a chat, `prompt` a completion, `input` embeddings
    /// (when the model's name says so, or the input is token ids or several texts) or a response.
    pub fn detect(body: &Value) -> Self {
        Self::detect_with(model_of(body).unwrap_or_default(), body)
    }

    /// The prompt of a chat completion.
    ///
    /// Counted as in OpenAI's cookbook, "How to count tokens with tiktoken": every message 3 + its texts + 1 for a
    /// name, and 3 once for the reply to begin.
    pub fn chat(body: &Value) -> Self {
        Self::chat_with(model_of(body).unwrap_or_default(), body)
    }

    /// The prompt of a request to the Responses API: a chat, with `instructions` as its system message.
    pub fn responses(body: &Value) -> Self {
        Self::responses_with(model_of(body).unwrap_or_default(), body)
    }

    /// The inputs of an embeddings request: texts, or token ids that count one each. There is no output.
    pub fn embeddings(body: &Value) -> Self {
        Self::embeddings_with(model_of(body).unwrap_or_default(), body)
    }

    /// Counts. Takes about 20 ms per megabyte of new prose; texts that came before are only looked up.
    pub fn count(&self) -> Counted {
        let text: u64 = self.texts.groups().map(|group| count::count_group(self.encoding, group)).sum();
        let by_chars = match self.rule {
            CharacterRule::Conversation => self.chars.div_ceil(4).saturating_add(2),
            CharacterRule::Embeddings => self.chars / 4,
        };
        Counted {
            estimate: Estimate {
                input: text.saturating_add(self.fixed),
                input_by_chars: by_chars.saturating_add(self.flat),
                output_cap: self.output_cap,
                choices: self.choices,
            },
            encoding: self.encoding,
            known_model: self.known_model,
        }
    }

    /// How much text there is to count, in bytes; compare with [`INLINE_BYTES`].
    pub fn text_bytes(&self) -> usize {
        self.texts.bytes()
    }

    /// Whether counting takes so little time that a thread of an async runtime may do it: at most [`INLINE_BYTES`], and
    /// the vocabulary is loaded.
    pub(crate) fn counts_quickly(&self) -> bool {
        self.text_bytes() <= INLINE_BYTES && count::is_loaded(self.encoding)
    }

    /// The model as the request names it; empty when it names none.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What is asked for, by OpenTelemetry's name for it: `chat`, `embeddings` or `text_completion`.
    #[cfg(feature = "tracing")]
    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    /// The vocabulary the texts will be counted with.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn detect_with(model: &str, body: &Value) -> Self {
        let embeds = || {
            let several =
                body["input"].as_array().and_then(|inputs| inputs.first()).is_some_and(|one| !one.is_object());
            several || model.contains("embed") || !body["encoding_format"].is_null()
        };
        if body.get("messages").is_some() {
            Self::chat_with(model, body)
        } else if body.get("input").is_some() {
            if embeds() { Self::embeddings_with(model, body) } else { Self::responses_with(model, body) }
        } else if body.get("prompt").is_some_and(|prompt| prompt.is_string() || prompt.is_array()) {
            Self::completions_with(model, body)
        } else {
            let mut prompt = Self::new(model);
            prompt.json(body);
            prompt
        }
    }

    fn chat_with(model: &str, body: &Value) -> Self {
        let mut prompt = Self::new(model);
        prompt.choices = choices(&body["n"]);
        prompt.output_cap = cap(&body["max_completion_tokens"])
            .or_else(|| cap(&body["max_tokens"]))
            .map(|cap| cap.saturating_mul(u64::from(prompt.choices)));
        chat::collect(&mut prompt, body);
        prompt
    }

    fn responses_with(model: &str, body: &Value) -> Self {
        let mut prompt = Self::new(model);
        prompt.output_cap = cap(&body["max_output_tokens"]);
        responses::collect(&mut prompt, body);
        prompt
    }

    fn embeddings_with(model: &str, body: &Value) -> Self {
        let mut prompt = Self::new(model);
        prompt.rule = CharacterRule::Embeddings;
        prompt.operation = "embeddings";
        prompt.output_cap = Some(0);
        prompt.inputs(&body["input"]);
        prompt
    }

    /// The legacy completions API: bare texts, 16 tokens of output unless told otherwise, `best_of` tries per prompt.
    fn completions_with(model: &str, body: &Value) -> Self {
        let mut prompt = Self::new(model);
        prompt.operation = "text_completion";
        prompt.choices = choices(&body["n"]).max(choices(&body["best_of"]));
        let prompts = match &body["prompt"] {
            Value::Array(prompts) if prompts.iter().all(|one| !one.is_number()) => prompts.len().max(1) as u64,
            _ => 1,
        };
        let cap = cap(&body["max_tokens"]).unwrap_or(16);
        prompt.output_cap = Some(cap.saturating_mul(u64::from(prompt.choices)).saturating_mul(prompts));
        prompt.inputs(&body["prompt"]);
        prompt.inputs(&body["suffix"]);
        prompt
    }

    fn new(model: &str) -> Self {
        let (encoding, known_model) = encoding_for(model);
        Self {
            model: model.to_owned(),
            encoding,
            known_model,
            texts: Texts::default(),
            fixed: 0,
            chars: 0,
            flat: 0,
            rule: CharacterRule::Conversation,
            operation: "chat",
            output_cap: None,
            choices: 1,
        }
    }

    /// A text, texts, token ids, or several of those.
    fn inputs(&mut self, input: &Value) {
        match input {
            Value::Null => {}
            Value::String(text) => self.text(text),
            Value::Number(_) => self.both(1, 1),
            Value::Array(inputs) => inputs.iter().for_each(|input| self.inputs(input)),
            other => self.json(other),
        }
    }

    /// Adds a text that both readings of the input count.
    pub(super) fn text(&mut self, text: &str) {
        self.chars = self.chars.saturating_add(text.chars().count() as u64);
        self.texts.push(text);
    }

    /// Adds a text that is not content, a role or a name: the character rule does not see it.
    pub(super) fn label(&mut self, text: &str) {
        self.texts.push(text);
    }

    /// Adds tokens that are no text and that the character rule does not see.
    pub(super) fn frame(&mut self, tokens: u64) {
        self.fixed = self.fixed.saturating_add(tokens);
    }

    /// Adds tokens that are no text: `exact` to the one reading, `by_chars` to the other.
    pub(super) fn both(&mut self, exact: u64, by_chars: u64) {
        self.fixed = self.fixed.saturating_add(exact);
        self.flat = self.flat.saturating_add(by_chars);
    }

    /// Adds a picture of `tokens`; the character rule takes [`FLAT`] for any.
    pub(super) fn picture(&mut self, tokens: u64) {
        self.both(tokens, FLAT);
    }

    /// Counts what `collect` adds as one group.
    pub(super) fn together(&mut self, collect: impl FnOnce(&mut Self)) {
        self.texts.open_group();
        collect(self);
        self.texts.close_group();
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("model", &self.model)
            .field("encoding", &self.encoding)
            .field("text_bytes", &self.text_bytes())
            .field("output_cap", &self.output_cap)
            .field("choices", &self.choices)
            .finish_non_exhaustive()
    }
}

fn model_of(body: &Value) -> Option<&str> {
    body.get("model").and_then(Value::as_str).filter(|model| !model.is_empty())
}

/// A cap on tokens; whole numbers written as floats are accepted, anything else is no cap.
fn cap(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|cap| *cap >= 0.0).map(|cap| cap as u64))
}

/// How many answers are asked for: at least 1.
fn choices(value: &Value) -> u32 {
    cap(value).map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)).max(1)
}
