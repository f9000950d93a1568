//! A streamed chat completion that settles on its usage chunk.
//!
//! `cargo run --features mock --example streaming`

use std::io::Write;

use tollgate::mock::{Mock, MockConfig};
use tollgate::{Account, Limits, Scheduler};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Mock::start(MockConfig::default()).await?;
    let limits = Limits { tpm: Some(60_000), ..Limits::default() };
    let account = Account::openai().key("sk-any").base_url(provider.url()).limits(limits);
    let scheduler = Scheduler::builder().account(account).build()?;

    let body = serde_json::json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Tell me a short story."}],
        "max_tokens": 120,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let mut stream = scheduler.chat_stream(&body).await?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if let Some(text) = chunk.pointer("/choices/0/delta/content").and_then(|text| text.as_str()) {
            print!("{text}");
            std::io::stdout().flush()?;
        }
    }
    println!("\n{:?}", stream.usage());
    Ok(())
}
