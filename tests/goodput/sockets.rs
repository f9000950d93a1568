//! Three of the rows over real sockets: the whole scheduler and its client against the mock server.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tollgate::mock::{Latency, Mock, MockConfig, MockLimits, MockShapes};
use tollgate::{Account, Limits, Provider, Scheduler, Shape};

use super::bound::Truth;

const RPM: u64 = 120;
const TPM: u64 = 75_000;
/// When the server's minutes end.
const PHASE: Duration = Duration::from_secs(40);
/// Nearly what two minutes hold.
const REQUESTS: usize = 185;

#[test]
fn nothing_is_refused_and_no_limit_idle_over_real_sockets() {
    let _alone = crate::CORES.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(all_rows());
}

async fn all_rows() {
    let configured = Limits { shape: Some(Shape::Sliding), ..Limits::default() };
    tokio::join!(
        // The margin of half a second weighs three times as much as in two minutes.
        row(Provider::Openai, Shape::Refill, Limits::default(), 1.04),
        row(Provider::Compatible, Shape::Fixed, Limits::default(), 1.05),
        row(Provider::Compatible, Shape::Sliding, configured, 1.03),
    );
}

/// Plays the row of an account that is told its limits, and what else `told` says.
async fn row(provider: Provider, shape: Shape, told: Limits, ratio: f64) {
    let limits = MockLimits { rpm: Some(RPM), tpm: Some(TPM), shapes: MockShapes::all(shape), ..MockLimits::default() };
    let latency = Latency::about(Duration::from_millis(800));
    let config = MockConfig { limits, latency, settle: false, phase: Some(PHASE), ..MockConfig::default() };
    let server = Mock::start(config).await.unwrap();
    let told = Limits { rpm: Some(RPM), tpm: Some(TPM), ..told };
    let account = Account::new(provider).key("sk-x").base_url(server.url()).limits(told);
    let scheduler = Scheduler::builder().account(account).build().unwrap();
    let mut luck = Rng::with_seed(1);
    let calls: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let (scheduler, body) = (scheduler.clone(), chat(&mut luck));
            tokio::spawn(async move { scheduler.chat(&body).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().expect("no request is lost");
    }
    let stats = server.shutdown().await;
    let (first, last) = (stats.first_admission.unwrap(), stats.last_admission.unwrap());
    let least = [(RPM, stats.admitted), (TPM, stats.charged_tokens)]
        .map(|(amount, all)| Truth { amount, shape, phase: PHASE, change: None }.least(all, first))
        .into_iter()
        .fold(0.0, f64::max);
    let (refused, took) = (stats.refused.total(), last - first);
    println!("{shape}: {refused} × 429, {took:.2} s, {:.3} of the least", took / least);
    // On a machine that is busy all the same, one may come later than the margin allows for; in virtual time none does.
    assert!(refused <= 1, "{shape}: {refused} × 429");
    assert_eq!(stats.answered, REQUESTS as u64, "{shape}");
    assert!(took <= least * ratio, "{shape}: {took:.2} s against {least:.2} s");
}

/// As in the other rows: prompts of 400 tokens or so, and caps from 64 to 512.
fn chat(luck: &mut Rng) -> Value {
    let prompt = "word ".repeat(luck.usize(160..=480));
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "max_tokens": luck.u64(64..=512)})
}
