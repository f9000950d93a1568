//! `tollgate mock`: the mock provider as a server of its own.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use tollgate::mock::{ChargeRule, Count, Faults, Latency, Mock, MockConfig, MockLimits, MockShapes, Stamp, Stats};
use tollgate::providers::{self, Provider};
use tollgate::{DAY, Dimension, Limit, Limits, MINUTE, SECOND, Shape};

use crate::Exit;
use crate::args::{BehaviourArgs, ChargeArg, CountArg, FaultArgs, MockArgs, MockLimitArgs, ShapeOf, StampArg};
use crate::show;
use crate::stop::{Level, Stop};

/// Serves until Ctrl-C, then tells what it saw.
pub(crate) async fn serve(args: MockArgs) -> Result<Exit> {
    let config = config(args)?;
    let stop = Stop::new();
    stop.listen().context("cannot listen for signals")?;
    let address = config.listen;
    let limits = config.limits;
    let mock = Mock::start(config).await.with_context(|| format!("cannot serve on {address}"))?;
    let url = mock.url();
    let root = url.trim_end_matches("/v1");
    say(&format!(
        "An imitation of the OpenAI API is served at {url}\n\
         Limits: {}\n\
         Point a client at it: export OPENAI_BASE_URL={url} OPENAI_API_KEY=anything\n\
         What it saw: curl {root}/stats\n\
         Ctrl-C ends it.\n",
        described(&limits)
    ));
    let stats = mock.serve_until(stop.reached(Level::Drain)).await;
    say(&format!("\n{}\n", table(&stats)));
    Ok(Exit::Done)
}

/// Writes to standard output, where nobody may be left to read.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn config(args: MockArgs) -> Result<MockConfig> {
    let MockArgs { port, host, api_key, dialect, limits, behaviour, faults } = args;
    let BehaviourArgs { latency, headers, seed } = behaviour;
    let FaultArgs { error_503, error_500, error_429, reset, hang, slow_body, half_body, outage, error, incident } =
        faults;
    Ok(MockConfig {
        listen: SocketAddr::new(host, port),
        dialect,
        charge: rule(limits.charge),
        count: match limits.count {
            CountArg::Chars => Count::Characters,
            CountArg::Exact => Count::Exact,
        },
        predicted_output: limits.predict,
        phase: limits.phase,
        changes: limits.change.clone(),
        headers: stamp(headers),
        settle: limits.settle || !limits.no_settle,
        limits: mock_limits(&limits, dialect)?,
        latency: if latency.is_zero() { Latency::default() } else { Latency::about(latency) },
        seed,
        faults: Faults { error_503, error_500, error_429, reset, hang, slow_body, half_body, ..Faults::default() },
        outages: outage,
        error,
        incident,
        keys: (!api_key.is_empty()).then_some(api_key),
        ..MockConfig::default()
    })
}

pub(crate) fn rule(charge: ChargeArg) -> ChargeRule {
    match charge {
        ChargeArg::Sum => ChargeRule::InputPlusCap,
        ChargeArg::Max => ChargeRule::MaxOfInputAndCap,
        ChargeArg::Input => ChargeRule::InputOnly,
    }
}

pub(crate) fn stamp(headers: StampArg) -> Stamp {
    match headers {
        StampArg::None => Stamp::None,
        StampArg::Admission => Stamp::Admission,
        StampArg::Completion => Stamp::Completion,
    }
}

/// Writes what was typed over `shapes`; of two for one limit, the later holds.
pub(crate) fn reshape(shapes: &mut MockShapes, typed: &[(ShapeOf, Shape)]) {
    for (which, shape) in typed {
        let MockShapes { rps, rpm, rpd, tpm, tpd, itpm, otpm } = shapes;
        let places = match which {
            // A second is not cut into slices, and ends at no midnight.
            ShapeOf::All if !matches!(shape, Shape::Slice(_) | Shape::Calendar(_)) => {
                vec![rps, rpm, rpd, tpm, tpd, itpm, otpm]
            }
            ShapeOf::All => vec![rpm, rpd, tpm, tpd, itpm, otpm],
            ShapeOf::Requests => vec![rpm],
            ShapeOf::Tokens => vec![tpm, itpm, otpm],
            ShapeOf::Days => vec![rpd, tpd],
        };
        places.into_iter().for_each(|place| *place = *shape);
    }
}

