//! What request bodies are counted at, as promised by the providers' own documentation.
#![cfg(feature = "tiktoken")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::tokens::{Counted, Encoding, INLINE_BYTES, Prompt, count_text, count_text_uncached};

const _: () = {
    const fn sendable<T: Send + Sync + 'static>() {}
    sendable::<Prompt>();
};

fn chat(body: Value) -> Counted {
    Prompt::for_path("/v1/chat/completions", &body).count()
}

fn user(content: Value) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]})
}

fn tokens(text: &str) -> u64 {
    tiktoken_rs::o200k_base_singleton().count_ordinary(text) as u64
}

#[test]
fn a_single_user_message_costs_its_text_and_seven() {
    let text = "What is the capital of France?";
    assert_eq!(chat(user(json!(text))).estimate.input, tokens(text) + 7);
    assert_eq!(chat(user(json!([{"type": "text", "text": text}]))).estimate.input, tokens(text) + 7);
    let responses = json!({"model": "gpt-4.1-nano", "input": text});
    assert_eq!(Prompt::responses(&responses).count().estimate.input, tokens(text) + 7);
}

/// OpenAI cookbook, "How to count tokens with tiktoken", section 6; confirmed there against the API.
#[test]
fn the_cookbooks_messages_cost_what_the_cookbook_says() {
    let messages = json!([
        {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
        {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
        {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
        {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
        {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]);
    for (model, expected) in [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)] {
        assert_eq!(chat(json!({"model": model, "messages": messages})).estimate.input, expected, "{model}");
    }
}

/// The same, section 7.
#[test]
fn the_cookbooks_tool_costs_what_the_cookbook_says() {
    let body = |model: &str| {
        json!({
            "model": model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
                {"role": "user", "content": "What's the weather like in San Francisco?"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                        "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
                    },
                    "required": ["location"],
                },
            }}],
        })
    };
    for (model, expected) in [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)] {
        assert_eq!(chat(body(model)).estimate.input, expected, "{model}");
    }
    // Responses has the function's fields one level higher, the older API another list.
    let nested = body("gpt-4o");
    let function = &nested["tools"][0]["function"];
    let mut flat = function.clone();
    flat["type"] = json!("function");
    let of = |key: &str, tool: &Value| {
        let mut body = nested.clone();
        body.as_object_mut().unwrap().remove("tools");
        body[key] = json!([tool]);
        chat(body).estimate.input
    };
    assert_eq!(of("tools", &flat), 101);
    assert_eq!(of("functions", function), 101);
}

#[test]
fn nested_schemas_cost_at_least_their_texts() {
    let tool = |schema: Value| {
        let mut body = user(json!("x"));
        body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}}]);
        chat(body).estimate.input
    };
    let inner = json!({"street": {"type": "string", "description": "Where the parcel goes"}});
    let plain = tool(json!({"type": "object"}));
    let nested = tool(json!({"type": "object", "properties": inner}));
    assert!(nested >= plain + tokens(&inner.to_string()));
    let mut strict = user(json!("x"));
    let bare = chat(strict.clone()).estimate.input;
    strict["response_format"] = json!({"type": "json_object"});
    assert_eq!(chat(strict.clone()).estimate.input, bare);
    strict["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": inner}});
    assert!(chat(strict).estimate.input >= bare + tokens(&inner.to_string()));
}

#[test]
fn tool_calls_and_their_results_are_counted() {
    let arguments = r#"{"location":"San Francisco, CA"}"#;
    let body = json!({"model": "gpt-4o", "messages": [
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]});
    let texts = tokens("get_weather") + tokens(arguments) + tokens("18 degrees");
    let input = chat(body).estimate.input;
    assert!(input > texts + 3 + 2 * 4 && input < texts + 30, "{input} for {texts}");
    let items = json!({"model": "gpt-4o", "input": [
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees"},
    ]});
    let input = Prompt::responses(&items).count().estimate.input;
    assert!(input > texts + 3 && input < texts + 30, "{input} for {texts}");
}

/// Observed: `limit - remaining` of an idle bucket, and the size named in 429 texts.
#[test]
fn the_character_rule_gives_the_observed_charges() {
    for (characters, charge) in [(61, 18), (19, 7), (120_000, 30_002), (1_920_000, 480_002)] {
        assert_eq!(chat(user(json!("a".repeat(characters)))).estimate.input_by_chars, charge, "{characters}");
    }
    for (characters, charge) in [(13, 3), (14, 3), (34, 8)] {
        let body = json!({"model": "text-embedding-3-small", "input": "b".repeat(characters)});
        assert_eq!(Prompt::embeddings(&body).count().estimate.input_by_chars, charge, "{characters}");
    }
    let three = json!({"model": "text-embedding-3-small", "input": ["seven..", "seven..", "six..."]});
    assert_eq!(Prompt::embeddings(&three).count().estimate.input_by_chars, 5);
}

