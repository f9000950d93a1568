//! What an answer costs that is there already: `cargo bench --all-features --bench cache`.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::mock::{Mock, MockConfig};
use tollgate::{Account, CacheConfig, Cached, Scheduler};

fn main() {
    let calls = if std::env::args().any(|argument| argument == "--test") { 20 } else { 20_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let provider = Mock::start(MockConfig::default()).await.unwrap();
        for size in [100, 4_096, 65_536] {
            memory(&scheduler(&provider, CacheConfig::default()), size, calls).await;
        }
        disk(&provider, calls / 10).await;
    });
}

fn scheduler(provider: &Mock, cache: CacheConfig) -> Scheduler {
    Scheduler::builder().account(Account::openai().key("none").base_url(provider.url())).cache(cache).build().unwrap()
}

fn ask(text: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 200, "temperature": 0})
}

/// The whole of `chat`, from the body as a value to the reply.
async fn memory(scheduler: &Scheduler, size: usize, calls: u32) {
    let body = ask(&"some words of a prompt ".repeat(size.div_ceil(23))[..size]);
    scheduler.chat(&body).await.unwrap();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..calls {
            assert_eq!(scheduler.chat(&body).await.unwrap().cached(), Some(Cached::Fresh));
        }
        best = best.min(begun.elapsed() / calls);
    }
    println!("hit in memory, prompt of {size} bytes: {:.1} us", best.as_secs_f64() * 1e6);
}

/// The same for answers that are only on disk.
async fn disk(provider: &Mock, answers: u32) {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let config = CacheConfig { folder: Some(folder.path().to_owned()), ..CacheConfig::default() };
        scheduler(provider, config)
    };
    let first = open();
    for index in 0..answers {
        first.chat(&ask(&format!("question {index}"))).await.unwrap();
    }
    drop(first);
    let second = open();
    let begun = Instant::now();
    for index in 0..answers {
        let reply = second.chat(&ask(&format!("question {index}"))).await.unwrap();
        assert_eq!(reply.cached(), Some(Cached::Fresh));
    }
    println!("hit on disk: {:.1} us", begun.elapsed().as_secs_f64() * 1e6 / f64::from(answers));
}
