//! One scheduler, many tasks.

use std::time::Duration;

use tokio::time::Instant;
use tollgate::{Account, Limits, Request, Scheduler, Usage};

#[tokio::test(start_paused = true)]
async fn a_pool_of_workers_shares_one_limit_and_everybody_is_served() {
    let limits = Limits { rpm: Some(600), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let start = Instant::now();
    let workers: Vec<_> = (0..20)
        .map(|worker| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                for _ in 0..60 {
                    let request = Request::tokens("gpt-4o", 10, 10).tenant(format!("worker {}", worker % 3));
                    let mut permit = scheduler.acquire(request).await.unwrap();
                    permit.sent();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    permit.settle(Usage::new(10, 5));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    // 1,200 requests: 600 at once, 600 at ten a second, and the margin.
    let elapsed = start.elapsed().as_secs_f64();
    assert!((60.0..61.5).contains(&elapsed), "{elapsed}");
    assert_eq!(scheduler.snapshot().lanes[0].status.gates[0].spent, 1_200);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_by_weight() {
    let limits = Limits { tpm: Some(60_000), ..Limits::default() };
    let account = Account::openai().limits(limits);
    let scheduler = Scheduler::builder().account(account).tenant_weight("gold", 3).build().unwrap();
    scheduler.acquire(Request::tokens("gpt-4o", 60_000, 0)).await.unwrap().settle(Usage::new(60_000, 0));
    let mut waiters = Vec::new();
    for tenant in ["plain", "gold"] {
        for _ in 0..400 {
            let request = Request::tokens("gpt-4o", 500, 0).tenant(tenant);
            waiters.push((tenant, scheduler.enqueue(request).await.unwrap()));
        }
    }
    let counts = std::sync::Arc::new(std::sync::Mutex::new([0, 0]));
    for (tenant, waiter) in waiters {
        let counts = counts.clone();
        tokio::spawn(async move {
            if let Ok(permit) = waiter.await {
                counts.lock().unwrap()[usize::from(tenant == "gold")] += 1;
                permit.settle(Usage::new(500, 0));
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let [plain, gold] = *counts.lock().unwrap();
    assert!((2.8..3.2).contains(&(f64::from(gold) / f64::from(plain))), "{gold} {plain}");
}
