//! The scheduler's own cost, as the README quotes it: `cargo bench --all-features --bench figures`.
//!
//! Ratios and counts are taken in one run, since machines differ and are shared. `-- --test` runs everything once, small;
//! `-- submit` (or `grants`, `memory`, `lateness`) only that.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use tollgate::engine::{Ask, End, Gates, Machine, Moment, Source, Wake};
use tollgate::{Account, Charge, Limit, Limits, Provider, Request, Scheduler};

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |figure| only.as_deref().is_none_or(|only| only == figure);
    if wanted("submit") {
        submit(if small { 5 } else { 250 });
    }
    if wanted("grants") {
        let lengths: &[usize] = if small { &[1_000] } else { &[1_000, 100_000, 1_000_000] };
        lengths.iter().for_each(|waiting| grants(*waiting));
    }
    if wanted("memory") {
        bytes_per_waiter(if small { 10_000 } else { 1_000_000 });
    }
    if wanted("lateness") {
        lateness(if small { 50 } else { 1_000 });
    }
}

/// `submit` on an idle lane with three limits against three bare governor checks under one mutex, in turns. The best of so
/// many short rounds: what else the machine does falls on the others.
fn submit(rounds: u32) {
    let calls = 20_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Never reached, and a whole number of nanoseconds per token, as 592 of the 627 limits in the tier table are.
    let (minute, day) = (Some(3_000_000_000), Some(4_320_000_000));
    let limits = Limits { rpm: minute, tpm: minute, tpd: day, ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let quota = Quota::per_second(NonZeroU32::MAX);
    let bare = || RateLimiter::direct_with_clock(quota, FakeRelativeClock::default());
    let bare = Mutex::new([bare(), bare(), bare()]);
    let cost = [NonZeroU32::MIN, NonZeroU32::new(464).unwrap(), NonZeroU32::new(464).unwrap()];
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let start = Instant::now();
        runtime.block_on(async {
            for _ in 0..calls {
                let call = |attempt| {
                    black_box(attempt);
                    std::future::ready(Ok::<_, std::io::Error>(()))
                };
                scheduler.submit(Request::tokens("gpt-4o", 400, 64), call).await.unwrap();
            }
        });
        ours = ours.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
        let start = Instant::now();
        for _ in 0..calls {
            let limiters = bare.lock().unwrap();
            for (limiter, cost) in limiters.iter().zip(cost) {
                let _ = black_box(limiter.check_n(black_box(cost)));
            }
        }
        theirs = theirs.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    println!(
        "submit, idle lane, three limits: {ours:.0} ns; three governor checks: {theirs:.0} ns; {:.1} x",
        ours / theirs
    );
}

fn lane(now: Moment) -> Machine<u32> {
    let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
    let limits = [Limit::rpm(1_000_000_000), Limit::tpm(1_000_000_000), Limit::tpd(1_000_000_000_000)];
    gates.set(&limits.map(|limit| (limit, Source::Configured)), now);
    gates.answered(now);
    Machine::new(gates, now).bounded(Some(0), usize::MAX)
}

fn fill(lane: &mut Machine<u32>, waiting: usize, now: Moment) {
    for index in 0..waiting {
        let tenant = ["search", "mail", "batch"][index % 3].into();
        let ask = Ask { charge: Charge::tokens(400, 64), tenant, ..Ask::default() };
        lane.submit(&ask, || index as u32, now).unwrap();
    }
}

/// Grants and finishes as fast as one core can while so many wait, three tenants taking turns.
fn grants(waiting: usize) {
    let now = Moment::START;
    let mut lane = lane(now);
    fill(&mut lane, waiting, now);
    // Every poll of a lane with one free place grants one request.
    lane = lane.bounded(Some(1), usize::MAX);
    let rounds = waiting.min(100_000);
    let mut due = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        let now = now + Duration::from_millis(round as u64);
        lane.poll(now, &mut due);
        for wake in due.drain(..) {
            let Wake::Granted(grant, _) = wake else { panic!("nothing has a deadline") };
            let used = grant.charge;
            lane.finish(grant, End::Used(used), &[], now);
        }
    }
    let rate = rounds as f64 / start.elapsed().as_secs_f64();
    assert_eq!(lane.waiting(), waiting - rounds);
    println!("{waiting:>9} waiting: {rate:.0} grants/s");
}

/// What a waiter takes besides the caller's future: its place in the queue and its channel.
fn bytes_per_waiter(waiters: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limits = Limits { rpm: Some(1), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    runtime.block_on(async {
        let _first = scheduler.acquire(Request::tokens("gpt-4o", 400, 64)).await.unwrap();
        let mut futures = Vec::with_capacity(waiters);
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
        };
        let before = resident();
        for _ in 0..waiters {
            futures.push(scheduler.enqueue(Request::tokens("gpt-4o", 400, 64)).await.unwrap());
        }
        let own = std::mem::size_of_val(&futures[..]);
        let bytes = (resident() - before).saturating_sub(own) / waiters;
        println!("{bytes} bytes per waiter, {} more in the caller's future", own / waiters);
    });
}

/// How late grants are against the instants at which the limit lets them go, on the real clock.
fn lateness(waiting: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // 200 a second.
    let limits = Limits { rpm: Some(12_000), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let late = runtime.block_on(async {
        let settle = |permit: tollgate::Permit| permit.settle(tollgate::Usage::default());
        while let Ok(permit) = scheduler.try_acquire(Request::tokens("gpt-4o", 1, 1)) {
            settle(permit);
        }
        let mut tasks = Vec::new();
        for _ in 0..waiting {
            let waiter = scheduler.enqueue(Request::tokens("gpt-4o", 1, 1)).await.unwrap();
            let due = Instant::now() + waiter.explain().unwrap().starts_in;
            tasks.push(tokio::spawn(async move {
                let permit = waiter.await.unwrap();
                let late = Instant::now().saturating_duration_since(due);
                permit.settle(tollgate::Usage::default());
                late
            }));
        }
        let mut late = Vec::new();
        for task in tasks {
            late.push(task.await.unwrap());
        }
        late.sort();
        late
    });
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    println!("grants are late by {:.2?} in the middle, {:.2?} at p99", at(0.5), at(0.99));
}
