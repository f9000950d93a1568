//! One line of the input: what it asks for, and which row it is.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tollgate::{Provider, tokens::Prompt};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::settings::path_of;

/// Which row something is: a hash of its `custom_id`.
pub(crate) type Id = u128;

/// How lines are read.
#[derive(Clone, Debug)]
pub(crate) struct LineFormat {
    /// Where plain bodies go, if not where their shape tells.
    pub(crate) endpoint: Option<String>,
    pub(crate) provider: Provider,
}

/// Why a line cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    column: Option<usize>,
    field: Option<&'static str>,
    what: String,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { column: None, field: None, what: what.into() }
    }

    pub(crate) fn field(field: &'static str, what: impl Into<String>) -> Self {
        Self { column: None, field: Some(field), what: what.into() }
    }

    fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        Self { column: Some(error.column()), field: None, what: format!("not JSON: {what}") }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        if let Some(field) = self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// How a row is told from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By the name that its line gives.
    Named(String),
    /// By what its line says, whatever the order of keys and the spaces between them. Equal lines are told apart by
    /// counting them.
    Content(u128),
}

impl Identity {
    /// The `custom_id` of the result; `nth` counts the equal lines before.
    ///
    /// Results of earlier versions are found by this name: it must never change.
    pub(crate) fn custom_id(&self, nth: u32) -> String {
        match self {
            Identity::Named(name) => name.clone(),
            Identity::Content(content) => {
                let mut bytes = [0; 20];
                bytes[..16].copy_from_slice(&content.to_be_bytes());
                bytes[16..].copy_from_slice(&nth.to_be_bytes());
                format!("row-{:032x}", xxh3_128(&bytes))
            }
        }
    }
}

/// The hash of a `custom_id`.
pub(crate) fn id_of(custom_id: &str) -> Id {
    xxh3_128(custom_id.as_bytes())
}

/// A line that can be sent, as far as checking it needs.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) identity: Identity,
    /// Below the base URL.
    pub(crate) path: String,
    pub(crate) model: String,
    /// The body as JSON, to be counted; what is sent are the line's own bytes.
    pub(crate) body: Value,
    batch: bool,
    /// The row's own metadata is not the provider's.
    cut_metadata: bool,
}

impl Line {
    /// Reads a line; `None` for a blank one.
    pub(crate) fn read(line: &[u8], shape: &LineFormat) -> Result<Option<Self>, Problem> {
        let text = text(line)?;
        if text.is_empty() {
            return Ok(None);
        }
        let mut value: Value = serde_json::from_str(text).map_err(|error| Problem::json(&error))?;
        let Some(members) = value.as_object() else {
            return Err(Problem::new("expected a JSON object"));
        };
        let batch = members.contains_key("custom_id") || members.contains_key("body");
        let line = if batch { Self::batch(&mut value, shape)? } else { Self::plain(value, shape)? };
        if line.body.get("stream").is_some_and(|stream| *stream == Value::Bool(true)) {
            return Err(Problem::field("stream", "a streamed answer cannot be put into one line; leave it out"));
        }
        Ok(Some(line))
    }

    fn batch(value: &mut Value, shape: &LineFormat) -> Result<Self, Problem> {
        let name = match &value["custom_id"] {
            Value::String(name) if !name.is_empty() => name.clone(),
            Value::Null => return Err(Problem::field("custom_id", "missing")),
            _ => return Err(Problem::field("custom_id", "expected a text that is not empty")),
        };
        match &value["method"] {
            Value::Null => {}
            Value::String(method) if method.eq_ignore_ascii_case("POST") => {}
            _ => return Err(Problem::field("method", "expected POST")),
        }
        let body = value.get_mut("body").map(Value::take).unwrap_or_default();
        match &body {
            Value::Object(_) => {}
            Value::Null => return Err(Problem::field("body", "missing")),
            _ => return Err(Problem::field("body", "expected an object")),
        }
        let path = match &value["url"] {
            Value::String(url) if url.starts_with('/') && !leaves(url) => {
                path_of(url).map_err(|error| Problem::field("url", error.to_string()))?
            }
            Value::Null => endpoint(&body, shape)?,
            _ => return Err(Problem::field("url", "expected a path such as /v1/chat/completions")),
        };
        let model = model(&body, &path)?;
        Ok(Self { identity: Identity::Named(name), path, model, body, batch: true, cut_metadata: false })
    }