fn mock_limits(args: &MockLimitArgs, dialect: Provider) -> Result<MockLimits> {
    let mut limits = match &args.tier {
        Some(tier) => {
            let Some(row) = providers::lookup(dialect, tier, &args.model) else {
                let known = providers::tiers(dialect).join(", ");
                bail!("no limits are known for {} in tier {tier}; the tiers are {known}", args.model);
            };
            enforced(row.limits, dialect)
        }
        None => MockLimits::default(),
    };
    let mut typed = Limits::default();
    args.amounts.over(&mut typed);
    limits.rps = typed.rps.or(limits.rps);
    limits.rpm = typed.rpm.or(limits.rpm);
    limits.rpd = typed.rpd.or(limits.rpd);
    limits.tpm = typed.tpm.or(limits.tpm);
    limits.tpd = typed.tpd.or(limits.tpd);
    limits.itpm = typed.itpm.or(limits.itpm);
    limits.otpm = typed.otpm.or(limits.otpm);
    reshape(&mut limits.shapes, &args.shape);
    Ok(limits)
}

/// Those of `limits` that the mock can enforce. Gemini's tokens per minute are input tokens.
pub(crate) fn enforced(limits: impl IntoIterator<Item = Limit>, dialect: Provider) -> MockLimits {
    let mut enforced = MockLimits::default();
    for limit in limits {
        let MockLimits { rps, rpm, rpd, tpm, tpd, itpm, otpm, shapes } = &mut enforced;
        let (amount, shape) = match (limit.dimension, limit.window) {
            (Dimension::Requests, SECOND) => (rps, &mut shapes.rps),
            (Dimension::Requests, MINUTE) => (rpm, &mut shapes.rpm),
            (Dimension::Requests, DAY) => (rpd, &mut shapes.rpd),
            (Dimension::Tokens, MINUTE) if dialect != Provider::Gemini => (tpm, &mut shapes.tpm),
            (Dimension::Tokens | Dimension::InputTokens, MINUTE) => (itpm, &mut shapes.itpm),
            (Dimension::OutputTokens, MINUTE) => (otpm, &mut shapes.otpm),
            (Dimension::Tokens, DAY) => (tpd, &mut shapes.tpd),
            _ => continue,
        };
        *amount = Some(limit.amount);
        *shape = limit.shape.unwrap_or(*shape);
    }
    enforced
}

fn described(limits: &MockLimits) -> String {
    let MockLimits { rps, rpm, rpd, tpm, tpd, itpm, otpm, shapes } = *limits;
    let named = [
        ("RPS", rps, shapes.rps),
        ("RPM", rpm, shapes.rpm),
        ("RPD", rpd, shapes.rpd),
        ("TPM", tpm, shapes.tpm),
        ("TPD", tpd, shapes.tpd),
        ("ITPM", itpm, shapes.itpm),
        ("OTPM", otpm, shapes.otpm),
    ];
    let describe = |(name, amount, shape): (&str, Option<u64>, Shape)| {
        let shape = if shape == Shape::Refill { String::new() } else { format!(" ({shape})") };
        Some(format!("{name} {}{shape}", show::count(amount?)))
    };
    let set: Vec<_> = named.into_iter().filter_map(describe).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

fn table(stats: &Stats) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("requests", show::count(stats.requests));
    row("answered", show::count(stats.answered));
    let refused = &stats.refused;
    for (limit, refused) in [
        ("RPS", refused.rps),
        ("RPM", refused.rpm),
        ("RPD", refused.rpd),
        ("TPM", refused.tpm),
        ("TPD", refused.tpd),
        ("ITPM", refused.itpm),
        ("OTPM", refused.otpm),
    ] {
        if refused > 0 {
            row(&format!("refused by {limit} (429)"), show::count(refused));
        }
    }
    if stats.refused.total() == 0 {
        row("refused by a limit (429)", "0".to_owned());
    }
    let faults = stats.faults;
    for (name, number) in [
        ("played 503", faults.error_503),
        ("played 500", faults.error_500),
        ("played 429", faults.error_429),
        ("played reset", faults.reset),
        ("played hang", faults.hang),
        ("played slow body", faults.slow_body),
        ("played half body", faults.half_body),
        ("without an accepted key", stats.unauthorised),
        ("malformed", stats.invalid),
        ("ended without an answer", stats.abandoned),
    ] {
        if number > 0 {
            row(name, show::count(number));
        }
    }
    row("tokens charged at admission", show::count(stats.charged_tokens));
    row("tokens used", show::count(stats.used_input_tokens.saturating_add(stats.used_output_tokens)));
    row("most under way at once", show::count(stats.largest_in_flight));
    row("busiest minute, requests", show::count(stats.busiest_minute_requests));
    row("busiest minute, tokens", show::count(stats.busiest_minute_tokens));
    table
}
