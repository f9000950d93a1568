//! How well the limits are used, under every way in which providers enforce them, in virtual time:
//! `cargo bench --all-features --bench goodput`.
//!
//! After `--`: `--row NAME` plays the rows with that in their name, `--seeds N` that many seeds of each (20), `--seed N`
//! only that one, `--trace` tells every 429 with what the provider's books and the client's were, `--json FILE` and
//! `--svg FILE` write the results and a picture of the clients on the first row; `--test` plays one seed of everything.
//!
//! The provider is `tollgate::mock::Book`, which shares no arithmetic with the engine; the least possible time is computed
//! here from what was admitted.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

mod baselines;
mod bound;
mod ours;
mod picture;
mod play;
mod rows;
mod score;
mod table;
mod workload;

use std::path::PathBuf;

use self::baselines::{Paced, RetryOnly};
use self::ours::Ours;
use self::play::{Client, Game, play};
use self::rows::Row;
use self::score::Score;
use self::table::{Compared, Played};

/// The workloads on which others are played too.
const COMPARED: [&str; 5] = ["refill", "sliding", "fixed", "slices-10s", "caps-5x"];

#[derive(Debug)]
struct Options {
    row: String,
    seeds: std::ops::Range<u64>,
    trace: bool,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

fn main() {
    bound::check();
    let options = options();
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.name.contains(&options.row)).collect();
    if rows.is_empty() {
        eprintln!("no row is named like `{}`", options.row);
        return;
    }
    table::print_heading();
    let mut played = Vec::new();
    for row in &rows {
        let scores = options.seeds.clone().map(|seed| ours::score(row, seed, options.trace)).collect();
        let one = Played { row: row.clone(), scores };
        table::print_row(&one);
        played.push(one);
    }
    let within = played.iter().filter(|one| one.ok()).count();
    println!("{within} of {} rows within target", played.len());

    let compared: Vec<_> =
        rows.iter().filter(|row| COMPARED.contains(&&*row.name)).map(|row| compare(row, &options)).collect();
    if !compared.is_empty() {
        table::print_compared(&compared);
    }
    if let Some(path) = &options.json {
        let rows: Vec<_> = played.iter().map(Played::json).collect();
        let clients: Vec<_> = compared.iter().map(Compared::json).collect();
        let all = serde_json::json!({ "rows": rows, "clients": clients });
        std::fs::write(path, format!("{all:#}\n")).unwrap();
    }
    if let Some(path) = &options.svg {
        let (row, seed) = (&rows[0], options.seeds.start);
        let games = clients(row, seed).map(|(name, mut client)| (name, game(row, seed, &mut *client)));
        let (rpm, tpm) = row.accounts[0];
        let title = format!(
            "Tokens admitted per second against the limit: {} requests, {rpm} RPM, {tpm} TPM ({})",
            row.load.requests, row.tpm_shape
        );
        std::fs::write(path, picture::draw(&title, tpm, &games)).unwrap();
    }
}

fn compare(row: &Row, options: &Options) -> Compared {
    let mut compared = Compared { row: row.name.clone(), clients: Vec::new() };
    for seed in options.seeds.clone() {
        let requests = row.load.requests(seed);
        for (index, (name, mut client)) in clients(row, seed).into_iter().enumerate() {
            let score = Score::new(row, seed, &requests, &game(row, seed, &mut *client), &[]);
            match compared.clients.get_mut(index) {
                Some((_, scores)) => scores.push(score),
                None => compared.clients.push((name, vec![score])),
            }
        }
    }
    compared
}

fn game(row: &Row, seed: u64, client: &mut dyn Client) -> Game {
    play(row, &row.load.requests(seed), seed, client, false)
}

fn clients(row: &Row, seed: u64) -> [(&'static str, Box<dyn Client>); 4] {
    let requests = row.load.requests(seed);
    [
        ("tollgate", Box::new(Ours::new(row, &requests, seed))),
        ("governor, full burst", Box::new(Paced::new(row, &requests, 1.0))),
        ("bucket at 75 %", Box::new(Paced::new(row, &requests, 0.75))),
        ("retry only", Box::new(RetryOnly::new(&requests, seed))),
    ]
}

fn options() -> Options {
    let mut options = Options { row: String::new(), seeds: 0..20, trace: false, json: None, svg: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--row" => options.row = value(),
            "--seeds" => options.seeds = 0..value().parse().expect("a number of seeds"),
            "--seed" => {
                let seed = value().parse().expect("a seed");
                options.seeds = seed..seed + 1;
            }
            "--trace" => options.trace = true,
            "--json" => options.json = Some(value().into()),
            "--svg" => options.svg = Some(value().into()),
            "--test" => options.seeds = 0..1,
            "--bench" => {} // cargo says so
            other => panic!("unknown option {other}; they are explained at the top of benches/goodput/main.rs"),
        }
    }
    options
}
