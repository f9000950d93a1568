//! One scheduler shared by a pool of worker tasks: twelve workers with 60 jobs each, and not more than ten requests a second in all.
//!
//! `cargo run --features mock --example workers`

use tollgate::mock::{Mock, MockConfig, MockLimits};
use tollgate::{Account, Limits, Scheduler};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Mock::start(MockConfig {
        limits: MockLimits { rpm: Some(600), ..MockLimits::default() },
        ..MockConfig::default()
    })
    .await?;
    let limits = Limits { rpm: Some(600), ..Limits::default() };
    let account = Account::openai().key("sk-any").base_url(provider.url()).limits(limits);
    let scheduler = Scheduler::builder().account(account).build()?;

    let workers: Vec<_> = (0..12)
        .map(|worker| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                let mut tokens = 0;
                for job in 0..60 {
                    let content = format!("Job {job} of worker {worker}");
                    let body = serde_json::json!({
                        "model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], "max_tokens": 16,
                    });
                    tokens += scheduler.chat(&body).await?.usage.map_or(0, |usage| usage.total());
                }
                Ok::<_, tollgate::Error<tollgate::ClientError>>(tokens)
            })
        })
        .collect();
    for worker in workers {
        println!("a worker used {} tokens", worker.await??);
    }
    println!("429s: {}", provider.stats().refused.total());
    Ok(())
}
