//! The same command again does what is missing.

use std::path::Path;

use super::world::{Recorder, Server, World, batch, chat, until};

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_killed_run_goes_on_with_what_is_missing() {
    let (world, server) = (World::new(), Server::slow(0.02));
    world.requests("in.jsonl", 0..300);
    let command = format!("run in.jsonl --max-concurrent 4 {}", server.at());
    let running = world.start(&command);
    until("some rows are done", || lines(&world.path("in.results.jsonl")) > 50);
    running.kill();
    assert!(world.has("in.results.jsonl.journal"));
    let ended = world.run(&command).expect(0);
    assert!(ended.err.contains("of 300 rows have a result"), "{}", ended.err);
    assert_eq!(world.results("in.results.jsonl").len(), 300);
    let calls = server.stats().requests;
    assert!((300..=304).contains(&calls), "{calls} calls: at most the four under way were made twice");
    assert!(!world.has("in.results.jsonl.journal"));

    world.run(&command).expect(0).says("300 of 300 rows have a result").says("nothing is left to do");
    assert_eq!(server.stats().requests, calls, "a complete job makes no calls");
}

#[test]
fn reordered_and_extended_input_does_only_what_is_new() {
    let (world, server) = (World::new(), Recorder::ok());
    let named: String = (0..10).map(|row| format!("{}\n", batch(&format!("id-{row}")))).collect();
    let plain: String = (0..10).map(|row| format!("{}\n", chat(&format!("q{row}")))).collect();
    world.write("in.jsonl", format!("{named}{plain}"));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    let turned: Vec<_> = plain.lines().rev().chain(named.lines().rev()).collect();
    world.write("in.jsonl", format!("{}\n{}\n{}\n", chat("new"), turned.join("\n"), batch("id-new")));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    assert_eq!((server.seen().len(), world.results("in.results.jsonl").len()), (22, 22));
}

#[test]
fn a_torn_last_line_is_repaired_and_done_again() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..5);
    let command = format!("run in.jsonl {}", server.at());
    world.run(&command).expect(0);
    let whole = world.read("in.results.jsonl");
    for (cut, calls) in [(1, 0), (30, 1)] {
        let before = server.seen().len();
        world.write("in.results.jsonl", &whole[..whole.len() - cut]);
        world.run(&command).expect(0);
        assert_eq!(server.seen().len() - before, calls, "{cut} bytes are missing");
        assert_eq!(world.results("in.results.jsonl").len(), 5);
    }
}

#[test]
fn a_second_run_on_one_output_refuses() {
    let (world, server) = (World::new(), Server::slow(0.3));
    world.requests("in.jsonl", 0..3);
    world.requests("other.jsonl", 3..6);
    let running = world.start(&format!("run in.jsonl -o out.jsonl --max-concurrent 1 {}", server.at()));
    until("the first is under way", || server.stats().requests > 0);
    world
        .run(&format!("run other.jsonl -o out.jsonl {}", server.at()))
        .expect(2)
        .says("another run is writing to out.jsonl");
    running.wait().expect(0);
    world.run(&format!("run other.jsonl -o out.jsonl {}", server.at())).expect(0);
    assert_eq!(world.results("out.jsonl").len(), 6);
}

#[test]
fn a_file_of_results_has_one_run_by_whatever_name() {
    let (world, server) = (World::new(), Server::slow(0.3));
    world.requests("in.jsonl", 0..3);
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../out.jsonl", world.path("elsewhere/link.jsonl")).unwrap();
    let run = |output: &str| format!("run in.jsonl -o {output} --max-concurrent 1 {}", server.at());
    let running = world.start(&run("elsewhere/link.jsonl"));
    until("the first is under way", || server.stats().requests > 0);
    assert!(world.has("out.jsonl.journal"));
    world.run(&run("out.jsonl")).expect(2).says("another run is writing to out.jsonl");
    running.wait().expect(0);
    world.run(&format!("{} --retry-failed", run("elsewhere/link.jsonl"))).expect(0).says("3 of 3 rows have a result");
    assert_eq!(world.results("out.jsonl").len(), 3);
}

#[test]
fn retrying_leaves_a_link_to_the_results_a_link() {
    let (world, server) = (World::new(), Recorder::start(|_| (400, "{}".to_owned())));
    world.requests("in.jsonl", 0..3);
    std::os::unix::fs::symlink("out.jsonl", world.path("link.jsonl")).unwrap();
    world.run(&format!("run in.jsonl -o link.jsonl {}", server.at())).expect(1);
    let better = Recorder::ok();
    world.run(&format!("run in.jsonl -o link.jsonl --retry-failed {}", better.at())).expect(0);
    assert!(world.path("link.jsonl").is_symlink());
    assert!(world.results("out.jsonl").values().all(|result| result["error"].is_null()));
}

