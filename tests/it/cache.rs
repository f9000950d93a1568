//! Identical requests are answered once: from memory, from disk, or by the call of the one that came first.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::mock::{Faults, Latency, Mock, MockConfig};
use tollgate::{
    Account, CacheConfig, CacheStats, Cached, Error, Fallback, Limits, Lookup, Priority, Provider, Reply, Request,
    RetryPolicy, Scheduler, Unsupported,
};

const KEY: &str = "sk-canary-0123456789abcdef";

async fn mock(config: MockConfig) -> Mock {
    Mock::start(config).await.unwrap()
}

fn slow(milliseconds: u64) -> MockConfig {
    MockConfig { latency: Latency::about(Duration::from_millis(milliseconds)), ..MockConfig::default() }
}

fn failing() -> MockConfig {
    MockConfig { faults: Faults { error_500: 1.0, ..Faults::default() }, ..MockConfig::default() }
}

fn with(url: &str, cache: CacheConfig, limits: Limits) -> Scheduler {
    let retry = RetryPolicy { max_attempts: 2, base: Duration::from_millis(1), cap: Duration::from_millis(5) };
    let account = Account::openai().key(KEY).base_url(url).limits(limits);
    Scheduler::builder().account(account).retry(retry).cache(cache).build().unwrap()
}

fn scheduler(url: &str) -> Scheduler {
    with(url, CacheConfig::default(), Limits::default())
}

fn in_folder(url: &str, folder: &Path) -> Scheduler {
    with(url, CacheConfig { folder: Some(folder.to_owned()), ..CacheConfig::default() }, Limits::default())
}

fn ask(text: &str) -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 20, "temperature": 0})
}

async fn send(scheduler: &Scheduler, request: Request) -> Result<Reply, Error<tollgate::ClientError>> {
    scheduler.send(request, "/chat/completions", ask("x").to_string()).await
}

fn stats(scheduler: &Scheduler) -> CacheStats {
    scheduler.cache_stats().unwrap()
}

#[tokio::test]
async fn sixty_four_identical_requests_at_once_are_one_call() {
    let provider = mock(slow(100)).await;
    let scheduler = scheduler(&provider.url());
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.chat(&ask("the same")).await.unwrap() })
        })
        .collect();
    let mut bodies = Vec::new();
    let mut own = 0;
    for call in calls {
        let reply = call.await.unwrap();
        own += u32::from(reply.cached().is_none());
        bodies.push(reply.body);
    }
    assert_eq!((provider.stats().requests, own), (1, 1));
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!((stats(&scheduler).shared, stats(&scheduler).missed), (63, 1));
    assert_eq!(scheduler.snapshot().lanes[0].status.admitted, 1, "the others cost no quota");
}

#[tokio::test]
async fn a_hit_needs_no_quota_and_no_wait() {
    let provider = mock(MockConfig::default()).await;
    let limits = Limits { rpm: Some(1), ..Limits::default() };
    let scheduler = with(&provider.url(), CacheConfig::default(), limits);
    let first = scheduler.chat(&ask("a")).await.unwrap();
    let turned = json!({"temperature": 0.0, "max_tokens": 2e1, "messages": ask("a")["messages"], "model": "gpt-4o"});
    let begun = Instant::now();
    let second = scheduler.chat(&turned).await.unwrap();
    // The lane has nothing left for a minute.
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((second.cached(), second.attempts), (Some(Cached::Fresh), 0));
    assert_eq!((&second.body, second.usage, &second.request_id), (&first.body, first.usage, &first.request_id));
    let embeddings = json!({"model": "text-embedding-3-small", "input": "a"});
    scheduler.embeddings(&embeddings).await.unwrap();
    assert_eq!(scheduler.embeddings(&embeddings).await.unwrap().cached(), Some(Cached::Fresh));
}

