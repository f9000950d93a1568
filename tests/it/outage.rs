//! When the provider is failing. All in virtual time.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate::engine::Hold;
use tollgate::{Account, AcquireError, Attempt, Class, Config, Error, Limits, Priority, Refusal, Request, Scheduler};

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(800);

fn scheduler(limits: Limits, patience: Duration) -> Scheduler {
    let account = Account::openai().limits(limits);
    let config = Config { accounts: vec![account], outage_patience: patience, ..Config::default() };
    Scheduler::from_config(config).unwrap()
}

fn limited() -> Scheduler {
    scheduler(Limits { rpm: Some(500), tpm: Some(300_000), ..Limits::default() }, 300 * SECOND)
}

fn request() -> Request {
    Request::tokens("gpt-4o", 100, 100)
}

#[derive(Debug)]
struct Failed;

/// One call of a row.
#[derive(Clone, Copy, Debug)]
struct Call {
    row: usize,
    sent: Instant,
    well: bool,
}

/// What a provider saw.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    under_way: HashSet<usize>,
}

impl Log {
    fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    fn failed(&self) -> usize {
        self.calls().iter().filter(|call| !call.well).count()
    }

    /// Answers a call with `status` after `takes`.
    async fn answer(&self, attempt: Attempt, row: usize, status: u16, takes: Duration) -> Result<(), Failed> {
        let well = status < 400;
        {
            let mut seen = self.0.lock().unwrap();
            seen.calls.push(Call { row, sent: Instant::now(), well });
            assert!(seen.under_way.insert(row), "row {row} is sent twice at a time");
        }
        tokio::time::sleep(takes).await;
        self.0.lock().unwrap().under_way.remove(&row);
        let mut headers = HeaderMap::new();
        if status == 503 {
            headers.insert("retry-after", "1".parse().unwrap());
        }
        attempt.answer(status, &headers);
        if well { Ok(()) } else { Err(Failed) }
    }
}

type Row = JoinHandle<Result<(), Error<Failed>>>;

/// Sends a row to a provider that is `down` for some time, in which it fails at once or after `fails_after`.
fn send(
    scheduler: &Scheduler,
    log: &Log,
    row: usize,
    request: Request,
    (status, fails_after): (u16, Duration),
    down: &Range<Instant>,
) -> Row {
    let (scheduler, log, down) = (scheduler.clone(), log.clone(), down.clone());
    tokio::spawn(async move {
        let call = |attempt| {
            let (log, down) = (log.clone(), down.contains(&Instant::now()));
            async move {
                let (status, takes) = if down { (status, fails_after) } else { (200, LATENCY) };
                log.answer(attempt, row, status, takes).await
            }
        };
        scheduler.submit(request, call).await
    })
}