    fn plain(value: Value, shape: &LineFormat) -> Result<Self, Problem> {
        let mut hash = Xxh3::new();
        feed(&value, &mut hash);
        let identity = Identity::Content(hash.digest128());
        let path = match &shape.endpoint {
            Some(path) => path.clone(),
            None => endpoint(&value, shape)?,
        };
        let model = model(&value, &path)?;
        let stored = value.get("store").is_some_and(|store| *store == Value::Bool(true));
        let cut_metadata = !stored && value.get("metadata").is_some();
        Ok(Self { identity, path, model, body: value, batch: false, cut_metadata })
    }

    /// The most tokens that the body can be, told without counting: no text has more tokens than bytes.
    pub(crate) fn at_most(&self, bytes: usize) -> Option<tollgate::Estimate> {
        // Pictures and files cost more than the text that names them; old completions multiply by their prompts.
        if self.path.ends_with("/completions") && !self.path.ends_with("/chat/completions") || self.names_files() {
            return None;
        }
        let number =
            |field: &str| self.body[field].as_f64().filter(|number| *number >= 0.0).map(|number| number as u64);
        let choices = number("n").unwrap_or(1).max(1);
        let caps = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
        let cap = caps.into_iter().filter_map(number).max();
        let embeds = self.path.ends_with("/embeddings");
        Some(tollgate::Estimate {
            input: bytes as u64,
            input_by_chars: bytes as u64,
            output_cap: if embeds { Some(0) } else { cap.map(|cap| cap.saturating_mul(choices)) },
            choices: u32::try_from(choices).unwrap_or(u32::MAX),
        })
    }

    /// Whether any content is a list of parts, some of which may be no texts.
    fn names_files(&self) -> bool {
        let parts = |message: &Value| message.get("content").is_some_and(Value::is_array);
        let lists = ["messages", "input"].into_iter().filter_map(|field| self.body[field].as_array());
        lists.flatten().any(parts)
    }
}

/// A row, ready to be sent.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Id,
    pub(crate) custom_id: String,
    /// Below the base URL.
    pub(crate) path: String,
    /// What is sent.
    pub(crate) body: Bytes,
    /// What is carried to the result.
    pub(crate) metadata: Option<Bytes>,
}

impl Row {
    /// Reads a line that was checked before, and what there is to count in it. `nth` counts the equal lines before it.
    pub(crate) fn read(bytes: &Bytes, nth: u32, shape: &LineFormat) -> Result<(Self, Prompt), Problem> {
        let line = Line::read(bytes, shape)?.ok_or_else(|| Problem::new("blank"))?;
        let text = text(bytes)?;
        let prompt = Prompt::for_path(&line.path, &line.body);
        let custom_id = line.identity.custom_id(nth);
        let slice = |part: &str| bytes.slice_ref(part.as_bytes());
        let (body, metadata) = if line.batch || line.body.get("metadata").is_some() {
            let members: Members<'_> = serde_json::from_str(text).map_err(|error| Problem::json(&error))?;
            let metadata = members.last("metadata").map(slice);
            let body = match (line.batch, line.cut_metadata) {
                (true, _) => slice(members.last("body").ok_or_else(|| Problem::field("body", "missing"))?),
                (false, true) => members.without("metadata").into(),
                (false, false) => slice(text),
            };
            (body, metadata)
        } else {
            (slice(text), None)
        };
        Ok((Self { id: id_of(&custom_id), custom_id, path: line.path, body, metadata }, prompt))
    }
}