#[tokio::test]
async fn sampled_answers_are_not_kept_unless_asked() {
    let provider = mock(MockConfig::default()).await;
    let mut body = ask("a");
    body.as_object_mut().unwrap().remove("temperature");
    for (sampled, calls) in [(false, 2), (true, 1)] {
        let cache = CacheConfig { sampled, ..CacheConfig::default() };
        let scheduler = with(&provider.url(), cache, Limits::default());
        let before = provider.stats().requests;
        for _ in 0..2 {
            scheduler.chat(&body).await.unwrap();
        }
        assert_eq!(provider.stats().requests - before, calls, "sampled: {sampled}");
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_others_answers_unless_allowed() {
    let provider = mock(MockConfig::default()).await;
    for (across_tenants, calls) in [(false, 2), (true, 1)] {
        let cache = CacheConfig { across_tenants, ..CacheConfig::default() };
        let scheduler = with(&provider.url(), cache, Limits::default());
        let before = provider.stats().requests;
        for tenant in ["a", "b", "a"] {
            send(&scheduler, Request::chat(&ask("x")).tenant(tenant)).await.unwrap();
        }
        assert_eq!(provider.stats().requests - before, calls, "across: {across_tenants}");
    }
}

#[tokio::test]
async fn a_follower_that_is_cancelled_hurts_nobody() {
    let provider = mock(slow(200)).await;
    let scheduler = scheduler(&provider.url());
    let ask = |()| {
        let scheduler = scheduler.clone();
        tokio::spawn(async move { scheduler.chat(&ask("a")).await.unwrap() })
    };
    let leader = ask(());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (gone, stays) = (ask(()), ask(()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    gone.abort();
    assert_eq!(leader.await.unwrap().cached(), None);
    assert_eq!(stays.await.unwrap().cached(), Some(Cached::Shared));
    assert_eq!(provider.stats().requests, 1);
}

#[tokio::test]
async fn when_the_leader_is_cancelled_one_follower_takes_over() {
    let provider = mock(slow(200)).await;
    let scheduler = scheduler(&provider.url());
    let ask = |()| {
        let scheduler = scheduler.clone();
        tokio::spawn(async move { scheduler.chat(&ask("a")).await.unwrap() })
    };
    let leader = ask(());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let followers: Vec<_> = (0..10).map(|_| ask(())).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    leader.abort();
    let mut own = 0;
    for follower in followers {
        own += u32::from(follower.await.unwrap().cached().is_none());
    }
    assert_eq!((own, provider.stats().requests), (1, 2));
}

#[tokio::test]
async fn what_the_provider_refuses_is_shared_and_what_is_the_leaders_own_is_not() {
    let provider = mock(MockConfig { keys: Some(vec!["sk-other".into()]), ..slow(100) }).await;
    let scheduler = scheduler(&provider.url());
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.chat(&ask("a")).await.unwrap_err() })
        })
        .collect();
    let mut shared = 0;
    for call in calls {
        let error = call.await.unwrap();
        assert_eq!(error.failure().unwrap().status, 401);
        assert!(!format!("{error:?}").contains("canary"));
        shared += u32::from(matches!(error, Error::Shared { attempts: 1, .. }));
    }
    assert_eq!((provider.stats().unauthorised, shared), (1, 7));

    // The leader has less patience than the others, and the lane no room for either.
    let provider = mock(MockConfig::default()).await;
    let limits = Limits { rps: Some(1), ..Limits::default() };
    let scheduler = with(&provider.url(), CacheConfig::default(), limits);
    scheduler.chat(&ask("before")).await.unwrap();
    let [hasty, patient] = [Duration::from_millis(20), Duration::from_secs(30)]
        .map(|wait| send(&scheduler, Request::chat(&ask("x")).max_wait(wait)));
    let (hasty, patient) = tokio::join!(hasty, patient);
    assert!(matches!(hasty, Err(Error::Refused { .. })), "{hasty:?}");
    assert_eq!(patient.unwrap().cached(), None);
}

