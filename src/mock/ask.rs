//! What a request asks for: only what matters here is read from its body, and texts are counted, not kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::refuse::{self, Problem};
use crate::cost::Estimate;

/// An image is charged this much, whatever its size.
const IMAGE_TOKENS: u64 = 765;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Responses,
    Embeddings,
}

/// A request as far as it matters to the mock.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    /// Real input tokens, for `usage`.
    pub(crate) input: u64,
    /// Input tokens as the characters tell, which is what the endpoint charges.
    by_chars: u64,
    pub(crate) cap: Option<u64>,
    pub(crate) choices: u64,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Embeddings only: how many, how long, and whether as base64.
    pub(crate) vectors: u64,
    pub(crate) dimensions: u64,
    pub(crate) base64: bool,
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Weight>,
    input: Option<Weight>,
    instructions: Option<Weight>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    dimensions: Option<u64>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Ask {
    /// Reads a body. A `deployment` is the model, whatever the body says.
    pub(crate) fn read(endpoint: Endpoint, body: &[u8], deployment: Option<&str>) -> Result<Self, Problem> {
        let body: Body = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => refuse::wrong_type(&error),
            Category::Syntax | Category::Eof | Category::Io => refuse::not_json(),
        })?;
        let model = deployment.map(str::to_owned).or(body.model).filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| refuse::missing("model"))?;
        let (weight, name, cap) = match endpoint {
            Endpoint::Chat => (body.messages, "messages", body.max_completion_tokens.or(body.max_tokens)),
            Endpoint::Responses => (body.input, "input", body.max_output_tokens),
            Endpoint::Embeddings => (body.input, "input", None),
        };
        let mut weight = weight.ok_or_else(|| refuse::missing(name))?;
        if weight.items == 0 {
            return Err(refuse::out_of_range(name, "at least one item"));
        }
        if endpoint == Endpoint::Chat && weight.bare {
            return Err(refuse::out_of_range(name, "an array of messages"));
        }
        if endpoint == Endpoint::Embeddings && weight.chars + weight.tokens == 0 {
            return Err(refuse::out_of_range(name, "a text that is not empty"));
        }
        if cap == Some(0) {
            return Err(refuse::out_of_range("max_tokens", "an integer of at least 1"));
        }
        let choices = if endpoint == Endpoint::Chat { body.n.unwrap_or(1) } else { 1 };
        if !(1..=128).contains(&choices) {
            return Err(refuse::out_of_range("n", "an integer from 1 to 128"));
        }
        let vectors = weight.items;
        let dimensions = body.dimensions.unwrap_or(if model.contains("3-large") { 3_072 } else { 1_536 });
        if endpoint == Endpoint::Embeddings && (vectors > 2_048 || !(1..=3_072).contains(&dimensions)) {
            return Err(refuse::out_of_range("input", "at most 2048 inputs and 3072 dimensions"));
        }
        weight.add(body.instructions.unwrap_or_default());
        let (input, by_chars) = match endpoint {
            // Observed: 61 characters in one message are 13 or 14 real tokens and are charged as 18.
            Endpoint::Chat => (weight.real(), weight.chars.div_ceil(4) + 2 + weight.images * IMAGE_TOKENS),
            // Observed: the Responses endpoint charges the exact count.
            Endpoint::Responses => (weight.real(), weight.real()),
            Endpoint::Embeddings => ((weight.chars / 4 + weight.tokens).max(1), weight.chars / 4 + weight.tokens),
        };
        Ok(Self {
            endpoint,
            model,
            input,
            by_chars,
            cap,
            choices,
            stream: body.stream.unwrap_or(false) && endpoint != Endpoint::Embeddings,
            include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            vectors,
            dimensions,
            base64: body.encoding_format.as_deref() == Some("base64"),
        })
    }

    /// What the limits are asked for. Embeddings have no output.
    pub(crate) fn estimate(&self) -> Estimate {
        let cap = if self.endpoint == Endpoint::Embeddings { Some(0) } else { self.cap };
        Estimate {
            input: self.input,
            input_by_chars: self.by_chars,
            output_cap: cap.map(|cap| cap.saturating_mul(self.choices)),
            choices: u32::try_from(self.choices).unwrap_or(u32::MAX),
        }
    }
}

/// How much there is in messages or inputs: counted while parsing, at any depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    chars: u64,
    images: u64,
    /// Bare numbers: embeddings may be asked for in tokens.
    tokens: u64,
    /// Messages, texts or token arrays at the top.
    items: u64,
    /// It is a text, and no array.
    bare: bool,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.chars += other.chars;
        self.images += other.images;
        self.tokens += other.tokens;
    }

    /// A plausible real count: 4 tokens of wrapping per message and 3 for the reply's start.
    fn real(&self) -> u64 {
        self.chars.div_ceil(4) + 4 * self.items + 3 + self.images * IMAGE_TOKENS
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Weigher)
    }
}

struct Weigher;