fn text(line: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(line).map_err(|error| Problem {
        column: Some(error.valid_up_to() + 1),
        field: None,
        what: "not UTF-8".to_owned(),
    })?;
    Ok(text.trim_matches([' ', '\t', '\r', '\n']))
}

/// Whether a path leads out of the address that the key is for.
fn leaves(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".");
    plain.split(['/', '\\', '?', '#']).any(|part| part == "..")
}

/// Where a body goes, told by its shape.
fn endpoint(body: &Value, shape: &LineFormat) -> Result<String, Problem> {
    let has = |field: &str| body.get(field).is_some();
    let name = body["model"].as_str().unwrap_or_default();
    let path = if has("messages") {
        if shape.provider == Provider::Anthropic { "/messages" } else { "/chat/completions" }
    } else if has("input") {
        let answers = has("max_output_tokens") || has("instructions");
        let embeds = name.starts_with("text-embedding") || !answers && name.contains("embed");
        if embeds { "/embeddings" } else { "/responses" }
    } else if has("prompt") {
        "/completions"
    } else {
        return Err(Problem::new(
            "neither `messages` nor `input` nor `prompt`: where it goes cannot be told; see --endpoint",
        ));
    };
    Ok(path.to_owned())
}

fn model(body: &Value, path: &str) -> Result<String, Problem> {
    match &body["model"] {
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        // Azure names the deployment in the path.
        Value::Null => match Prompt::for_path(path, body).model() {
            "" => Err(Problem::field("model", "missing; the limits depend on it")),
            name => Ok(name.to_owned()),
        },
        _ => Err(Problem::field("model", "expected a text that is not empty")),
    }
}

