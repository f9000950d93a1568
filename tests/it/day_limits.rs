//! A limit of a day that is used up is left alone until its day is over. All in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tollgate::engine::{Ask, End, Gates, Machine, Moment, Refusal, Source, Submitted, Wake};
use tollgate::providers::{Failure, Observation, classify, until_pacific_midnight};
use tollgate::{
    Account, AcquireError, Attempt, Charge, Error, Event, Limit, Limits, Provider, Request, Scheduler, Shape,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn gemini_body(amount: &str) -> String {
    format!(
        r#"{{"error": {{"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Please retry in 12s.", "details": [
            {{"violations": [{{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"{amount}}}]}},
            {{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"}}]}}}}"#
    )
}

fn gemini(amount: u64) -> Failure {
    let body = gemini_body(&format!(r#", "quotaValue": "{amount}""#));
    classify(Provider::Gemini, 429, &Observation::default(), body.as_bytes())
}

fn worded(provider: Provider, message: &str) -> Failure {
    let body = format!(r#"{{"error": {{"message": "Rate limit reached {message}", "code": "rate_limit_exceeded"}}}}"#);
    classify(provider, 429, &Observation::default(), body.as_bytes())
}

fn one() -> Ask {
    Ask { charge: Charge::tokens(1, 0), ..Ask::default() }
}

/// A lane at that time of day; `2026-08-19T19:00:00Z` is noon of the Pacific.
fn lane(provider: Provider, limits: &[Limit], wall: &str) -> (Machine<()>, Moment) {
    let (now, wall) = (Moment::START, SystemTime::try_from(wall.parse::<jiff::Timestamp>().unwrap()).unwrap());
    let mut gates = Gates::new(provider, SECOND / 2).at_time_of_day(now, wall);
    gates.set(&limits.iter().map(|limit| (*limit, Source::Configured)).collect::<Vec<_>>(), now);
    gates.answered(now);
    (Machine::new(gates, now), now)
}

/// Sends one request and has it refused; answers when the next one can start.
fn refuse(lane: &mut Machine<()>, failure: &Failure, sent: Moment, now: Moment) -> Duration {
    let Ok(Submitted::Granted(grant)) = lane.submit(&one(), || (), sent) else { panic!("it is held") };
    let charge = grant.charge;
    lane.finish(grant, End::Refused, &[], now);
    lane.answered(now);
    lane.refused(failure, &charge, sent, SECOND, now);
    lane.try_forecast(&one(), now).unwrap().starts_in
}

#[test]
fn geminis_day_lasts_until_midnight_pacific_whatever_delay_it_names() {
    for configured in [&[][..], &[Limit::rpd(200)]] {
        let (mut lane, noon) = lane(Provider::Gemini, configured, "2026-08-19T19:00:00Z");
        let starts_in = refuse(&mut lane, &gemini(200), noon, noon);
        assert!((12 * HOUR..12 * HOUR + 5 * SECOND).contains(&starts_in), "{starts_in:?}");
        let gate = &lane.status(noon).gates[0];
        assert_eq!((gate.limit.amount, gate.left), (200, 0), "{gate:?}");
        assert_eq!(lane.try_forecast(&one(), noon + 11 * HOUR).unwrap().starts_in, starts_in - 11 * HOUR);
    }
}

#[test]
fn the_next_day_begins_with_one_request_and_goes_on_when_that_is_answered() {
    let (mut lane, noon) = lane(Provider::Gemini, &[Limit::rpd(200)], "2026-08-19T19:00:00Z");
    let midnight = noon + refuse(&mut lane, &gemini(200), noon, noon) + SECOND;
    let Ok(Submitted::Granted(grant)) = lane.submit(&one(), || (), midnight) else { panic!("a new day") };
    assert!(matches!(lane.submit(&one(), || (), midnight), Ok(Submitted::Queued(_))), "the clocks may differ");
    lane.finish(grant, End::Unknown, &[], midnight + SECOND);
    lane.answered(midnight);
    let mut out = Vec::new();
    lane.poll(midnight + SECOND, &mut out);
    assert!(matches!(out[..], [Wake::Granted(..)]));
    assert_eq!(lane.status(midnight + SECOND).gates[0].left, 198);
}

#[test]
fn a_refusal_of_yesterdays_request_holds_nobody_today() {
    let (mut lane, evening) = lane(Provider::Gemini, &[Limit::rpd(200)], "2026-08-20T06:59:58Z");
    assert_eq!(refuse(&mut lane, &gemini(200), evening, evening + 6 * SECOND), Duration::ZERO);
}

#[test]
fn a_refusal_just_after_midnight_may_be_of_a_clock_that_is_late_and_is_looked_into_ever_more_seldom() {
    let (mut lane, start) = lane(Provider::Gemini, &[Limit::rpd(200)], "2026-08-20T06:59:00Z");
    let (mut now, mut looks) = (start + MINUTE + 10 * SECOND, Vec::new());
    while now < start + 20 * HOUR {
        let wait = refuse(&mut lane, &gemini(200), now, now);
        looks.push(wait.as_secs() / 60);
        now += wait;
    }
    assert_eq!(looks[..5], [1, 1, 2, 4, 9], "minutes");
    assert!(looks.len() <= 8 && looks.last() > Some(&1_300), "{looks:?}");
}

#[test]
fn a_day_that_refills_without_a_named_wait_is_left_until_the_request_fits() {
    let told = "for m on requests per day (RPD): Limit 200, Used 200, Requested 1.";
    for provider in [Provider::Openai, Provider::Groq] {
        let (mut lane, now) = lane(provider, &[], "2026-08-19T19:00:00Z");
        let starts_in = refuse(&mut lane, &worded(provider, told), now, now);
        assert!((432 * SECOND..440 * SECOND).contains(&starts_in), "{starts_in:?}");
    }
}

#[test]
fn a_wait_that_a_refilling_day_names_is_kept() {
    for (provider, wait) in [(Provider::Openai, "8.64s"), (Provider::Groq, "7m12s")] {
        let told = format!("on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in {wait}.");
        let (mut lane, now) = lane(provider, &[], "2026-08-19T19:00:00Z");
        let starts_in = refuse(&mut lane, &worded(provider, &told), now, now);
        let wait = tollgate::providers::parse_duration(wait).unwrap();
        assert!((wait..wait + SECOND).contains(&starts_in), "{starts_in:?}");
    }
}

#[test]
fn a_day_whose_end_nobody_knows_is_looked_at_once_an_hour_by_one_request() {
    let told = "on tokens per day (TPD): Limit 200, Used 200, Requested 1.";
    for (provider, shape) in [(Provider::Compatible, None), (Provider::Openai, Some(Shape::Sliding))] {
        let limit = Limit { shape, ..Limit::tpd(200) };
        let (mut lane, now) = lane(provider, &[limit], "2026-08-19T19:00:00Z");
        let look = refuse(&mut lane, &worded(provider, told), now, now);
        assert!((HOUR..HOUR + SECOND).contains(&look), "{look:?}");
        assert!(matches!(lane.submit(&one(), || (), now + look), Ok(Submitted::Granted(_))));
        assert!(matches!(lane.submit(&one(), || (), now + look), Ok(Submitted::Queued(_))));
    }
}

#[test]
fn a_day_limit_without_a_number_holds_the_one_that_is_known_or_pauses_the_lane() {
    let unnumbered = classify(Provider::Gemini, 429, &Observation::default(), gemini_body("").as_bytes());
    for (configured, wait) in [(&[Limit::rpd(200)][..], 12 * HOUR), (&[], HOUR)] {
        let (mut lane, noon) = lane(Provider::Gemini, configured, "2026-08-19T19:00:00Z");
        assert_eq!(refuse(&mut lane, &unnumbered, noon, noon).as_secs() / 60, wait.as_secs() / 60);
    }
}

#[test]
fn who_waits_and_cannot_make_it_is_refused_as_soon_as_that_is_known() {
    let (mut lane, noon) = lane(Provider::Gemini, &[Limit::rpm(1), Limit::rpd(200)], "2026-08-19T19:00:00Z");
    let Ok(Submitted::Granted(grant)) = lane.submit(&one(), || (), noon) else { panic!("it fits") };
    for deadline in [HOUR, DAY] {
        let ask = Ask { deadline: Some(noon + deadline), ..one() };
        assert!(matches!(lane.submit(&ask, || (), noon), Ok(Submitted::Queued(_))));
    }
    lane.finish(grant, End::Refused, &[], noon + SECOND);
    lane.refused(&gemini(200), &one().charge, noon, SECOND, noon + SECOND);
    let mut out = Vec::new();
    lane.poll(noon + SECOND, &mut out);
    let [Wake::Refused(Refusal::Deadline { starts_in, binding: Some(Limit { window: DAY, .. }) }, ())] = out[..] else {
        panic!("{out:?}")
    };
    assert!(starts_in > 11 * HOUR && lane.waiting() == 1, "{starts_in:?}");
}

/// A zone where it is about noon.
fn noon() -> Shape {
    let until_midnight = until_pacific_midnight(SystemTime::now()).unwrap().as_secs() as i64 / 60;
    // Pacific time is 7 or 8 hours behind, and a quarter of an hour does not matter.
    let east = until_midnight - 12 * 60 - 450;
    let sign = if east < 0 { '-' } else { '+' };
    format!("calendar:{sign}{:02}:{:02}", east.abs() / 60, east.abs() % 60).parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn after_the_first_refusal_for_a_day_nothing_is_sent_and_who_cannot_wait_is_told_so() {
    for (rpd, used_before, rpm) in [(Some(200), 150, 60), (None, 9_900, 1_000), (None, 0, 1_000)] {
        // A limit that nobody configured ends with the provider's own day. In its first hour a refusal may be of the day before,
        // and in its last ones nobody's patience is too short: what holds then is tested above, at times that are chosen.
        let left = rpd.map_or_else(|| until_pacific_midnight(SystemTime::now()).unwrap(), |_| 12 * HOUR);
        if left < 3 * HOUR || left > 22 * HOUR {
            continue;
        }
        let limits = Limits { rpm: Some(rpm), rpd, day_shape: Some(noon()), ..Limits::default() };
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let events = told.clone();
        let scheduler = Scheduler::builder()
            .account(Account::new(Provider::Gemini).limits(limits))
            .on_event(move |event| {
                if let Event::BudgetUsed { percent, .. } = event {
                    events.lock().unwrap().push(*percent);
                }
            })
            .build()
            .unwrap();
        let amount = if used_before > 200 { 10_000 } else { 200 };
        let (used, late) = (Arc::new(AtomicU64::new(used_before)), Arc::new(AtomicU64::new(0)));
        let refused_at = Arc::new(std::sync::OnceLock::new());
        let call = {
            let (used, late, refused_at) = (used.clone(), late.clone(), refused_at.clone());
            move |attempt: Attempt| {
                let (number, late, refused_at) = (used.fetch_add(1, Relaxed), late.clone(), refused_at.clone());
                async move {
                    late.fetch_add(u64::from(refused_at.get().is_some()), Relaxed);
                    tokio::time::sleep(SECOND / 5).await;
                    attempt.answer(if number < amount { 200 } else { 429 }, &HeaderMap::new());
                    if number < amount {
                        return Ok(());
                    }
                    attempt.error_body(gemini_body(&format!(r#", "quotaValue": "{amount}""#)).as_bytes());
                    refused_at.get_or_init(tokio::time::Instant::now);
                    Err("refused")
                }
            }
        };
        let request = || Request::tokens("m", 1, 1);
        let tasks: Vec<_> = (0..2_000)
            .map(|i| {
                let (scheduler, call) = (scheduler.clone(), call.clone());
                let request = if i % 2 == 0 { request() } else { request().max_wait(HOUR) };
                tokio::spawn(async move { scheduler.submit(request, call).await })
            })
            .collect();
        let quiet = (left - HOUR * 3 / 2).min(6 * HOUR);
        tokio::time::sleep(quiet).await;
        assert_eq!(late.load(Relaxed), 0, "RPD {rpd:?}, {used_before} used before");
        assert!(tasks.iter().skip(1).step_by(2).all(|task| task.is_finished()), "nobody's hour lasts longer");
        let error = scheduler.submit(request().max_wait(HOUR), call.clone()).await.unwrap_err();
        let Error::Refused { reason: AcquireError::Refused(Refusal::Deadline { binding, .. }), .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(binding.map(|limit| limit.name()).as_deref(), Some("RPD"));
        assert!(told.lock().unwrap().contains(&80) && told.lock().unwrap().contains(&100), "{:?}", told.lock());
        used.store(0, Relaxed);
        tokio::time::sleep(left - quiet + HOUR).await;
        assert!(used.load(Relaxed) >= 200, "a new day");
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
