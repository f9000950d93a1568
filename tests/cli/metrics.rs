//! Figures that can be scraped while a job runs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::world::{Recorder, World, until};

/// Status line and body of `GET path`.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Every series with its value.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let (status, body) = get(address, "/metrics");
    assert!(status.contains(" 200 "), "{status}");
    let lines = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn what_is_scraped_during_a_run_agrees_with_its_report() {
    let world = World::new();
    const ROWS: usize = 400;
    world.requests("in.jsonl", 0..ROWS);
    // Nobody reads the results yet. They are more than a pipe holds, so the program is not over when all calls are.
    let mut running =
        world.start("run in.jsonl -o - --mock --mock-latency 0.05 --tpd 10m --metrics 0 --report report.json");
    let mut lines = BufReader::new(running.child().stderr.take().unwrap()).lines();
    let url = lines.find_map(|line| line.unwrap().strip_prefix("metrics: ").map(str::to_owned)).unwrap();
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let drained = std::thread::spawn(move || lines.count());

    let lane = r#"account="openai",pool="gpt-4o-mini""#;
    let answered = format!(r#"tollgate_requests_total{{{lane},outcome="answered"}}"#);
    until("all calls are answered", || scrape(address).get(&answered) == Some(&(ROWS as f64)));
    let seen = scrape(address);
    assert_eq!(get(address, "/").0, "HTTP/1.1 404 Not Found");
    let (_, text) = get(address, "/metrics");
    assert!(text.contains("# TYPE tollgate_call_seconds histogram"), "{text}");
    assert!(text.contains("# HELP tollgate_requests_total Requests to the provider that ended"), "{text}");

    running.wait().expect(0);
    drained.join().unwrap();
    let report = world.report();
    let figure = |name: &str| report[name].as_f64().unwrap();
    let value = |series: String| *seen.get(&series).unwrap_or_else(|| panic!("{series} in {seen:#?}"));
    let requests = |outcome: &str| value(format!(r#"tollgate_requests_total{{{lane},outcome="{outcome}"}}"#));
    assert_eq!(requests("answered"), figure("attempts"));
    assert_eq!(requests("rate_limited"), figure("rate_limited"));
    assert_eq!(requests("failed") + requests("rejected"), figure("failed_attempts"));
    assert_eq!(value(format!("tollgate_retries_total{{{lane}}}")), figure("retries"));
    assert_eq!(value(format!(r#"tollgate_tokens_total{{{lane},kind="used"}}"#)), figure("used_tokens"));
    assert_eq!(value(format!(r#"tollgate_tokens_total{{{lane},kind="reserved"}}"#)), figure("estimated_tokens"));
    assert_eq!(value(format!("tollgate_call_seconds_count{{{lane}}}")), ROWS as f64);
    assert_eq!(value(format!(r#"tollgate_call_seconds_bucket{{{lane},le="600"}}"#)), ROWS as f64);
    assert_eq!(value(format!("tollgate_queue{{{lane}}}")), 0.0);
    assert!(value(format!(r#"tollgate_limit_used_ratio{{{lane},limit="TPD"}}"#)) > 0.0);
    let health = &report["endpoints"][0]["health"]["last_five_minutes"];
    assert_eq!((health["answered"].as_f64(), health["error_rate"].as_f64()), (Some(ROWS as f64), Some(0.0)));
    let p50 = health["whole"]["p50"].as_f64().unwrap();
    assert!((0.03..5.0).contains(&p50), "{health}");
}

#[test]
fn an_address_that_cannot_be_had_is_found_before_anything_is_spent() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..2);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    world
        .run(&format!("run in.jsonl --metrics {port} {}", server.at()))
        .expect(2)
        .says(&format!("cannot serve metrics on 127.0.0.1:{port}; give another address by --metrics"))
        .says("in use");
    world.run(&format!("run in.jsonl --metrics nowhere {}", server.at())).expect(2).says("127.0.0.1:9464");
    assert!(server.seen().is_empty(), "nothing was sent");
    assert_eq!(world.files(), ["in.jsonl"]);
}
