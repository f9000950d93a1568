//! `tollgate run`: check everything, do what is missing, tell what became of it.
//!
//! The input is read twice, in memory for a few lines: once to check it and to note where the rows are that have no result
//! yet (16 bytes each), once to send them. What was sent and what came back lies on disk at any time, so that the same
//! command goes on wherever it was interrupted.

mod check;
mod console;
mod failures;
mod input;
mod journal;
mod memory;
mod metrics;
mod output;
mod paths;
mod progress;
mod report;
mod report_file;
mod result;
mod row;
mod settings;
mod tally;
mod work;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;
use tollgate::mock::{Mock, Stats};
use tollgate::{Builder, Event, Scheduler, tokens};

use self::check::{Check, Checked};
use self::console::Console;
use self::failures::{Failures, Silence};
use self::input::Input;
use self::memory::Memory;
use self::metrics::Metrics;
use self::output::{Output, Writer};
use self::report::Report;
use self::report_file::ReportFile;
use self::result::Mask;
pub(crate) use self::settings::NO_SECRET;
use self::settings::{MockSettings, Settings, Talk, checker, with_address};
use self::tally::Tally;
use self::work::Job;
use crate::Exit;
use crate::args::{RunArgs, Uncertain};
use crate::mock::{enforced, reshape};
use crate::show;
use crate::stop::{Level, Stop};

/// How long results may take to be written after a second Ctrl-C.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the receiver of events may take for the last of them.
const LAST_POSTS: Duration = Duration::from_secs(10);

/// Does the job.
pub(crate) async fn run(args: RunArgs) -> Result<Exit> {
    let settings = Settings::new(args)?;
    settings.check_paths()?;
    let stop = Stop::new();
    stop.listen().context("cannot listen for signals")?;
    let report = settings.report.as_deref().map(ReportFile::open).transpose()?;
    let metrics = match settings.metrics {
        Some(address) => Some(Metrics::listen(address).await?),
        None => None,
    };
    let (memory, learned) = settings.learned.clone().map(Memory::open).transpose()?.unzip();
    let stopped = || {
        show::line("stopped before anything was sent");
        Ok(Exit::Interrupted)
    };
    // Whoever writes a pipe, or reads one, may be long in coming.
    let (from, to) = (settings.from.clone(), settings.to.clone());
    let Some(input) = stop.unless_reached(Level::Drain, move || Input::open(&from)).await else { return stopped() };
    let input = input?;
    let sizes = checker(&settings.config)?;
    let Some(output) = stop.unless_reached(Level::Drain, move || Output::open(&to)).await else { return stopped() };
    let (mut output, mut known) = output?;
    let again = if settings.retry_failed { known.take_failed() } else { HashSet::new() };
    let shape = &settings.shape;
    let check = Check { shape, known: &known, uncertain: settings.uncertain, sizes: &sizes, stop: &stop };
    let checked = match check.run(&input) {
        Ok(Some(checked)) if checked.problems.is_empty() || settings.skip_invalid => checked,
        Ok(Some(checked)) => bail!(problems(&checked, &settings.from)),
        Ok(None) => return stopped(),
        Err(error) => return Err(error),
    };
    let uncertain = std::mem::take(&mut known.uncertain);
    // The hashes of a million rows are not needed to do them.
    drop(known);

    let mut left = checked.queues.iter().map(|queue| queue.places.len() as u64).sum::<u64>();
    if left > 0 {
        output.check_room()?;
    }
    if settings.uncertain == Uncertain::Skip {
        left += checked.uncertain;
    }
    let console = Console::new(settings.talk, checked.rows, checked.rows - left);
    introduce(&console, &settings, &checked, &output);
    let mock = match &settings.mock {
        Some(mock) => Some(start_mock(mock.clone(), &sizes, &checked).await?),
        None => None,
    };
    let pool = |queue: &check::Queue| sizes.lane_of(&queue.model).pool;
    let left = checked.queues.iter().map(|queue| (pool(queue), AtomicU64::new(queue.places.len() as u64))).collect();
    drop(sizes);
    for queue in &checked.queues {
        // Loading a vocabulary takes a part of a second, which the first request need not wait for.
        tokens::warm_up(&queue.model);
    }
    let mut config = with_address(&settings.config, mock.as_ref().map(Mock::url));
    config.learned = learned.unwrap_or_default();
    let (console, mask) = (Arc::new(console), Mask::new(settings.secrets.clone()));
    let tell = {
        let (console, mask) = (console.clone(), mask.clone());
        move |event: &Event| console.say(&mask.clean(event.to_string()))
    };
    let scheduler = Builder::from(config).on_event(tell).build().context("the settings do not fit together")?;
    // Last, since nothing can keep these rows from being tried again now.
    output.take_out(&again)?;
    drop(again);
    let job = Arc::new(Job {
        scheduler,
        shape: settings.shape.clone(),
        output,
        mask,
        stop,
        console,
        memory,
        tally: Tally::default(),
        failures: Failures::default(),
        silence: Silence::default(),
        began: Instant::now(),
        uncertain,
        left,
        trouble: OnceLock::new(),
    });
    if let Some(metrics) = metrics {
        job.console.say(&format!("metrics: {}", metrics.url()));
        tokio::spawn(metrics.serve(job.scheduler.clone()));
    }
    for warning in job.scheduler.cache_warnings() {
        job.console.say(&format!("warning: {warning}"));
    }
    finish(job, &settings, input, checked, mock, report).await
}

