//! The loop over the rows: as many as may be under way, each by the scheduler, each noted before it is sent and written when
//! it is answered.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::providers;
use tollgate::{Attempt, Error, Lookup, Reply, Request, Scheduler, Target};

use super::check::{Place, Queue};
use super::console::Console;
use super::failures::{Failures, Silence, no_answer};
use super::input::{Input, Places};
use super::memory::Memory;
use super::output::Output;
use super::result::{Answer, Mask, NO_JSON, Outcome, json, line, told};
use super::row::{Id, LineFormat, Row};
use super::tally::Tally;
use crate::clock;
use crate::stop::{Level, Stop};

/// Lines that may be in memory at once, in bytes. A hundred kilobytes each still leaves room for hundreds of requests.
const READ_AHEAD: usize = 32 << 20;

/// An answer without an end would fill the memory. The longest that an API gives, 2,048 embeddings of 3,072 numbers, has some 82 MB.
const LONGEST_ANSWER: usize = 256 << 20;

/// After so many failures of a kind that meets every row, and no success in between, the rest is better left for later.
const HOPELESS: u64 = 100;

/// What all rows share.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) scheduler: Scheduler,
    pub(crate) shape: LineFormat,
    pub(crate) output: Output,
    pub(crate) mask: Mask,
    pub(crate) stop: Stop,
    pub(crate) console: Arc<Console>,
    /// Where what is found out about limits is kept.
    pub(crate) memory: Option<Memory>,
    pub(crate) tally: Tally,
    pub(crate) failures: Failures,
    pub(crate) silence: Silence,
    pub(crate) began: Instant,
    /// Rows that were sent by an earlier run and have no result.
    pub(crate) uncertain: HashSet<Id>,
    /// Rows that are still to be done, by the name of their pool.
    pub(crate) left: Vec<(String, AtomicU64)>,
    /// Why it stopped by itself.
    pub(crate) trouble: OnceLock<String>,
}

impl Job {
    /// Rows without a result so far.
    pub(crate) fn left(&self) -> u64 {
        self.left.iter().map(|(_, left)| left.load(Relaxed)).sum()
    }

    /// Keeps what was found out about limits. A failure costs a warning and no row.
    pub(crate) fn keep_learned(&self) {
        if let Some(Err(error)) = self.memory.as_ref().map(|memory| memory.keep(&self.scheduler)) {
            self.console.say(&format!("warning: {error:#}"));
        }
    }

