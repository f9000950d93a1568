//! Ctrl-C and SIGTERM.

use std::process::Stdio;

use super::world::{Recorder, Running, Server, World, until};

#[test]
fn an_interrupt_lets_running_requests_finish_and_says_how_to_go_on() {
    for signal in ["INT", "TERM"] {
        let (world, server) = (World::new(), Server::slow(0.5));
        world.requests("in.jsonl", 0..50);
        let mut running = world.start(&format!("run in.jsonl --max-concurrent 5 {}", server.at()));
        // One goes ahead to see what limits its answer tells.
        until("five are under way", || server.stats().in_flight == 5);
        running.signal(signal);
        let ended = running
            .wait()
            .expect(130)
            .says("may finish")
            .says("44 rows are left")
            .says("tollgate run in.jsonl --max-concurrent 5");
        assert_eq!((world.results("in.results.jsonl").len(), server.stats().admitted), (6, 6), "{ended:?}");
        assert!(!world.has("in.results.jsonl.journal"), "nothing is uncertain");
    }
}

#[test]
fn rows_that_wait_for_a_limit_are_not_waited_for() {
    let world = World::new();
    world.requests("in.jsonl", 0..20);
    let server = Server::slow(0.1);
    let at = server.at().replace("--unlimited", "--rpm 5");
    let mut running = world.start(&format!("run in.jsonl {at}"));
    until("the limit holds", || server.stats().answered >= 4);
    let begun = std::time::Instant::now();
    running.signal("INT");
    running.wait().expect(130);
    assert!(begun.elapsed().as_secs() < 5);
    let calls = server.stats().admitted as usize;
    assert_eq!(world.results("in.results.jsonl").len(), calls);
}

#[test]
fn a_second_interrupt_stops_at_once_and_leaves_a_note_of_what_ran() {
    let (world, server) = (World::new(), Server::slow(60.0));
    world.requests("in.jsonl", 0..3);
    let mut running = world.start(&format!("run in.jsonl {}", server.at()));
    until("all are under way", || server.stats().in_flight == 3);
    let begun = std::time::Instant::now();
    running.signal("INT");
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.signal("INT");
    running.wait().expect(130).says("3 rows are left");
    assert!(begun.elapsed().as_secs() < 10);
    assert_eq!(world.read("in.results.jsonl.journal").lines().filter(|line| line.starts_with("sent ")).count(), 3);
}

#[test]
fn a_run_that_waits_for_its_input_ends_at_the_first_signal() {
    for signal in ["INT", "TERM"] {
        let (world, server) = (World::new(), Recorder::ok());
        let mut command = world.tollgate(&format!("run - -o out.jsonl --learned learned.json {}", server.at()));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let mut running = Running::of(child);
        // It listens for signals before it writes that.
        until("it has begun", || world.has("learned.json"));
        running.signal(signal);
        running.wait().expect(130).says("stopped before anything was sent");
        assert_eq!(world.files(), ["learned.json"]);
        drop(input);
    }
}
