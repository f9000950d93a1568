//! The cost of counting: against tiktoken itself, a second time, and on texts made to be slow.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tollgate::tokens::{Encoding, Prompt, count_text, count_text_uncached};

const O200K: Encoding = Encoding::O200kBase;

/// Prose in which few sentences are alike, so that tiktoken's tables are not always warm.
fn prose(bytes: usize) -> String {
    const WORDS: [&str; 32] = [
        "the",
        "request",
        "waits",
        "until",
        "its",
        "budget",
        "allows",
        "a",
        "further",
        "thousand",
        "tokens",
        "of",
        "input",
        "and",
        "nobody's",
        "answer",
        "is",
        "late,",
        "although",
        "Provider",
        "limits",
        "are",
        "counted",
        "per",
        "minute;",
        "we",
        "schedule",
        "around",
        "2048",
        "them.",
        "Unsurprisingly",
        "(mostly)",
    ];
    let mut state = 7u64;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        text.push_str(WORDS[(state >> 59) as usize]);
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

fn ordinary(c: &mut Criterion) {
    let tiktoken = tiktoken_rs::o200k_base_singleton();
    let mut group = c.benchmark_group("ordinary");
    for (name, bytes) in [("1KiB", 1 << 10), ("16KiB", 16 << 10), ("64KiB", 64 << 10)] {
        let text = prose(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("tiktoken/{name}"), |b| b.iter(|| tiktoken.count_ordinary(black_box(&text))));
        group.bench_function(format!("uncached/{name}"), |b| b.iter(|| count_text_uncached(O200K, black_box(&text))));
        group.bench_function(format!("repeated/{name}"), |b| b.iter(|| count_text(O200K, black_box(&text))));
        // Misses: fingerprint, count, insert.
        let mut turn = 0u64;
        group.bench_function(format!("new/{name}"), |b| {
            let fresh = || {
                turn += 1;
                format!("{turn:08}{}", &text[8..])
            };
            b.iter_batched(fresh, |text| count_text(O200K, black_box(&text)), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn prompts(c: &mut Criterion) {
    let tool = |number: usize| {
        json!({"type": "function", "function": {"name": format!("tool_{number}"), "description": "Looks something up.",
            "parameters": {"type": "object", "properties": {
                "query": {"type": "string", "description": "What to look for"},
                "order": {"type": "string", "enum": ["newest", "oldest"]}}}}})
    };
    let body = json!({
        "model": "gpt-4o",
        "max_tokens": 500,
        "messages": [{"role": "system", "content": prose(8 << 10)}, {"role": "user", "content": "And what about today?"}],
        "tools": (0..16).map(tool).collect::<Vec<_>>(),
    });
    let mut group = c.benchmark_group("prompt");
    group.bench_function("collect", |b| b.iter(|| Prompt::chat(black_box(&body))));
    group.bench_function("count_again", |b| {
        let prompt = Prompt::chat(&body);
        b.iter(|| black_box(&prompt).count());
    });
    group.finish();
}

fn pathological(c: &mut Criterion) {
    const SIZE: usize = 1 << 20;
    let mut group = c.benchmark_group("pathological");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    let base64 = {
        let mut state = 1u64;
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..SIZE).map(move |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            letters[(state >> 58) as usize] as char
        })
    };
    let mut cases = vec![("prose", prose(SIZE)), ("base64", base64.collect())];
    for (name, unit) in [
        ("one_letter", "a"),
        ("one_capital", "A"),
        ("spaces", " "),
        ("newlines", "\n"),
        ("spaces_and_newlines", " \n"),
        ("emoji", "😀"),
        ("chinese", "漢字"),
        ("marks", "\u{301}"),
        ("quotes", "'\""),
    ] {
        cases.push((name, unit.repeat(SIZE / unit.len())));
    }
    for (name, text) in &cases {
        group.bench_function(*name, |b| b.iter(|| count_text_uncached(O200K, black_box(text))));
    }
    group.finish();
}

criterion_group!(benches, ordinary, prompts, pathological);
criterion_main!(benches);