    /// One row, from its line to its result. `false`: it was left for a later run.
    async fn perform(&self, bytes: Bytes, nth: u32, results: &mpsc::Sender<Vec<u8>>) -> Result<bool> {
        if self.stop.level() > Level::Go {
            return Ok(false);
        }
        let (row, prompt) = Row::read(&bytes, nth, &self.shape)
            .map_err(|problem| anyhow!("the input was changed while it was read{problem}"))?;
        let (sent, under_way) = (AtomicBool::new(false), AtomicBool::new(false));
        let call = |attempt: Attempt| {
            let (row, sent, under_way) = (&row, &sent, &under_way);
            async move {
                sent.store(true, Relaxed);
                under_way.store(true, Relaxed);
                let answer = self.attempt(&attempt, row).await;
                under_way.store(false, Relaxed);
                answer
            }
        };
        let ended = {
            let mut work = pin!(self.answer(&row, Request::from(prompt), call));
            let mut stopped = pin!(self.stop.reached(Level::Drain));
            // What waits is given up when told to stop, what was sent is not.
            poll_fn(|context| {
                if let Poll::Ready(result) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(result));
                }
                let idle = !under_way.load(Relaxed);
                if idle && stopped.as_mut().poll(context).is_ready() { Poll::Ready(None) } else { Poll::Pending }
            })
            .await
        };
        let outcome = match ended {
            Some(Ok(Some(answer))) => Outcome::of_answer(answer),
            Some(Err(error)) => Outcome::of_error(&error),
            // It could not be noted, so it was not sent.
            Some(Ok(None)) => return Ok(false),
            None => {
                if let Some(journal) = self.output.journal().filter(|_| sent.load(Relaxed)) {
                    journal.back(row.id);
                }
                return Ok(false);
            }
        };
        let fault = outcome.fault.clone();
        if results.send(line(&row, outcome, &self.mask)).await.is_err() {
            // The writer has failed; it says why.
            return Ok(false);
        }
        if self.uncertain.contains(&row.id) {
            self.tally.resolved.fetch_add(1, Relaxed);
        }
        match fault {
            None => self.tally.succeeded(),
            Some(fault) => {
                let text = self.mask.clean(format!("{}: {}: {}", row.custom_id, fault.code, fault.message));
                self.console.detail(&text);
                self.failures.note(&self.mask.clean(fault.kind), &self.mask.clean(fault.told));
                if self.tally.failed(fault.general) >= HOPELESS {
                    self.give_up(fault.message);
                }
            }
        }
        Ok(true)
    }

    /// The rest is better left for later.
    fn give_up(&self, why: String) {
        let _ = self.trouble.set(self.mask.clean(why));
        self.stop.raise(Level::Drain);
    }

    /// What the cache knows, or what `call` brings.
    async fn answer<C>(
        &self,
        row: &Row,
        request: Request,
        mut call: impl FnMut(Attempt) -> C,
    ) -> Result<Option<Answer>, Error<reqwest::Error>>
    where
        C: Future<Output = Result<Option<Answer>, reqwest::Error>>,
    {
        let lead = match self.scheduler.lookup(&request, &row.path, &row.body).await {
            Lookup::Hit(reply) => return Ok(Some(self.cached(reply))),
            Lookup::Failed { failure, attempts } => return Err(Error::Shared { failure, attempts }),
            Lookup::Miss(lead) => lead,
            _ => return self.scheduler.submit(request, call).await,
        };
        let attempts = AtomicU32::new(0);
        let led = |attempt: Attempt| {
            lead.sent(&attempt);
            attempts.store(attempt.number(), Relaxed);
            call(attempt)
        };
        let ended = self.scheduler.submit(request, led).await;
        let old = match &ended {
            Ok(Some(answer)) => match answer.failure() {
                Some(failure) => lead.failed(&failure, attempts.load(Relaxed)),
                None => {
                    lead.answered(answer.status, answer.request_id.clone(), answer.body.clone());
                    None
                }
            },
            Ok(None) => None,
            Err(error) => lead.failed_with(error),
        };
        old.map_or(ended, |old| Ok(Some(self.cached(old))))
    }

    /// An answer that no call was made for. Those of earlier runs are of the provider that is asked.
    fn cached(&self, reply: Reply) -> Answer {
        let provider = reply.target.as_ref().map_or(self.shape.provider, Target::provider);
        Answer { provider, status: reply.status, request_id: reply.request_id, body: reply.body }
    }

    /// One attempt; `None` when it could not be noted and was not sent.
    async fn attempt(&self, attempt: &Attempt, row: &Row) -> Result<Option<Answer>, reqwest::Error> {
        self.tally.admitted(self.began.elapsed());
        if self.output.journal().is_some_and(|journal| !journal.sent(row.id, &self.stop)) {
            attempt.unsent();
            return Ok(None);
        }
        let answer = self.called(attempt, row).await;
        match &answer {
            Ok(answer) => match answer.failure().filter(|failure| failure.status >= 500) {
                Some(failure) => self.silence.met(self.mask.clean(told(&failure))),
                None => self.silence.over(),
            },
            Err(error) => self.silence.met(self.mask.clean(no_answer(error))),
        }
        answer.map(Some)
    }

    async fn called(&self, attempt: &Attempt, row: &Row) -> Result<Answer, reqwest::Error> {
        let mut response = self.scheduler.post(attempt, &row.path, row.body.clone()).send().await?;
        let status = response.status().as_u16();
        attempt.answer(status, response.headers());
        let request_id = providers::observe(attempt.provider(), response.headers(), clock::wall()).request_id;
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_ANSWER => {
                    attempt.unusable("the answer is longer than 256 MiB");
                    return Ok(Answer { provider: attempt.provider(), status, request_id, body: Bytes::new() });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // The status of an error says enough.
                Err(_) if status >= 400 => break,
                Err(error) => return Err(error),
            }
        }
        let body = self.mask.clean_bytes(Bytes::from(body));
        if status >= 400 || providers::is_error_body(&body) {
            attempt.error_body(&body);
        } else if let Some(usage) = providers::usage_in_bytes(&body) {
            attempt.usage(usage);
        } else if json(&body).is_none() {
            attempt.unusable(NO_JSON);
            // Each of them may have been paid for.
            if self.tally.of_no_use() >= HOPELESS {
                self.give_up(NO_JSON.to_owned());
            }
        }
        Ok(Answer { provider: attempt.provider(), status, request_id, body })
    }
}