#[test]
fn sound_is_ignored_by_the_character_rule_and_never_read_as_text() {
    let sound = "A".repeat(64_000);
    let parts = json!([{"type": "text", "text": "b".repeat(19)}, {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}]);
    let prompt = Prompt::chat(&user(parts));
    assert!(prompt.text_bytes() < 30);
    let estimate = prompt.count().estimate;
    assert_eq!(estimate.input_by_chars, 7);
    // 48,000 bytes at 32 kB/s are a second and a half.
    assert_eq!(estimate.input, tokens(&"b".repeat(19)) + 7 + 15);
}

#[test]
fn pictures_cost_by_their_size_and_are_never_read_as_text() {
    // The head of a PNG of 1024 x 1024, then a megabyte of its data.
    let head = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zUAAAA";
    let url = format!("data:image/png;base64,{head}{}", "A".repeat(1 << 20));
    let part = |detail: &str| json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
    let of = |model: &str, part: Value| {
        let mut body = user(json!([part]));
        body["model"] = json!(model);
        let prompt = Prompt::chat(&body);
        assert!(prompt.text_bytes() < 10, "{}", prompt.text_bytes());
        let estimate = prompt.count().estimate;
        assert_eq!(estimate.input_by_chars, 2 + 765);
        estimate.input - 7
    };
    assert_eq!(of("gpt-4o", part("high")), 765);
    assert_eq!(of("gpt-4o", part("auto")), 765);
    assert_eq!(of("gpt-4o", part("low")), 85);
    assert_eq!(of("gpt-4.1-nano", part("high")), 2520);
    assert_eq!(of("gpt-4o", json!({"type": "input_image", "image_url": url})), 765);
    assert_eq!(of("gpt-4o", json!({"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}})), 765);
    assert_eq!(of("gpt-5.2", json!({"type": "input_image", "file_id": "file-1"})), 1536);
    assert_eq!(of("x", json!({"type": "image", "source": {"type": "base64", "data": head}})), 765);
}

#[test]
fn media_in_a_shape_of_tomorrow_is_not_read_as_text() {
    let part =
        json!({"type": "hologram", "title": "cat", "data": format!("data:model/x;base64,{}", "A".repeat(100_000))});
    let prompt = Prompt::chat(&user(json!([part])));
    assert!(prompt.text_bytes() < 100);
    let input = prompt.count().estimate.input;
    assert!((765..900).contains(&input), "{input}");
}

#[test]
fn the_output_cap_is_multiplied_by_the_choices() {
    let of = |more: Value| {
        let mut body = user(json!("hi"));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let estimate = chat(body).estimate;
        (estimate.output_cap, estimate.choices)
    };
    assert_eq!(of(json!({})), (None, 1));
    assert_eq!(of(json!({"max_tokens": 100})), (Some(100), 1));
    assert_eq!(of(json!({"max_tokens": 100, "n": 3})), (Some(300), 3));
    assert_eq!(of(json!({"max_tokens": 100, "max_completion_tokens": 50, "n": null})), (Some(50), 1));
    assert_eq!(of(json!({"max_tokens": null, "n": 4})), (None, 4));
    assert_eq!(of(json!({"max_tokens": u64::MAX, "n": u64::MAX})), (Some(u64::MAX), u32::MAX));
    assert_eq!(of(json!({"max_tokens": -1, "n": 0})), (None, 1));
    assert_eq!(of(json!({"max_tokens": "many", "n": "few"})), (None, 1));
    let body = json!({"model": "gpt-5", "input": "hi", "max_output_tokens": 64});
    assert_eq!(Prompt::responses(&body).count().estimate.output_cap, Some(64));
    let legacy = json!({"model": "davinci-002", "prompt": ["a", "b"], "best_of": 3});
    assert_eq!(Prompt::for_path("/v1/completions", &legacy).count().estimate.output_cap, Some(96));
}

#[test]
fn embeddings_accept_every_form_of_input() {
    let of =
        |input: Value| Prompt::embeddings(&json!({"model": "text-embedding-3-large", "input": input})).count().estimate;
    assert_eq!(of(json!("Hello world")).input, 2);
    assert_eq!(of(json!(["Hello world", "Hello world"])).input, 4);
    assert_eq!(of(json!([1, 2, 3])).input, 3);
    assert_eq!(of(json!([[1, 2, 3], [4, 5]])).input, 5);
    assert_eq!(of(json!([])).input, 0);
    assert_eq!(of(json!("Hello world")).output_cap, Some(0));
    assert_eq!(of(json!([[1, 2, 3], [4, 5]])).input_by_chars, 5);
}

#[test]
fn the_path_decides_and_else_the_body_does() {
    let hello = tokens("Hello world");
    let input = |path: &str, body: Value| Prompt::for_path(path, &body).count().estimate.input;
    let response = json!({"model": "gpt-4o", "input": "Hello world"});
    assert_eq!(input("/v1/responses", response.clone()), hello + 7);
    assert_eq!(input("/v1/embeddings?x=y", response.clone()), hello);
    assert_eq!(input("/somewhere", response.clone()), hello + 7);
    assert_eq!(Prompt::detect(&response).count().estimate.input, hello + 7);
    assert_eq!(
        Prompt::detect(&json!({"model": "text-embedding-3-small", "input": "Hello world"})).count().estimate.input,
        2
    );
    assert_eq!(Prompt::detect(&json!({"model": "own", "input": ["Hello world"]})).count().estimate.input, hello);
    assert_eq!(input("/anywhere", user(json!("Hello world"))), hello + 7);
    assert_eq!(input("/v1/completions", json!({"model": "gpt-4o", "prompt": "Hello world"})), hello);
    let claude =
        json!({"model": "claude", "system": "Hello world", "messages": [{"role": "user", "content": "Hello world"}]});
    assert_eq!(input("/v1/messages", claude), 2 * hello + 7 + 4);
}

#[test]
fn an_azure_path_names_the_model() {
    let path = "https://x.openai.azure.com/openai/deployments/gpt-35-turbo/chat/completions?api-version=2024-10-21";
    let prompt = Prompt::for_path(path, &json!({"messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((prompt.model(), prompt.encoding()), ("gpt-35-turbo", Encoding::Cl100kBase));
}

#[test]
fn an_unknown_model_is_counted_and_said_to_be_unknown() {
    let counted = chat(json!({"messages": [{"role": "user", "content": "Hello world"}]}));
    assert_eq!((counted.known_model, counted.encoding), (false, Encoding::O200kBase));
    assert_eq!(counted.estimate.input, 9);
    assert!(chat(user(json!("hi"))).known_model);
}

/// Message frames and the system message of the harmony response format, as gpt-oss servers render them.
#[test]
fn gpt_oss_is_charged_for_the_system_message_its_servers_add() {
    let system = "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\
        Current date: 2025-06-28\n\nReasoning: medium\n\n\
        # Valid channels: analysis, commentary, final. Channel must be included for every message.";
    let body = json!({"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": "Hello"}]});
    let counted = chat(body);
    assert_eq!(counted.encoding, Encoding::O200kHarmony);
    let rendered = tokens(system) + 4 + tokens("Hello") + 7;
    let input = counted.estimate.input;
    assert!(input >= rendered && input <= rendered + 10, "{input} for {rendered}");
}

#[test]
fn special_tokens_in_a_text_are_ordinary_text() {
    for encoding in [Encoding::O200kBase, Encoding::O200kHarmony, Encoding::Cl100kBase, Encoding::R50kBase] {
        assert!(count_text(encoding, "<|endoftext|>") > 3, "{encoding:?}");
    }
}

#[test]
fn strange_bodies_are_counted_by_their_text() {
    let strange = [
        json!(null),
        json!(17),
        json!("text"),
        json!([]),
        json!({}),
        json!({"messages": null}),
        json!({"messages": "hello"}),
        json!({"messages": [null, 1, "x", [], {}, {"role": 5, "content": {"a": [1]}}, {"content": [[["x"]]]}]}),
        json!({"model": 5, "messages": [{"role": "user", "content": [{"type": "text"}, {"type": 7}, {"image_url": 1}]}]}),
        json!({"messages": [], "tools": [null, 1, {"function": []}, {"type": "web_search"}], "functions": {"a": 1}}),
        json!({"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": 1, "b": {"enum": [1, null]}}}}}], "input": {"x": 1}}),
        json!({"input": [null, {"type": "reasoning"}, {"type": "message"}, {"type": "mcp_call", "output": {"b": 2}}]}),
        json!({"prompt": {"id": "p", "variables": {"city": "Rome"}}, "response_format": 5, "text": 7}),
    ];
    for body in strange {
        for path in
            ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/completions", "/v1/messages", "/", ""]
        {
            let before = body.clone();
            Prompt::for_path(path, &body).count();
            assert_eq!(body, before);
        }
    }
    let surprise = json!({"surprise": "something entirely new"});
    assert!(Prompt::detect(&surprise).count().estimate.input >= tokens("something entirely new"));
    assert!(chat(user(json!([surprise]))).estimate.input >= tokens("something entirely new") + 7);
}