impl<'de> Visitor<'de> for Weigher {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or an array of texts, messages or tokens")
    }

    fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
        Ok(Weight { chars: text.chars().count() as u64, items: 1, bare: true, ..Weight::default() })
    }

    fn visit_u64<E>(self, _token: u64) -> Result<Weight, E> {
        Ok(Weight { tokens: 1, ..Weight::default() })
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Weight, A::Error> {
        let (mut sum, mut bare) = (Weight::default(), false);
        while let Some(next) = seq.next_element::<Weight>()? {
            sum.add(next);
            sum.items += next.items;
            bare |= next.items == 0 && next.tokens > 0;
        }
        if bare {
            sum.items = 1; // an array of tokens is one text
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weight, A::Error> {
        let mut sum = Weight { items: 1, ..Weight::default() };
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Content | Key::Text | Key::Arguments | Key::Output => sum.add(map.next_value()?),
                Key::ImageUrl => {
                    map.next_value::<IgnoredAny>()?; // may be the whole image
                    sum.images += 1;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(sum)
    }
}

/// The fields of messages and parts that weigh something.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Content,
    Text,
    Arguments,
    Output,
    ImageUrl,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::super::book::Book;
    use super::super::config::{ChargeRule, MockConfig};
    use super::*;

    fn charged(ask: &Ask, config: &MockConfig) -> u64 {
        Book::new(config).charge(&ask.estimate())
    }

    fn chat(body: serde_json::Value) -> Ask {
        Ask::read(Endpoint::Chat, body.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn charges_are_those_that_were_observed() {
        let predicting_nothing = MockConfig { predicted_output: 0, ..MockConfig::default() };
        for (chars, charge) in [(61, 18), (19, 7), (120_000, 30_002), (1_920_000, 480_002)] {
            let text = "ü".repeat(chars); // characters, not bytes
            let ask = chat(serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}));
            assert_eq!(charged(&ask, &predicting_nothing), charge);
        }
        for (inputs, charge) in
            [(vec!["x".repeat(13)], 3), (vec!["x".repeat(34)], 8), (vec!["x".repeat(7), "x".repeat(13)], 5)]
        {
            let body = serde_json::json!({"model": "text-embedding-3-small", "input": inputs}).to_string();
            let ask = Ask::read(Endpoint::Embeddings, body.as_bytes(), None).unwrap();
            assert_eq!((charged(&ask, &MockConfig::default()), ask.vectors), (charge, inputs.len() as u64));
        }
    }

    #[test]
    fn the_cap_counts_once_for_each_choice_and_a_prediction_where_there_is_none() {
        let body = |extra: &str| {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"12345678"}}]{extra}}}"#);
            Ask::read(Endpoint::Chat, body.as_bytes(), None).unwrap()
        };
        let sum = MockConfig { predicted_output: 50, ..MockConfig::default() };
        let max = MockConfig { charge: ChargeRule::MaxOfInputAndCap, ..sum.clone() };
        for (extra, by_sum, by_max) in [
            ("", 54, 50),
            (r#","max_tokens":10"#, 14, 10),
            (r#","max_tokens":10,"n":3"#, 34, 30),
            (r#","max_tokens":10,"max_completion_tokens":1"#, 5, 4),
            (r#","max_tokens":18446744073709551615,"n":3"#, u64::MAX, u64::MAX),
        ] {
            assert_eq!((charged(&body(extra), &sum), charged(&body(extra), &max)), (by_sum, by_max), "{extra}");
        }
    }

    #[test]
    fn parts_images_and_token_arrays_are_weighed() {
        let weigh = |json: &str| serde_json::from_str::<Weight>(json).unwrap();
        let part = r#"[{"role":"user","content":[{"type":"text","text":"abc"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},{"role":"assistant","content":null}]"#;
        assert_eq!(weigh(part), Weight { chars: 3, images: 1, tokens: 0, items: 2, bare: false });
        assert_eq!(weigh(r#""abcd""#), Weight { chars: 4, images: 0, tokens: 0, items: 1, bare: true });
        assert_eq!(weigh("[1,2,3]"), Weight { chars: 0, images: 0, tokens: 3, items: 1, bare: false });
        assert_eq!(weigh("[[1,2],[3]]"), Weight { chars: 0, images: 0, tokens: 3, items: 2, bare: false });
        assert_eq!(weigh("[]").items, 0);
    }

    #[test]
    fn bad_bodies_are_refused_with_the_field_that_is_wrong() {
        let read = |body: &str| Ask::read(Endpoint::Chat, body.as_bytes(), None).unwrap_err();
        assert!(read("{").message.starts_with("We could not parse the JSON body"));
        assert_eq!(read(r#"{"model":7}"#).code, Some("invalid_type"));
        assert_eq!(read(r#"{"messages":[]}"#).param, Some("model"));
        assert_eq!(read(r#"{"model":"m"}"#).param, Some("messages"));
        assert_eq!(read(r#"{"model":"m","messages":[]}"#).param, Some("messages"));
        assert_eq!(read(r#"{"model":"m","messages":["a"],"n":0}"#).param, Some("n"));
        assert_eq!(read(r#"{"model":"m","messages":["a"],"max_tokens":0}"#).param, Some("max_tokens"));
    }
}
