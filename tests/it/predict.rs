//! Outputs that nothing caps: what is reserved for them is learned. All in virtual time.

use std::time::Duration;

use tollgate::engine::{Ask, End, Gates, Guess, Machine, Moment, Predictors, Source, Submitted, Wake};
use tollgate::providers::{Rule, Rules};
use tollgate::{Account, Config, Estimate, Limit, Limits, Provider, Request, Scheduler, Usage};

const OPEN: Estimate = Estimate { input: 100, input_by_chars: 0, output_cap: None, choices: 1 };

fn scheduler(limits: Limits) -> Scheduler {
    Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap()
}

fn wide() -> Limits {
    Limits { tpm: Some(1_000_000), ..Limits::default() }
}

fn request(tag: &str) -> Request {
    Request::new("gpt-4o", OPEN).tag(tag.to_owned())
}

async fn answer(scheduler: &Scheduler, request: Request, output: u64) {
    let mut permit = scheduler.acquire(request).await.unwrap();
    permit.sent();
    permit.settle(Usage::new(100, output));
}

#[tokio::test(start_paused = true)]
async fn the_reservation_follows_the_answers_of_its_tag() {
    let scheduler = scheduler(wide());
    let charge = |tag| scheduler.charge(&request(tag)).unwrap().0.output_tokens;
    assert_eq!(charge("titles"), 500);
    for _ in 0..100 {
        answer(&scheduler, request("titles"), 12).await;
        answer(&scheduler, request("stories"), 3_000).await;
    }
    assert_eq!((charge("titles"), charge("summaries")), (12, 500));
    assert!((2_900..=3_100).contains(&charge("stories")), "{}", charge("stories"));
    let permit = scheduler.acquire(request("titles")).await.unwrap();
    assert_eq!(permit.charge().tokens, 112);
}