#[test]
fn requests_of_another_batch_are_no_results() {
    let (world, server) = (World::new(), Recorder::ok());
    world.write("in.jsonl", format!("{}\n", batch("a")));
    let others: String = (0..5).map(|row| format!("{}\n", batch(&format!("id-{row}")))).collect();
    world.write("other.jsonl", &others);
    for args in ["", "--retry-failed"] {
        let command = format!("run in.jsonl -o other.jsonl {args} {}", server.at());
        world.run(&command).expect(2).says("line 1 of other.jsonl is no result of a run");
        assert_eq!(world.read("other.jsonl"), others);
    }
    assert!(server.seen().is_empty());
}

#[test]
fn results_that_are_gone_at_the_end_are_told_and_done_again() {
    let (world, server) = (World::new(), Server::slow(0.3));
    world.requests("in.jsonl", 0..3);
    let command = format!("run in.jsonl --max-concurrent 1 {}", server.at());
    for replaced in [false, true] {
        let running = world.start(&command);
        until("a result is there", || lines(&world.path("in.results.jsonl")) > 0);
        std::fs::remove_file(world.path("in.results.jsonl")).unwrap();
        if replaced {
            world.write("in.results.jsonl", "");
        }
        running.wait().expect(1).says("in.results.jsonl was removed, replaced or cut during the run");
    }
    world.run(&command).expect(0).says("3 rows were sent by an earlier run without a result");
    assert_eq!(world.results("in.results.jsonl").len(), 3);
}

#[test]
fn results_that_were_cut_off_are_told_and_done_again() {
    let (world, server) = (World::new(), Server::slow(0.3));
    world.requests("in.jsonl", 0..3);
    let command = format!("run in.jsonl --max-concurrent 1 {}", server.at());
    let running = world.start(&command);
    until("a result is there", || lines(&world.path("in.results.jsonl")) > 0);
    world.write("in.results.jsonl", "");
    running.wait().expect(1).says("in.results.jsonl was removed, replaced or cut during the run");
    world.run(&command).expect(0);
    assert_eq!(world.results("in.results.jsonl").len(), 3);
}

#[test]
fn rows_without_a_known_end_are_told_and_run_again_or_left() {
    let (world, server) = (World::new(), Server::slow(30.0));
    world.requests("in.jsonl", 0..4);
    let running = world.start(&format!("run in.jsonl --max-concurrent 2 {}", server.at()));
    until("two are under way", || server.stats().in_flight == 2);
    running.kill();

    let quick = Recorder::ok();
    let skip = format!("run in.jsonl --uncertain skip --report report.json {}", quick.at());
    for calls in [2, 2] {
        world.run(&skip).expect(1).says("2 rows were sent by an earlier run without a result");
        assert_eq!((quick.seen().len(), world.results("in.results.jsonl").len()), (calls, 2));
        assert_eq!(world.report()["rows"]["uncertain"], 2);
    }
    world.run(&format!("run in.jsonl {}", quick.at())).expect(0).says("run again");
    assert_eq!((quick.seen().len(), world.results("in.results.jsonl").len()), (4, 4));
    assert_eq!(world.files(), ["in.jsonl", "in.results.jsonl", "report.json"]);
}

#[test]
fn failed_rows_are_done_again_only_when_asked() {
    let world = World::new();
    let server = Recorder::start(|seen| match seen.body.contains("bad") {
        true => (400, r#"{"error":{"message":"no","type":"invalid_request_error","code":null}}"#.to_owned()),
        false => (200, "{}".to_owned()),
    });
    world.write("in.jsonl", format!("{}\n{}\n", batch("good"), batch("bad")));
    world.run(&format!("run in.jsonl {}", server.at())).expect(1).says("1 row failed");
    world.run(&format!("run in.jsonl {}", server.at())).expect(1);
    assert_eq!(server.seen().len(), 2, "a failure is a result");
    let (better, before) = (Recorder::ok(), world.read("in.results.jsonl"));
    let again = format!("run in.jsonl --retry-failed {}", better.at());
    world.write("in.jsonl", format!("{}\n{}\n{{\n", batch("good"), batch("bad")));
    world.run(&again).expect(2).says("line 3");
    assert_eq!(world.read("in.results.jsonl"), before, "nothing is lost where nothing is begun");
    world.write("in.jsonl", format!("{}\n{}\n", batch("good"), batch("bad")));
    world.run(&again).expect(0);
    assert_eq!(better.seen().len(), 1);
    assert_eq!(world.results("in.results.jsonl")["bad"]["response"]["status_code"], 200);
}
