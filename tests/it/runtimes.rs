//! Waiting on several runtimes at once: nobody depends on a runtime of others. On the real clock, since each runtime has its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tollgate::{Account, Limits, Permit, Request, Scheduler, Usage};

/// Far more than anybody has to wait here.
const PATIENCE: Duration = Duration::from_secs(20);

/// A scheduler of so many requests a second, all of which are used up.
fn used_up(rps: u64) -> Scheduler {
    let limits = Limits { rps: Some(rps), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    while let Ok(permit) = scheduler.try_acquire(request()) {
        settle(permit);
    }
    scheduler
}

/// A scheduler of one request at a time, and that one.
fn taken() -> (Scheduler, Permit) {
    let limits = Limits { max_concurrent: Some(1), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let permit = scheduler.try_acquire(request()).unwrap();
    (scheduler, permit)
}

fn request() -> Request {
    Request::tokens("gpt-4o", 1, 1)
}

fn settle(permit: Permit) {
    permit.settle(Usage::new(1, 1));
}

async fn call(scheduler: Scheduler) {
    scheduler.submit(request(), |_| async { Ok::<_, std::io::Error>(()) }).await.unwrap();
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn with_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn waiting(scheduler: &Scheduler) -> usize {
    scheduler.snapshot().lanes[0].status.waiting
}

fn until_so_many_wait(scheduler: &Scheduler, requests: usize) {
    let start = Instant::now();
    while waiting(scheduler) < requests {
        assert!(start.elapsed() < PATIENCE, "{} wait", waiting(scheduler));
        thread::yield_now();
    }
}

#[test]
fn a_runtime_that_shuts_down_takes_only_its_own_waiters_with_it() {
    let (scheduler, permit) = taken();
    let (first, second) = (with_threads(), with_threads());
    first.spawn(call(scheduler.clone()));
    until_so_many_wait(&scheduler, 1);
    let other = second.spawn(call(scheduler.clone()));
    until_so_many_wait(&scheduler, 2);
    first.spawn(call(scheduler.clone()));
    until_so_many_wait(&scheduler, 3);
    first.shutdown_timeout(PATIENCE);
    assert_eq!(waiting(&scheduler), 1);
    settle(permit);
    second.block_on(async { timeout(PATIENCE, other).await }).expect("it starts").unwrap();
}

#[test]
fn nobody_waits_for_a_runtime_that_nobody_runs() {
    let scheduler = used_up(1);
    let left = runtime();
    let gave_up = left.block_on(async { timeout(Duration::from_millis(50), call(scheduler.clone())).await });
    assert!(gave_up.is_err());
    runtime().block_on(async { timeout(PATIENCE, call(scheduler.clone())).await }).expect("it starts");
    // Nor when somebody still waits there.
    left.block_on(async {
        drop(tokio::spawn(call(scheduler.clone())));
        tokio::task::yield_now().await;
    });
    runtime().block_on(async { timeout(PATIENCE, call(scheduler.clone())).await }).expect("it starts");
}

#[test]
fn work_that_blocks_one_runtime_holds_up_no_other() {
    let scheduler = used_up(20);
    let (release, released) = mpsc::channel::<()>();
    let blocked = thread::spawn({
        let scheduler = scheduler.clone();
        move || {
            runtime().block_on(async {
                drop(tokio::spawn(call(scheduler)));
                tokio::task::yield_now().await;
                released.recv_timeout(4 * PATIENCE)
            })
        }
    });
    until_so_many_wait(&scheduler, 1);
    let start = Instant::now();
    let others = [(); 3].map(|()| {
        let scheduler = scheduler.clone();
        thread::spawn(move || runtime().block_on(async { timeout(PATIENCE, call(scheduler)).await }))
    });
    for other in others {
        other.join().unwrap().expect("it starts");
    }
    assert!(start.elapsed() < PATIENCE);
    release.send(()).unwrap();
    blocked.join().unwrap().unwrap();
}

#[test]
fn on_a_runtime_without_timers_whoever_has_to_wait_panics_and_leaves_no_place_behind() {
    let (scheduler, _permit) = taken();
    let without = Builder::new_current_thread().build().unwrap();
    let waits = catch_unwind(AssertUnwindSafe(|| without.block_on(call(scheduler.clone()))));
    let message = *waits.unwrap_err().downcast::<String>().unwrap_or_default();
    assert!(message.contains("timers are disabled"), "{message}");
    assert_eq!(waiting(&scheduler), 0);
}

#[test]
fn whoever_waits_for_a_runtime_that_is_gone_panics_as_its_timers_do() {
    let (scheduler, permit) = taken();
    let scheduler = &scheduler;
    let gone = runtime();
    let handle = gone.handle().clone();
    thread::scope(|scope| {
        // As blocking tasks do, which a runtime waits for when it is dropped.
        let wait = || catch_unwind(AssertUnwindSafe(|| handle.block_on(call(scheduler.clone()))));
        let before = scope.spawn(wait);
        until_so_many_wait(scheduler, 1);
        drop(gone);
        assert!(before.join().unwrap().is_err());
        assert!(scope.spawn(wait).join().unwrap().is_err());
    });
    assert_eq!(waiting(scheduler), 0);
    settle(permit);
    runtime().block_on(async { timeout(PATIENCE, call(scheduler.clone())).await }).expect("it starts");
}

#[test]
fn a_waiter_is_served_where_it_is_awaited() {
    let scheduler = used_up(1);
    let left = runtime();
    let first = left.block_on(scheduler.enqueue(request())).unwrap();
    let second = left.block_on(scheduler.enqueue(request())).unwrap();
    scheduler.close();
    let here = runtime();
    for waiter in [first, second] {
        settle(here.block_on(async { timeout(PATIENCE, waiter).await }).expect("it starts").unwrap());
    }
}

#[test]
fn a_waker_that_panics_strands_nobody() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's own");
        }
    }
    let scheduler = used_up(2);
    runtime().block_on(async {
        for _ in 0..3 {
            let mut waiter = std::pin::pin!(scheduler.enqueue(request()).await.unwrap());
            assert!(waiter.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending());
            timeout(PATIENCE, call(scheduler.clone())).await.expect("it starts");
        }
    });
}

#[test]
fn runtimes_that_come_and_go_lose_no_place_and_leave_none_behind() {
    let scheduler = used_up(2_000);
    let start = Instant::now();
    thread::scope(|scope| {
        for worker in 0..4 {
            let scheduler = &scheduler;
            scope.spawn(move || {
                for round in 0..100 {
                    let here = if (worker + round) % 4 == 0 { with_threads() } else { runtime() };
                    let calls: Vec<_> = (0..4).map(|_| here.spawn(call(scheduler.clone()))).collect();
                    let elsewhere = here.block_on(scheduler.enqueue(request())).unwrap();
                    // Of some it sees the end, of others not even the beginning.
                    for call in calls.into_iter().take(round % 5) {
                        here.block_on(call).unwrap();
                    }
                    drop(here);
                    settle(
                        runtime().block_on(async { timeout(PATIENCE, elsewhere).await }).expect("it starts").unwrap(),
                    );
                }
            });
        }
    });
    runtime().block_on(async { timeout(PATIENCE, scheduler.drain()).await }).expect("nothing is left");
    assert_eq!(waiting(&scheduler), 0);
    assert!(start.elapsed() < 3 * PATIENCE, "{:?}", start.elapsed());
}