/// Does the rows, and closes everything in the order that loses nothing.
async fn finish(
    job: Arc<Job>,
    settings: &Settings,
    input: Input,
    mut checked: Checked,
    mock: Option<Mock>,
    report: Option<ReportFile>,
) -> Result<Exit> {
    let queues = std::mem::take(&mut checked.queues);
    let writer = job.output.writer(&job.stop).context("cannot start to write")?;
    let progress = tokio::spawn(progress::watch(job.clone(), checked.rows));
    let draining = tokio::spawn(tell_of_stop(job.clone()));
    let keeping = tokio::spawn(memory::watch(job.clone()));
    let worked = work::run(&job, &input, queues, settings.max_concurrent, writer.sender()).await;
    let elapsed = job.began.elapsed();
    progress.abort();
    draining.abort();
    keeping.abort();
    job.keep_learned();
    let written = written(writer, &job.stop).await;
    // A second Ctrl-C does not wait for the disk.
    if job.stop.level() < Level::Now {
        job.scheduler.save_cache().await;
    }
    let posts = if job.stop.level() < Level::Now { LAST_POSTS } else { Duration::ZERO };
    let posted = job.scheduler.flush_webhook(posts).await;
    job.console.clear();
    let lost = posted.failed + posted.dropped + posted.waiting;
    if lost > 0 {
        job.console.say(&format!("warning: {} did not reach the webhook", show::of(lost, "event", "events")));
    }
    let stats: Option<Stats> = match mock {
        Some(mock) => Some(mock.shutdown().await),
        None => None,
    };
    let figures = Report::new(&job, &checked, elapsed, stats);
    let journal = job.output.journal();
    // Rows that an earlier run sent, and of which nobody knows what became.
    let open = checked.uncertain.saturating_sub(job.tally.resolved.load(Relaxed));
    if let Some(journal) = journal {
        let kept = written.is_ok() && job.output.is_there() && journal.broken().is_none();
        if worked.is_ok() && kept && open == 0 && job.stop.level() < Level::Now {
            journal.remove();
        }
    }
    if let Some(report) = report {
        report.write(&figures)?;
    }
    worked?;
    let written = match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
        written => written.with_context(|| format!("cannot write {}", job.output.name())),
    };
    let broken = written.err().or_else(|| journal.and_then(|journal| journal.broken()));
    if figures.was_complete() {
        job.console.say("nothing is left to do; another -o does them all anew");
    } else {
        job.console.say(&figures.tables());
    }
    failures::lines(figures.reasons()).iter().for_each(|line| job.console.say(line));
    if let Some(error) = broken {
        show::error(&error);
        let command = job.mask.clean(show::command());
        show::line(format_args!(
            "What was written is kept. When that is mended, the same command goes on:\n  {command}"
        ));
        return Ok(Exit::Failed);
    }
    Ok(conclude(&job, settings, &figures, open))
}

