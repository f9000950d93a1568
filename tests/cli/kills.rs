//! Killed again and again, at any moment.

use std::time::Duration;

use super::world::{Server, World};

/// How often the long job is killed; the environment may ask for more.
fn kills() -> u32 {
    std::env::var("TOLLGATE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(5)
}

#[test]
fn after_any_number_of_kills_every_row_has_one_result() {
    const AT_ONCE: u64 = 8;
    let (world, server, kills) = (World::new(), Server::slow(0.02), kills());
    let rows = 400.max(kills as usize * 10);
    world.requests("in.jsonl", 0..rows);
    let command = format!("run in.jsonl --max-concurrent {AT_ONCE} {}", server.at());
    let mut under_way = 0;
    for kill in 0..kills {
        let running = world.start(&command);
        // Spread over everything that a run does, its start included.
        std::thread::sleep(Duration::from_millis(10 + u64::from(kill * 37 % 120)));
        running.kill();
        // A result that is written when the answer is read leaves only this much to be done twice.
        under_way += AT_ONCE;
    }
    world.run(&command).expect(0);
    assert_eq!(world.results("in.results.jsonl").len(), rows);
    let (calls, rows) = (server.stats().admitted, rows as u64);
    eprintln!("{kills} kills, {rows} rows, {calls} calls, {} given up by their clients", server.stats().abandoned);
    assert!(calls >= rows && calls - rows <= under_way, "{calls} calls for {rows} rows");
    assert_eq!(world.files(), ["in.jsonl", "in.results.jsonl"]);
}