#[test]
fn debug_shows_no_text() {
    let body =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "name": "bob", "content": "my secret is xyzzy"}]});
    let shown = format!("{:?} {:#?}", Prompt::chat(&body), Prompt::chat(&body));
    for text in ["secret", "xyzzy", "bob", "user"] {
        assert!(!shown.contains(text), "{shown}");
    }
    assert!(shown.contains("gpt-4o"));
}

#[test]
fn a_repeated_count_is_the_same_and_large_prompts_are_told_apart() {
    let text = "All work and no play makes Jack a dull boy. ".repeat(4000);
    let prompt = Prompt::chat(&user(json!(text)));
    assert!(prompt.text_bytes() > INLINE_BYTES);
    assert_eq!(prompt.count(), prompt.count());
    assert_eq!(prompt.count().estimate.input, tokens(&text) + 7);
}

/// A group of texts is remembered as one; where one text ends and the next begins must be part of what is remembered.
#[test]
fn tools_of_the_same_letters_in_other_places_are_told_apart() {
    let of = |names: [&str; 2]| {
        let tools: Vec<Value> = names.iter().map(|name| json!({"type": "function", "name": name})).collect();
        let mut body = user(json!("x"));
        body["tools"] = json!(tools);
        chat(body).estimate.input
    };
    let whole = "get_the_weather_of_tomorrow_".repeat(12);
    let expected = |names: [&str; 2]| {
        of(["f", "f"]) + names.iter().map(|name| tokens(&format!("{name}:"))).sum::<u64>() - 2 * tokens("f:")
    };
    for at in [1, 5, 7, 100, whole.len() - 3] {
        let (left, right) = whole.split_at(at);
        assert_eq!(of([left, right]), expected([left, right]), "{at}");
    }
}