/// What is left to say, and what it comes to.
fn conclude(job: &Job, settings: &Settings, figures: &Report, open: u64) -> Exit {
    let command = job.mask.clean(show::command());
    let resumable = job.output.journal().is_some() && !matches!(settings.from, settings::InputFrom::Stdin);
    let left = figures.left();
    let again = match (resumable, job.output.journal().is_some()) {
        (true, _) => format!("The same command goes on where this one stopped:\n  {command}"),
        (false, true) => format!("The same command, with the same input, goes on where this one stopped:\n  {command}"),
        (false, false) => "Without a file of results (-o OUT), the next run begins anew.".to_owned(),
    };
    if !job.output.is_there() {
        show::line(format_args!(
            "tollgate: {} was removed, replaced or cut during the run, and results that were written to it are gone\n\
             The same command does those rows again:\n  {command}",
            job.output.name()
        ));
        return Exit::Failed;
    }
    if let Some(trouble) = job.trouble.get() {
        show::line(format_args!(
            "tollgate: stopped, since one row after the other failed in a way that the rest would too\n  because: {trouble}\n\
             {} left. When that is mended, --retry-failed does the failed rows again, and those that are left.",
            show::of(left, "row is", "rows are")
        ));
        return Exit::Failed;
    }
    if job.stop.interrupted() && left > 0 {
        show::line(format_args!("stopped; {} left. {again}", show::of(left, "row is", "rows are")));
        return Exit::Interrupted;
    }
    let results = job.output.name();
    match figures.failures() {
        0 if open > 0 => {
            let rows = show::of(open, "row was", "rows were");
            job.console.say(&format!(
                "{rows} sent by an earlier run and left without a result; --uncertain run does them again"
            ));
            Exit::Failed
        }
        0 => {
            if job.output.journal().is_some() {
                job.console.say(&format!("results: {results}"));
            }
            Exit::Done
        }
        failed => {
            let hint = if job.output.journal().is_some() { "; --retry-failed does them again" } else { "" };
            job.console.say(&format!("{} failed, see {results}{hint}", show::of(failed, "row", "rows")));
            Exit::Failed
        }
    }
}

/// Waits for the results to be written; not for long after a second Ctrl-C, since whoever reads them may hold us up.
async fn written(writer: Writer, stop: &Stop) -> io::Result<()> {
    tokio::select! {
        written = writer.finish() => written,
        () = async { stop.reached(Level::Now).await; tokio::time::sleep(LAST_WORDS).await } => Ok(()),
    }
}

async fn tell_of_stop(job: Arc<Job>) {
    job.stop.reached(Level::Drain).await;
    if job.stop.interrupted() {
        let lanes = job.scheduler.snapshot().lanes;
        let running = lanes.iter().map(|lane| u64::from(lane.status.in_flight)).sum::<u64>();
        let running = show::of(running, "running request", "running requests");
        job.console.print(&format!("stopping: {running} may finish; Ctrl-C again stops at once"));
    }
}

fn problems(checked: &Checked, from: &settings::InputFrom) -> String {
    if let Some(instead) = checked.instead {
        return instead.hint(from.file());
    }
    let shown = checked.problems.join("\n  ");
    let more = checked.invalid - checked.problems.len() as u64;
    let more = if more > 0 { format!("\n  … and {} more", show::count(more)) } else { String::new() };
    let what = show::of(checked.invalid, "line cannot be sent", "lines cannot be sent");
    format!("{what}, so nothing was; --skip-invalid goes on without\n  {shown}{more}")
}

fn introduce(console: &Console, settings: &Settings, checked: &Checked, output: &Output) {
    for warning in &settings.warnings {
        console.say(&format!("warning: {warning}"));
    }
    if checked.invalid > 0 {
        let what =
            show::of(checked.invalid, "line cannot be sent and is skipped", "lines cannot be sent and are skipped");
        console.say(&format!("{what}:"));
        checked.problems.iter().for_each(|problem| console.say(&format!("  {problem}")));
    }
    if checked.uncertain > 0 {
        let what = show::of(checked.uncertain, "row was", "rows were");
        let then = match settings.uncertain {
            Uncertain::Run => "run again, though the provider may have done them (--uncertain skip leaves them)",
            Uncertain::Skip => "are left without a result",
        };
        console.say(&format!("{what} sent by an earlier run without a result; they {then}"));
    }
    if settings.talk > Talk::Quiet && checked.done > 0 {
        let (done, rows) = (show::count(checked.done), show::count(checked.rows));
        console.say(&format!("{done} of {rows} rows have a result in {}", output.name()));
    }
}

/// A mock that enforces what the scheduler was told, model by model.
async fn start_mock(mock: MockSettings, sizes: &Scheduler, checked: &Checked) -> Result<Mock> {
    let MockSettings { mut config, shapes } = mock;
    for queue in &checked.queues {
        let gates = sizes.lane_of(&queue.model).status.gates;
        let mut limits = enforced(gates.iter().map(|gate| gate.limit), config.dialect);
        reshape(&mut limits.shapes, &shapes);
        config.models.insert(queue.model.clone(), limits);
    }
    Mock::start(config).await.context("cannot start the mock")
}
