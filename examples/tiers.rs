//! Tuning per tier: what the table knows, and what you know better.
//!
//! `cargo run --example tiers`

use tollgate::providers::{Provider, as_of, lookup, tiers};
use tollgate::{Account, Limit, Limits, Request, Scheduler};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("the tier table is of {}", as_of());
    for tier in tiers(Provider::Openai) {
        if let Some(row) = lookup(Provider::Openai, tier, "gpt-4o") {
            let limits: Vec<_> = row.limits.iter().map(Limit::to_string).collect();
            println!("{tier:>6}: {} (read {})", limits.join(", "), row.as_of);
        }
    }

    // The account's own page says 60,000 TPM; RPM stays the tier's.
    let better = Limits { tpm: Some(60_000), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().tier(1).model("gpt-4o", better)).build()?;
    let forecast = scheduler.forecast(Request::tokens("gpt-4o", 40_000, 1_000)).await?;
    println!("a request of 41,000 tokens starts in {:?}", forecast.starts_in);

    // Promoted meanwhile: what was spent stays spent.
    scheduler.set_limits("gpt-4o", [Limit::rpm(5_000), Limit::tpm(450_000)]);
    for gate in &scheduler.snapshot().lanes[0].status.gates {
        println!("{} from {:?}: {} left", gate.limit, gate.source, gate.left);
    }
    Ok(())
}
