//! What makes two requests identical.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// A hash of what was asked, for whom and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u8; 32]);

/// The key of `body`, sent to `path` in `scope`: the account, its address and the tenant.
///
/// Answers of earlier runs are found by it: a change of what is hashed needs another [`FILE`](super::disk::FILE).
pub(super) fn key(scope: [&str; 3], path: &str, body: &Value) -> Key {
    let mut hash = Sha256::new();
    for part in scope.into_iter().chain([path]) {
        text(&mut hash, part);
    }
    feed(&mut hash, body);
    Key(hash.finalize().into())
}

/// Hashes what a value says. Every part comes with its kind and length, so that no two values run together.
fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"0"),
        Value::Bool(truth) => hash.update(if *truth { b"t" } else { b"f" }),
        Value::Number(value) => number(hash, value),
        Value::String(value) => {
            hash.update(b"s");
            text(hash, value);
        }
        Value::Array(items) => {
            hash.update(b"a");
            length(hash, items.len());
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(members) => {
            hash.update(b"o");
            length(hash, members.len());
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in sorted {
                text(hash, name);
                feed(hash, value);
            }
        }
    }
}

/// `1`, `1.0` and `1e0` are one number.
fn number(hash: &mut Sha256, number: &Number) {
    let whole = number.as_i128().or_else(|| {
        let float = number.as_f64()?;
        // Beyond this a float is not every whole number any more.
        (float.fract() == 0.0 && float.abs() < 2f64.powi(53)).then_some(float as i128)
    });
    match whole {
        Some(whole) => {
            hash.update(b"i");
            hash.update(whole.to_le_bytes());
        }
        None => {
            hash.update(b"d");
            hash.update(number.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
        }
    }
}

fn text(hash: &mut Sha256, text: &str) {
    length(hash, text.len());
    hash.update(text);
}

fn length(hash: &mut Sha256, length: usize) {
    hash.update((length as u64).to_le_bytes());
}

/// Whether asking again may be spared: the request has one right answer, and changes nothing at the provider.
pub(super) fn is_repeatable(path: &str, body: &Value, sampled: bool) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let ends = |kinds: &[&str]| kinds.iter().any(|kind| path.ends_with(kind));
    let says = |field: &str| body[field] == Value::Bool(true);
    if says("stream") || says("store") || says("background") || !body["conversation"].is_null() {
        return false;
    }
    let exact = ends(&["/embeddings", "/moderations"]);
    let generated = ends(&["/completions", "/responses", "/messages"]);
    exact || generated && (sampled || body["temperature"].as_f64() == Some(0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(body: &str) -> Key {
        key(["openai", "https://api", ""], "/chat/completions", &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn order_of_keys_and_spelling_of_numbers_and_texts_make_no_difference() {
        let plain = of(r#"{"model":"m","temperature":0,"seed":12,"messages":[{"role":"user","content":"é"}]}"#);
        for same in [
            r#" {"messages":[{"content":"\u00e9","role":"user"}],"seed":12.0,"temperature":0.0,"model":"m"}"#,
            r#"{"model":"m","temperature":-0.0,"seed":1.2e1,"messages":[{"role":"user","content":"é"}]}"#,
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
        for same in ["0.70", "7e-1", "70E-2", "0.07e+1"] {
            assert_eq!(of(&format!(r#"{{"p":{same}}}"#)), of(r#"{"p":0.7}"#), "{same}");
        }
    }

    #[test]
    fn whatever_is_said_differently_makes_a_difference() {
        let bodies = [
            r#"{"model":"m","seed":1}"#,
            r#"{"model":"m","seed":2}"#,
            r#"{"model":"m","seed":"1"}"#,
            r#"{"model":"m","seed":1.5}"#,
            r#"{"model":"m","seed":-1}"#,
            r#"{"model":"m","seed":18446744073709551615}"#,
            r#"{"model":"m","seed":18446744073709551614}"#,
            r#"{"model":"m","seed":null}"#,
            r#"{"model":"m","seed":true}"#,
            r#"{"model":"m"}"#,
            r#"{"model":["m"],"seed":1}"#,
            r#"{"model":[["m"]],"seed":1}"#,
            r#"{"model":"ms","eed":1}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"a":{"b":1,"c":2}}"#,
            r#"["a","b"]"#,
            r#"["ab"]"#,
            r#"[["a"],"b"]"#,
            r#"[["a","b"]]"#,
        ];
        let keys: std::collections::HashSet<_> = bodies.iter().map(|body| of(body)).collect();
        assert_eq!(keys.len(), bodies.len());
        let body = Value::Null;
        let scoped = [
            key(["a", "b", "c"], "/x", &body),
            key(["ab", "", "c"], "/x", &body),
            key(["a", "b", ""], "c/x", &body),
            key(["a", "b", "d"], "/x", &body),
            key(["a", "b", "c"], "/y", &body),
        ];
        assert_eq!(scoped.iter().collect::<std::collections::HashSet<_>>().len(), scoped.len());
    }

    #[test]
    fn what_is_sampled_streamed_or_changes_something_is_not_repeatable() {
        let rows = [
            ("/embeddings", r#"{"input":"a"}"#, true),
            ("/openai/deployments/x/embeddings?api-version=1", r#"{"input":"a"}"#, true),
            ("/moderations", r#"{"input":"a"}"#, true),
            ("/chat/completions", r#"{"temperature":0}"#, true),
            ("/chat/completions", r#"{"temperature":0.0}"#, true),
            ("/messages", r#"{"temperature":0}"#, true),
            ("/responses", r#"{"temperature":0}"#, true),
            ("/chat/completions", r#"{}"#, false),
            ("/chat/completions", r#"{"temperature":0.2}"#, false),
            ("/chat/completions", r#"{"temperature":"0"}"#, false),
            ("/chat/completions", r#"{"temperature":0,"stream":true}"#, false),
            ("/responses", r#"{"temperature":0,"store":true}"#, false),
            ("/responses", r#"{"temperature":0,"background":true}"#, false),
            ("/responses", r#"{"temperature":0,"conversation":"conv_1"}"#, false),
            ("/files", r#"{"temperature":0}"#, false),
        ];
        for (path, body, expected) in rows {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(is_repeatable(path, &body, false), expected, "{path} {body}");
            if body.get("stream").is_none() && path == "/chat/completions" {
                assert!(is_repeatable(path, &body, true), "sampled answers are asked for: {body}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_written_and_read_again_has_the_same_key(seed: i64, weight: i16, text: String) {
            let weight = f64::from(weight) / 8.0;
            let body = serde_json::json!({"seed": seed, "weight": weight, "text": text, "list": [seed, weight]});
            let again: Value = serde_json::from_str(&serde_json::to_string_pretty(&body).unwrap()).unwrap();
            prop_assert_eq!(key([""; 3], "", &again), key([""; 3], "", &body));
        }
    }
}
