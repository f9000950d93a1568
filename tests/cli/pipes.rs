//! Standard input and standard output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::world::{Recorder, Server, World, chat, results};

#[test]
fn results_go_to_standard_output_and_nothing_else_does() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..20);
    let ended = world.run(&format!("run in.jsonl -o - {}", server.at())).expect(0);
    assert_eq!(results(&ended.out).len(), 20);
    assert_eq!(world.files(), ["in.jsonl"]);
    let ended = world.run(&format!("run in.jsonl -o - -q {}", server.at())).expect(0);
    assert_eq!((results(&ended.out).len(), ended.err.as_str()), (20, ""));
}

#[test]
fn requests_are_read_from_standard_input() {
    let (world, server) = (World::new(), Recorder::ok());
    for (output, args) in [(None, String::new()), (Some("out.jsonl"), " -o out.jsonl".to_owned())] {
        let mut command = world.tollgate(&format!("run -{args} {}", server.at()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for row in 0..10 {
            writeln!(input, "{}", chat(&format!("row {row}"))).unwrap();
        }
        drop(input);
        let ended = super::world::Ended::from(child.wait_with_output().unwrap()).expect(0);
        let text = output.map_or(ended.out, |name| world.read(name));
        assert_eq!(results(&text).len(), 10);
    }
    assert_eq!(server.seen().len(), 20);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (world, server) = (World::new(), Server::slow(0.01));
    world.requests("in.jsonl", 0..3_000);
    let mut running = world.start(&format!("run in.jsonl -o - --max-concurrent 20 {}", server.at()));
    let mut line = String::new();
    BufReader::new(running.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":\"batch_req_"));
    // The reader is gone with the end of the statement above.
    let ended = running.wait().expect(0);
    assert!(!ended.err.contains("roken pipe"), "{}", ended.err);
    assert!(server.stats().requests < 3_000);
}

#[test]
fn a_report_takes_the_place_of_no_pipe_device_or_link() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..3);
    let (pipe, link) = (world.path("pipe"), world.path("link.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("report.json", &link).unwrap();
    world.write("report.json", "");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    world.run(&format!("run in.jsonl --report pipe {}", server.at())).expect(0);
    let told: Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(told["rows"]["succeeded"], 3);
    assert!(!pipe.is_file(), "still a pipe");
    world.run(&format!("run in.jsonl --report link.json {}", server.at())).expect(0);
    assert_eq!(world.report()["rows"]["total"], 3);
    std::fs::remove_file(world.path("report.json")).unwrap();
    world.run(&format!("run in.jsonl --report link.json {}", server.at())).expect(0);
    assert!(world.has("report.json") && link.is_symlink(), "also of what is not there yet");
}