#[tokio::test(start_paused = true)]
async fn a_known_cap_neither_uses_nor_teaches_the_guess() {
    let scheduler = scheduler(wide());
    answer(&scheduler, Request::tokens("gpt-4o", 100, 4_000), 3_999).await;
    assert_eq!(scheduler.charge(&Request::new("gpt-4o", OPEN)).unwrap().0.output_tokens, 500);
    answer(&scheduler, Request::new("gpt-4o", OPEN), 9_000).await;
    assert_eq!(scheduler.charge(&Request::tokens("gpt-4o", 100, 4_000)).unwrap().0.output_tokens, 4_000);
    let predictions = scheduler.lane_of("gpt-4o").status.predictions;
    assert_eq!(
        (predictions.requests, predictions.predicted, predictions.used, predictions.covered),
        (1, 500, 9_000, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_charged_by_what_was_learned_meanwhile() {
    let scheduler = scheduler(Limits { tpm: Some(6_000), ..Limits::default() });
    answer(&scheduler, Request::tokens("gpt-4o", 6_000, 0), 0).await;
    let first = scheduler.enqueue(request("a")).await.unwrap();
    let second = scheduler.enqueue(request("a")).await.unwrap();
    let permit = first.await.unwrap();
    assert_eq!(permit.charge().output_tokens, 500);
    permit.settle(Usage::new(100, 900));
    assert!((880..=930).contains(&second.await.unwrap().charge().output_tokens));
}

#[tokio::test(start_paused = true)]
async fn a_guess_never_makes_a_request_too_large() {
    let scheduler = scheduler(Limits { tpm: Some(1_000), ..Limits::default() });
    answer(&scheduler, request("a"), 50_000).await;
    let (charge, too_small) = scheduler.charge(&request("a")).unwrap();
    assert!(too_small.is_none() && (500..=1_000).contains(&charge.tokens), "{charge:?}");
    assert!(scheduler.forecast(request("a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_context_window_bounds_the_guess() {
    let scheduler = scheduler(Limits { context_window: Some(400), ..wide() });
    assert_eq!(scheduler.charge(&request("a")).unwrap().0.output_tokens, 300);
    answer(&scheduler, request("a"), 300).await;
    assert_eq!(scheduler.charge(&request("a")).unwrap().0.output_tokens, 300);
}

#[test]
fn a_quantile_that_is_none_is_refused() {
    for quantile in ["-0.1", "1.5", "nan"] {
        let error = Config::from_toml(&format!("output_quantile = {quantile}")).unwrap_err();
        assert!(error.to_string().contains("from 0 to 1"), "{error}");
    }
}

/// The provider takes input at admission and output at completion, from a bucket of its own that refills.
struct AtCompletion {
    level: f64,
    at: Duration,
    refused: u32,
}

const TPM: f64 = 300_000.0;

impl AtCompletion {
    fn refill(&mut self, now: Duration) {
        self.level = (self.level + (now - self.at).as_secs_f64() * TPM / 60.0).min(TPM);
        self.at = now;
    }
}

/// Plays `requests` without a cap and answers the refusals and the time against the least that real use allows.
fn play(seed: u64, requests: usize) -> (u32, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = Moment::START;
    let mut gates = Gates::new(Provider::Openai, Duration::from_millis(500)).charged_by(Rules::of(&[Rule::Usage]));
    gates.set(&[(Limit::tpm(TPM as u64), Source::Configured)], start);
    gates.answered(start);
    let mut lane = Machine::new(gates, start).predicting(Predictors::new(500, 0.5));
    let guess = Guess { provider: Provider::Anthropic, estimate: OPEN, tag: None, context_window: None };
    let mut due = Vec::new();
    let mut used = 0;
    let output = |random: &mut fastrand::Rng| {
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
        (300f64.ln() - 0.32 + 0.8 * normal).exp() as u64
    };
    for _ in 0..requests {
        let tokens = output(&mut random);
        used += 100 + tokens;
        let ask = Ask { guess: Some(guess.clone().into()), ..Ask::default() };
        match lane.submit(&ask, || tokens, start).unwrap() {
            Submitted::Granted(grant) => due.push(Wake::Granted(grant, tokens)),
            Submitted::Queued(_) => {}
        }
    }
    let mut provider = AtCompletion { level: TPM, at: Duration::ZERO, refused: 0 };
    let mut running = std::collections::BTreeMap::new();
    let (mut now, mut last, mut number) = (Duration::ZERO, Duration::ZERO, 0u32);
    loop {
        let wake_up = lane.poll(start + now, &mut due);
        for wake in due.drain(..) {
            let Wake::Granted(grant, tokens) = wake else { panic!("nothing is refused") };
            provider.refill(now);
            if provider.level < 100.0 {
                provider.refused += 1;
            }
            provider.level -= 100.0;
            let latency = Duration::from_millis(600 + random.u64(0..400) + tokens / 2);
            number += 1;
            last = now;
            running.insert((now + latency, number), (grant, tokens));
        }
        let next = running.keys().next().map(|(at, _)| *at);
        let wake_up = wake_up.map(|at| at - start);
        let Some(at) = [next, wake_up].into_iter().flatten().min() else { break };
        now = at.max(now);
        while let Some(entry) = running.first_entry().filter(|entry| entry.key().0 <= now) {
            let (grant, tokens) = entry.remove();
            provider.refill(now);
            provider.level -= tokens as f64;
            lane.learn(&grant, tokens);
            lane.finish(grant, End::Used(tollgate::Charge::tokens(100, tokens)), &[], start + now);
        }
    }
    let bound = (used as f64 - TPM) * 60.0 / TPM;
    (provider.refused, last.as_secs_f64() / bound)
}

#[test]
fn without_caps_the_limit_is_used_and_never_broken_where_output_is_charged_at_completion() {
    let results: Vec<_> = (0..20).map(|seed| play(seed, 1_500)).collect();
    let worst = results.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
    println!("worst of 20: {worst:.3} of the bound");
    assert!(results.iter().all(|(refused, _)| *refused == 0), "{results:?}");
    assert!(worst <= 1.04, "{results:?}");
}