/// The rows of one model on their way.
struct Feed {
    places: std::vec::IntoIter<Place>,
    reader: Places,
    /// Tasks, and the bytes of their lines.
    running: usize,
    bytes: usize,
}

impl Feed {
    fn is_over(&self) -> bool {
        self.running == 0 && self.places.len() == 0
    }
}

/// Does the rows of all queues, side by side, until all are done or the job is told to stop.
///
/// Every model has the same share of the places, so that one whose limits are low does not keep the others from theirs; the
/// share of a model that is done goes to the rest.
pub(crate) async fn run(
    job: &Arc<Job>,
    input: &Input,
    queues: Vec<Queue>,
    max_concurrent: usize,
    results: mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let cannot = || format!("cannot read {}", input.path().display());
    let mut feeds = Vec::with_capacity(queues.len());
    for queue in queues {
        let reader = input.places().with_context(cannot)?;
        feeds.push(Feed { places: queue.places.into_iter(), reader, running: 0, bytes: 0 });
    }
    let mut tasks = JoinSet::new();
    let mut first = 0;
    loop {
        let active = feeds.iter().filter(|feed| !feed.is_over()).count();
        // Whose row has ended comes last, so that fewer places than models go round.
        for index in (first..feeds.len()).chain(0..first) {
            fill(job, &mut feeds, index, active, max_concurrent, &results, &mut tasks).with_context(cannot)?;
        }
        let ended = tokio::select! {
            biased;
            () = job.stop.reached(Level::Now) => break,
            ended = tasks.join_next() => ended,
        };
        let Some(ended) = ended else { break };
        let (index, bytes, result) = ended.context("a task has failed; please report this")?;
        let done: Result<bool> = result;
        if done? {
            job.left[index].1.fetch_sub(1, Relaxed);
        }
        feeds[index].running -= 1;
        feeds[index].bytes -= bytes;
        first = index + 1;
    }
    Ok(())
}

/// Starts rows of a feed until its share is used.
fn fill(
    job: &Arc<Job>,
    feeds: &mut [Feed],
    index: usize,
    active: usize,
    max_concurrent: usize,
    results: &mpsc::Sender<Vec<u8>>,
    tasks: &mut JoinSet<(usize, usize, Result<bool>)>,
) -> std::io::Result<()> {
    let active = active.max(1);
    let (places, bytes) = ((max_concurrent / active).max(1), READ_AHEAD / active);
    let feed = &mut feeds[index];
    while feed.running < places && tasks.len() < max_concurrent && (feed.bytes < bytes || feed.running == 0) {
        if job.stop.level() > Level::Go {
            return Ok(());
        }
        let Some(place) = feed.places.next() else { return Ok(()) };
        let line = feed.reader.read(place.offset, place.length)?;
        feed.running += 1;
        feed.bytes += line.len();
        let (job, results) = (job.clone(), results.clone());
        tasks.spawn(async move {
            let length = line.len();
            let done = job.perform(line, place.nth, &results).await;
            (index, length, done)
        });
    }
    Ok(())
}
