//! Wraps a call that already exists. Needs no key: the provider is the embedded mock.
//!
//! `cargo run --features mock --example quickstart`

use tollgate::mock::{Mock, MockConfig};
use tollgate::{Account, Limits, Request, Scheduler};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Mock::start(MockConfig::default()).await?;
    let limits = Limits { rpm: Some(600), tpm: Some(60_000), ..Limits::default() };
    let account = Account::openai().key("sk-any").base_url(provider.url()).limits(limits);
    let scheduler = Scheduler::builder().account(account).build()?;

    let body = serde_json::json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Say hello in five languages."}],
        "max_tokens": 64,
    });
    let http = reqwest::Client::new();
    let url = format!("{}/chat/completions", provider.url());

    let response = scheduler
        .submit(Request::chat(&body), |_| {
            let post = http.post(&url).bearer_auth("sk-any").header("content-type", "application/json");
            post.body(body.to_string()).send()
        })
        .await?;

    println!("{} {}", response.status(), response.text().await?);
    println!("{:#?}", scheduler.snapshot().lanes[0].status.gates);
    Ok(())
}