fn pathological() -> Vec<(&'static str, String)> {
    // Without optimisation tiktoken takes seconds per megabyte. The ratio is the same at an eighth.
    const SIZE: usize = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 20 };
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let mut state = 1u64;
    let base64 = (0..SIZE).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize] as char
    });
    vec![
        ("one letter", fill("a")),
        ("one capital", fill("A")),
        // This one at full size: it is what makes tiktoken itself panic.
        ("spaces", " ".repeat(1 << 20)),
        ("spaces and an end", format!("{}x", fill(" "))),
        ("tabs", fill("\t")),
        ("newlines", fill("\n")),
        ("no-break spaces", fill("\u{a0}")),
        ("spaces and newlines", fill(" \n")),
        ("emoji", fill("😀")),
        ("joined emoji", fill("👩\u{200d}")),
        ("Chinese", fill("漢字")),
        ("base64", base64.collect()),
        ("one letter, many marks", format!("a{}", fill("\u{301}"))),
        ("quotes", fill("'\"")),
        ("contractions", fill("'s")),
        ("slashes", fill("/\n")),
        ("digits", fill("7")),
        ("modifier letters", fill("ʰ")),
        ("alternating case", fill("aA")),
        ("control characters", fill("\u{0}\u{1}")),
    ]
}

#[test]
fn a_megabyte_of_anything_costs_little_more_than_a_megabyte_of_prose() {
    // The better of two, so that a busy machine does not count as slow text.
    let time = |text: &str| {
        let once = || {
            let start = now();
            black_box(count_text_uncached(Encoding::O200kBase, black_box(text)));
            start.elapsed()
        };
        once().min(once())
    };
    time("load the vocabulary");
    for (name, text) in pathological() {
        let prose = "The quick brown fox jumps over the lazy dog, and it isn't done. ".repeat(text.len() / 64);
        let usual = time(&prose).max(Duration::from_millis(10));
        let took = time(&text);
        assert!(took < usual * 20, "{name}: {took:?}, prose {usual:?}");
        for encoding in [Encoding::Cl100kBase, Encoding::P50kBase, Encoding::R50kBase] {
            assert!(count_text_uncached(encoding, &text) > 0, "{name}");
        }
    }
}

/// The work of counting is what is measured here, not a limit's passing.
#[expect(clippy::disallowed_methods, reason = "the clock is the test's instrument")]
fn now() -> Instant {
    Instant::now()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_is_counted_and_left_alone(text in "(?s).{0,200}", repeat in 1usize..100) {
        let text = text.repeat(repeat);
        let body = user(json!(text));
        let before = body.clone();
        let input = chat(body.clone()).estimate.input;
        prop_assert!(input >= 7 + u64::from(!text.is_empty()));
        prop_assert_eq!(body, before);
    }
}