/// A thousand rows; the time that they took and what the provider saw.
async fn thousand(limits: Limits, fails_after: Duration, outage: Range<Duration>) -> (Duration, Log) {
    let (scheduler, log, start) = (scheduler(limits, 300 * SECOND), Log::default(), Instant::now());
    let down = start + outage.start..start + outage.end;
    let rows: Vec<_> =
        (0..1_000).map(|row| send(&scheduler, &log, row, request(), (503, fails_after), &down)).collect();
    for row in rows {
        row.await.unwrap().expect("no row is lost");
    }
    let outages = scheduler.snapshot().lanes[0].counters.outages;
    assert_eq!(outages, u64::from(log.failed() > 0), "opened once");
    (start.elapsed(), log)
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_half_a_minute_costs_no_row_and_few_calls() {
    let by_rate = Limits { rpm: Some(500), tpm: Some(300_000), ..Limits::default() };
    let by_places = Limits { max_concurrent: Some(8), ..Limits::default() };
    let one_by_one = Limits { max_concurrent: Some(1), ..Limits::default() };
    for (limits, fails_after) in [
        (by_rate, Duration::ZERO),
        (by_rate, LATENCY),
        (by_rate, 3 * SECOND),
        (by_places, Duration::ZERO),
        (one_by_one, Duration::ZERO),
    ] {
        let never = Duration::ZERO..Duration::ZERO;
        let (without, _) = thousand(limits, fails_after, never).await;
        let start = Instant::now();
        let (with, log) = thousand(limits, fails_after, 5 * SECOND..35 * SECOND).await;
        let calls = log.calls();
        let first_good = calls.iter().find(|call| call.well && call.sent - start >= 35 * SECOND).unwrap().sent - start;
        // Eight are in flight at eight a second, or in eight places.
        let in_flight = 8 * fails_after.as_secs_f64().max(1.0) as usize;
        assert!(log.failed() <= 10 + in_flight, "{limits:?} {fails_after:?}: {} calls failed", log.failed());
        assert!(with <= without + 40 * SECOND, "{limits:?} {fails_after:?}: {with:?} instead of {without:?}");
        assert!(first_good <= 40 * SECOND, "{limits:?} {fails_after:?}: first good call at {first_good:?}");
        println!(
            "{fails_after:?}: {} failed calls, first good at {first_good:?}, {with:?} for {without:?}",
            log.failed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_in_five_calls_that_fails_by_chance_costs_no_row_and_few_calls() {
    let luck = Arc::new(Mutex::new(fastrand::Rng::with_seed(11)));
    let (scheduler, log) = (scheduler(Limits { rpm: Some(3_000), ..Limits::default() }, 300 * SECOND), Log::default());
    let rows: Vec<_> = (0..2_000)
        .map(|row| {
            let (scheduler, log, luck) = (scheduler.clone(), log.clone(), luck.clone());
            tokio::spawn(async move {
                let call = |attempt| {
                    let (log, drawn) = (log.clone(), luck.lock().unwrap().f64());
                    async move {
                        let (status, takes) = match drawn {
                            ..0.05 => (500, Duration::ZERO),
                            ..0.1 => (502, LATENCY / 2),
                            ..0.15 => (504, 2 * LATENCY),
                            ..0.2 => (500, 30 * SECOND),
                            _ => (200, LATENCY),
                        };
                        log.answer(attempt, row, status, takes).await
                    }
                };
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    let start = Instant::now();
    for row in rows {
        row.await.unwrap().expect("no row is lost");
    }
    let (calls, outages) = (log.calls().len(), scheduler.snapshot().lanes[0].counters.outages);
    assert!(calls as f64 <= 1.35 * 2_000.0, "{calls} calls");
    assert!(outages <= 2, "opened {outages} times");
    println!("{calls} calls, opened {outages} times, {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_make_it_is_told_at_once_and_the_others_keep_their_order() {
    let (scheduler, log, start) = (limited(), Log::default(), Instant::now());
    let down = start + SECOND..start + 10 * SECOND;
    send(&scheduler, &log, 0, request(), (500, Duration::ZERO), &down).await.unwrap().unwrap();
    tokio::time::sleep_until(start + SECOND).await;
    // A burst that opens the breaker, and those who wait behind it.
    let burst: Vec<_> =
        (1..8).map(|row| send(&scheduler, &log, row, request(), (500, Duration::ZERO), &down)).collect();
    tokio::time::sleep(SECOND / 10).await;
    let status = scheduler.lane_of("gpt-4o").status;
    let breaker = status.breaker.expect("seven failures in a row");
    assert_eq!(breaker.last, Class::ServerError);
    let told = scheduler.forecast(request()).await.unwrap();
    assert_eq!((told.held_by, told.starts_in), (Some(Hold::Breaker), breaker.probe_in));
    let hasty = scheduler.acquire(request().max_wait(SECOND)).await.unwrap_err();
    let AcquireError::Refused(Refusal::BreakerOpen { last, probe_in }) = hasty else { panic!("{hasty:?}") };
    assert_eq!((last, probe_in), (Class::ServerError, breaker.probe_in));
    assert!(hasty.to_string().contains("the provider is failing (server error)"), "{hasty}");

    let waiting: Vec<_> = [(Priority::Low, 20), (Priority::Normal, 21), (Priority::High, 22), (Priority::Normal, 23)]
        .into_iter()
        .map(|(priority, row)| send(&scheduler, &log, row, request().priority(priority), (500, Duration::ZERO), &down))
        .collect();
    let patient = send(&scheduler, &log, 30, request().max_wait(3 * SECOND), (500, Duration::ZERO), &down);
    tokio::time::sleep(5 * SECOND / 2).await;
    // The probe has failed; the next one is four seconds later.
    assert!(patient.is_finished(), "its deadline is before that");
    let error = patient.await.unwrap().unwrap_err();
    let Error::Refused { reason: AcquireError::Refused(Refusal::BreakerOpen { .. }), .. } = error else {
        panic!("{error:?}")
    };
    for row in burst.into_iter().chain(waiting) {
        row.await.unwrap().unwrap();
    }
    let good: Vec<_> = log.calls().iter().filter(|call| call.well).map(|call| call.row).collect();
    let place = |row| good.iter().position(|other| *other == row).unwrap();
    assert!(place(21) < place(23) && place(23) < place(20), "{good:?}");
    assert!((1..8).all(|row| place(row) < place(21)), "those who came first go first: {good:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_does_not_end_is_told_to_everybody_after_their_patience() {
    let (scheduler, log, start) = (
        scheduler(Limits { max_concurrent: Some(20), ..Limits::default() }, 60 * SECOND),
        Log::default(),
        Instant::now(),
    );
    let down = start..start + 200 * SECOND;
    let rows: Vec<_> = (0..1_000).map(|row| send(&scheduler, &log, row, request(), (500, LATENCY), &down)).collect();
    for row in rows {
        let error = row.await.unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::Refused { reason: AcquireError::Refused(Refusal::BreakerOpen { .. }), .. }),
            "{error:?}"
        );
    }
    assert!((60.0..62.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert!(log.calls().len() <= 20 + 15, "{} calls", log.calls().len());
    // From then on nobody waits, and one now and then may look.
    let mut refused = 0;
    loop {
        match send(&scheduler, &log, 5_000, request(), (500, LATENCY), &down).await.unwrap() {
            Ok(()) => break,
            Err(_) => refused += 1,
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(refused > 50 && start.elapsed() < 206 * SECOND, "{refused} {:?}", start.elapsed());
    assert!(scheduler.lane_of("gpt-4o").status.breaker.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_makes_the_provider_fail_does_not_keep_the_others_from_it() {
    let (scheduler, log, start) = (limited(), Log::default(), Instant::now());
    let down = start + SECOND..start + 6 * SECOND;
    send(&scheduler, &log, 0, request(), (500, Duration::ZERO), &down).await.unwrap().unwrap();
    tokio::time::sleep_until(start + SECOND).await;
    // First in the queue, and it fails whatever the time.
    let poison = send(
        &scheduler,
        &log,
        1,
        request().priority(Priority::High),
        (500, Duration::ZERO),
        &(start..start + 9_999 * SECOND),
    );
    let rows: Vec<_> =
        (2..50).map(|row| send(&scheduler, &log, row, request(), (500, Duration::ZERO), &down)).collect();
    for row in rows {
        row.await.unwrap().unwrap();
    }
    assert!(start.elapsed() < 20 * SECOND, "{:?}", start.elapsed());
    let error = poison.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Call { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_while_everybody_does_are_not_counted() {
    let scheduler = limited();
    let (log, start) = (Log::default(), Instant::now());
    let down = start + SECOND..start + 121 * SECOND;
    send(&scheduler, &log, 0, request(), (500, Duration::ZERO), &down).await.unwrap().unwrap();
    tokio::time::sleep_until(start + SECOND).await;
    let rows: Vec<_> = (1..7).map(|row| send(&scheduler, &log, row, request(), (500, Duration::ZERO), &down)).collect();
    for row in rows {
        row.await.unwrap().expect("two minutes of probes by six rows of six attempts");
    }
    assert!((25..=38).contains(&log.failed()), "{} failed", log.failed());
}