#[tokio::test]
async fn a_follower_waits_no_longer_for_a_start_than_its_own_patience() {
    let provider = mock(MockConfig::default()).await;
    let limits = Limits { rpm: Some(1), ..Limits::default() };
    let scheduler = with(&provider.url(), CacheConfig::default(), limits);
    scheduler.chat(&ask("before")).await.unwrap();
    let leader = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { send(&scheduler, Request::chat(&ask("x"))).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begun = Instant::now();
    let error = send(&scheduler, Request::chat(&ask("x")).max_wait(Duration::from_millis(100))).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!((100..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert!(!leader.is_finished());
    leader.abort();
}

#[tokio::test]
async fn an_urgent_request_does_not_wait_behind_an_identical_one_that_can_wait() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url());
    let body = ask("x").to_string();
    let low = Request::chat(&ask("x")).priority(Priority::Low);
    let Lookup::Miss(lead) = scheduler.lookup(&low, "/chat/completions", body.as_bytes()).await else { panic!() };
    let urgent = send(&scheduler, Request::chat(&ask("x")).priority(Priority::High)).await.unwrap();
    assert_eq!(urgent.cached(), None);
    drop(lead);
    assert_eq!(send(&scheduler, low).await.unwrap().cached(), Some(Cached::Fresh));
}

#[tokio::test]
async fn in_an_outage_an_old_answer_is_given_where_that_is_allowed_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for stale_if_error in [Duration::ZERO, Duration::from_secs(60)] {
        let cache = CacheConfig {
            folder: Some(folder.path().to_owned()),
            ttl: Duration::from_millis(50),
            stale_if_error,
            ..CacheConfig::default()
        };
        let provider = mock(MockConfig::default()).await;
        let address = provider.url().parse::<http::Uri>().unwrap().authority().unwrap().as_str().parse().unwrap();
        let scheduler = with(&provider.url(), cache, Limits::default());
        scheduler.chat(&ask("a")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let good = scheduler.chat(&ask("a")).await.unwrap();
        assert_eq!(good.cached(), None, "an old answer is asked for anew");
        tokio::time::sleep(Duration::from_millis(60)).await;
        provider.shutdown().await;
        let down = mock(MockConfig { listen: address, ..failing() }).await;
        match scheduler.chat(&ask("a")).await {
            Ok(reply) => {
                assert!(!stale_if_error.is_zero());
                assert_eq!((reply.cached(), reply.body), (Some(Cached::Stale), good.body));
            }
            Err(error) => assert!(stale_if_error.is_zero() && error.failure().unwrap().status == 500, "{error:?}"),
        }
        let error = scheduler.chat(&ask("never asked")).await.unwrap_err();
        assert_eq!(error.failure().unwrap().status, 500);
        down.shutdown().await;
    }
}

#[tokio::test]
async fn answers_come_back_from_disk_in_the_next_run_and_hold_no_key_and_no_prompt() {
    let (provider, folder) = (mock(MockConfig::default()).await, tempfile::tempdir().unwrap());
    let scheduler = in_folder(&provider.url(), folder.path());
    let first = scheduler.chat(&ask("a question that nobody else need see")).await.unwrap();
    drop(scheduler);
    let scheduler = in_folder(&provider.url(), folder.path());
    assert!(scheduler.cache_warnings().is_empty(), "{:?}", scheduler.cache_warnings());
    let second = scheduler.chat(&ask("a question that nobody else need see")).await.unwrap();
    assert_eq!((second.cached(), second.body), (Some(Cached::Fresh), first.body));
    assert_eq!(provider.stats().requests, 1);
    drop(scheduler);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("chat.completion") && !holds("canary") && !holds("nobody else"), "{}", path.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn the_folder_holds_no_more_than_it_may_and_the_oldest_go_first() {
    let (provider, folder) = (mock(MockConfig::default()).await, tempfile::tempdir().unwrap());
    let config =
        || CacheConfig { folder: Some(folder.path().to_owned()), folder_bytes: 100_000, ..CacheConfig::default() };
    let scheduler = with(&provider.url(), config(), Limits::default());
    for index in 0..200 {
        scheduler.chat(&ask(&format!("question {index}"))).await.unwrap();
        scheduler.save_cache().await;
    }
    drop(scheduler);
    let scheduler = with(&provider.url(), config(), Limits::default());
    let mut kept = Vec::new();
    for index in 0..200 {
        let (body, request) = (ask(&format!("question {index}")), Request::chat(&ask(&format!("question {index}"))));
        let found = scheduler.lookup(&request, "/chat/completions", body.to_string().as_bytes()).await;
        kept.push(matches!(found, Lookup::Hit(_)));
    }
    let count = kept.iter().filter(|kept| **kept).count();
    assert!((50..150).contains(&count) && kept[200 - count..].iter().all(|kept| *kept), "{kept:?}");
}

#[tokio::test]
async fn damaged_and_old_files_are_left_out_with_a_warning() {
    let (provider, folder) = (mock(MockConfig::default()).await, tempfile::tempdir().unwrap());
    let file = folder.path().join("answers.v1.sqlite");
    std::fs::write(&file, "this is no database").unwrap();
    std::fs::write(folder.path().join("answers.v0.sqlite"), "from long ago").unwrap();
    let scheduler = in_folder(&provider.url(), folder.path());
    let [old, damaged] = scheduler.cache_warnings() else { panic!("{:?}", scheduler.cache_warnings()) };
    assert!(old.contains("another version") && damaged.contains("begun anew"), "{old} {damaged}");
    scheduler.chat(&ask("a")).await.unwrap();
    scheduler.save_cache().await;
    drop(scheduler);
    let second = in_folder(&provider.url(), folder.path());
    assert_eq!(second.chat(&ask("a")).await.unwrap().cached(), Some(Cached::Fresh), "what was begun anew was kept");
}

#[tokio::test]
async fn two_schedulers_share_a_folder() {
    let (provider, folder) = (mock(MockConfig::default()).await, tempfile::tempdir().unwrap());
    let [one, two] = [in_folder(&provider.url(), folder.path()), in_folder(&provider.url(), folder.path())];
    one.chat(&ask("a")).await.unwrap();
    one.save_cache().await;
    assert_eq!(two.chat(&ask("a")).await.unwrap().cached(), Some(Cached::Fresh));
    two.chat(&ask("b")).await.unwrap();
    two.save_cache().await;
    assert_eq!(one.chat(&ask("b")).await.unwrap().cached(), Some(Cached::Fresh));
    assert!(one.cache_warnings().is_empty() && two.cache_warnings().is_empty());
}

#[tokio::test]
async fn a_file_damaged_anywhere_gives_right_answers_or_none() {
    let (provider, folder) = (mock(MockConfig::default()).await, tempfile::tempdir().unwrap());
    let file = folder.path().join("answers.v1.sqlite");
    let scheduler = in_folder(&provider.url(), folder.path());
    let mut bodies = Vec::new();
    for index in 0..20 {
        bodies.push(scheduler.chat(&ask(&format!("question {index}"))).await.unwrap().body);
    }
    drop(scheduler);
    let whole = std::fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut hits = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(random.usize(0..whole.len()));
        } else {
            for _ in 0..random.usize(1..200) {
                let index = random.usize(0..bytes.len());
                bytes[index] = random.u8(..);
            }
        }
        std::fs::write(&file, bytes).unwrap();
        let _ = std::fs::remove_file(folder.path().join("answers.v1.sqlite-wal"));
        let scheduler = in_folder(&provider.url(), folder.path());
        for (index, body) in bodies.iter().enumerate() {
            let question = ask(&format!("question {index}"));
            let request = Request::chat(&question);
            if let Lookup::Hit(reply) =
                scheduler.lookup(&request, "/chat/completions", question.to_string().as_bytes()).await
            {
                assert_eq!(reply.body, body);
                hits += 1;
            }
        }
    }
    assert!(hits > 0, "some damage leaves some answers");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let cache = CacheConfig { folder: Some(file.join("below")), ..CacheConfig::default() };
    let error = Scheduler::builder().cache(cache).build().unwrap_err();
    assert!(error.to_string().contains("below"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_to_be_kept_still_serves_those_who_wait_for_it() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url());
    let (request, body) = (Request::chat(&ask("x")), ask("x").to_string());
    let Lookup::Miss(lead) = scheduler.lookup(&request, "/chat/completions", body.as_bytes()).await else { panic!() };
    let (found, ()) = tokio::join!(scheduler.lookup(&request, "/chat/completions", body.as_bytes()), async {
        lead.answered(200, None, "not JSON".into());
    });
    let Lookup::Hit(reply) = found else { panic!("{found:?}") };
    assert_eq!((reply.cached(), &reply.body[..]), (Some(Cached::Shared), &b"not JSON"[..]));
    assert!(matches!(scheduler.lookup(&request, "/chat/completions", body.as_bytes()).await, Lookup::Miss(_)));
}

#[tokio::test]
async fn what_a_fallback_answers_is_shared_with_its_name_and_not_kept() {
    let (primary, second) = (mock(failing()).await, mock(slow(100)).await);
    let retry = RetryPolicy { max_attempts: 2, base: Duration::from_millis(1), cap: Duration::from_millis(5) };
    let chain = Fallback::of("gpt-4o").to("mistral", "mistral-small-latest").unsupported(Unsupported::Drop);
    let scheduler = Scheduler::builder()
        .account(Account::openai().key(KEY).base_url(primary.url()))
        .account(Account::new(Provider::Mistral).key(KEY).base_url(second.url()))
        .fallback(chain)
        .retry(retry)
        .cache(CacheConfig::default())
        .build()
        .unwrap();
    let mut body = ask("the same");
    body["logprobs"] = true.into();
    let (one, two) = tokio::join!(scheduler.chat(&body), scheduler.chat(&body));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!([one.cached(), two.cached()], [None, Some(Cached::Shared)]);
    for reply in [&one, &two] {
        let target = reply.target.as_ref().unwrap();
        assert_eq!((target.model(), &reply.dropped[..]), ("mistral-small-latest", &["logprobs".to_owned()][..]));
    }
    assert_eq!(second.stats().requests, 1);
    assert_eq!(scheduler.chat(&body).await.unwrap().cached(), None, "the model that was asked for may be back");
    // Who does not want another model does not get its answer.
    let pinned = Request::chat(&body).account("openai").max_wait(Duration::from_millis(200));
    let (_, pinned) =
        tokio::join!(scheduler.chat(&body), scheduler.send(pinned, "/chat/completions", body.to_string()));
    assert!(pinned.is_err(), "{pinned:?}");
}