/// Hashes what a value says: keys sorted, every part with its kind and length.
///
/// Results of earlier versions are found by this hash: it must never change.
fn feed(value: &Value, hash: &mut Xxh3) {
    let mut part = |kind: u8, bytes: &[u8]| {
        hash.update(&[kind]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match value {
        Value::Null => part(b'0', b""),
        Value::Bool(truth) => part(b'b', &[u8::from(*truth)]),
        // By its bits: how a float is printed may change.
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => part(b'u', &number.to_le_bytes()),
            (None, Some(number), _) => part(b'i', &number.to_le_bytes()),
            (None, None, number) => part(b'f', &number.unwrap_or(f64::NAN).to_bits().to_le_bytes()),
        },
        Value::String(text) => part(b's', text.as_bytes()),
        Value::Array(items) => {
            part(b'a', &(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(item, hash));
        }
        Value::Object(members) => {
            part(b'o', &(members.len() as u64).to_le_bytes());
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in sorted {
                hash.update(&(name.len() as u64).to_le_bytes());
                hash.update(name.as_bytes());
                feed(value, hash);
            }
        }
    }
}

/// The members of an object in their order, each value as it was written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The value of a member; of several, the last one counts, as it does for most servers.
    fn last(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.get())
    }

    /// The object without a member, the rest as it was.
    fn without(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.iter().map(|(name, value)| name.len() + value.get().len() + 8).sum());
        for (name, value) in self.0.iter().filter(|(other, _)| other != name) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        if out.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        out
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> LineFormat {
        LineFormat { endpoint: None, provider: Provider::Openai }
    }

    fn row(line: &str) -> Row {
        Row::read(&Bytes::copy_from_slice(line.as_bytes()), 0, &shape()).unwrap().0
    }

    #[test]
    fn cutting_the_metadata_out_leaves_everything_else_as_it_was_written() {
        let line = r#" {"temperature": 1.0, "model":"m\u00e9", "metadata" : {"a": [1]}, "messages": [ {"role":"user"} ], "n":1e0}"#;
        let row = row(line);
        let sent = r#"{"temperature":1.0,"model":"m\u00e9","messages":[ {"role":"user"} ],"n":1e0}"#;
        assert_eq!((&row.body[..], row.metadata.as_deref()), (sent.as_bytes(), Some(&br#"{"a": [1]}"#[..])));
        let stored = line.replace("\"n\":1e0", "\"store\":true");
        assert_eq!(self::row(&stored).body, stored.trim());
    }

    #[test]
    fn a_batch_body_is_sent_byte_by_byte() {
        let body = r#"{ "model" : "m", "metadata":{"x":"y"}, "messages":[],  "é":"\ud83d\ude00", "f":1.50 }"#;
        let row = row(&format!(r#"{{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{body}}}"#));
        assert_eq!((&row.body[..], row.metadata), (body.as_bytes(), None));
        assert_eq!((row.path.as_str(), row.custom_id.as_str()), ("/chat/completions", "a"));
    }

    #[test]
    fn the_shape_tells_the_endpoint() {
        for (line, path) in [
            (r#"{"model":"gpt-4o","messages":[]}"#, "/chat/completions"),
            (r#"{"model":"text-embedding-3-small","input":"a"}"#, "/embeddings"),
            (r#"{"model":"nomic-embed","input":"a"}"#, "/embeddings"),
            (r#"{"model":"embedder","input":"a","instructions":"b"}"#, "/responses"),
            (r#"{"model":"gpt-4o","input":"a"}"#, "/responses"),
            (r#"{"model":"gpt-3.5-turbo-instruct","prompt":"a"}"#, "/completions"),
        ] {
            assert_eq!(row(line).path, path, "{line}");
        }
    }

    #[test]
    fn names_of_rows_follow_the_content_and_never_change() {
        let line = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"n":1}"#;
        let turned = r#"{ "n":1, "messages":[{"content":"Hi","role":"user"}], "model":"m" }"#;
        assert_eq!(row(line).custom_id, row(turned).custom_id);
        assert_eq!(row(line).custom_id, "row-b98f56978838fef4b9648827eff77f31");
        let (second, _) = Row::read(&Bytes::copy_from_slice(line.as_bytes()), 1, &shape()).unwrap();
        assert_ne!(second.custom_id, row(line).custom_id);
        for other in [line.replace("Hi", "Ho"), line.replace(":1", ":1.0"), line.replace(":1", ":\"1\"")] {
            assert_ne!(row(&other).custom_id, row(line).custom_id);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (line, text) in [
            (&br#"{"model":"m","messages":[}"#[..], ", column 26: not JSON: expected value"),
            (b"[1]", ": expected a JSON object"),
            (b"{\"model\":\"\xff\"}", ", column 11: not UTF-8"),
            (br#"{"messages":[]}"#, ", model: missing; the limits depend on it"),
            (br#"{"model":7,"messages":[]}"#, ", model: expected a text that is not empty"),
            (br#"{"custom_id":"a","url":"/v1/embeddings"}"#, ", body: missing"),
            (br#"{"body":{}}"#, ", custom_id: missing"),
            (br#"{"custom_id":1,"body":{}}"#, ", custom_id: expected a text that is not empty"),
            (br#"{"custom_id":"a","method":"GET","body":{}}"#, ", method: expected POST"),
            (
                br#"{"custom_id":"a","url":"/v1/%2E%2e/x","body":{}}"#,
                ", url: expected a path such as /v1/chat/completions",
            ),
            (br#"{"custom_id":"a","url":"http://x","body":{}}"#, ", url: expected a path such as /v1/chat/completions"),
            (
                br#"{"model":"m","messages":[],"stream":true}"#,
                ", stream: a streamed answer cannot be put into one line; leave it out",
            ),
        ] {
            assert_eq!(Line::read(line, &shape()).unwrap_err().to_string(), text);
        }
        assert!(Line::read(b" \t\r", &shape()).unwrap().is_none());
    }
}
