//! The pass over the whole input before anything is spent. What it leaves is where the rows are that are still to be done.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use tollgate::{Limit, Request, Scheduler};

use super::input::{Input, Instead};
use super::output::Earlier;
use super::row::{Id, Line, LineFormat, Problem, id_of};
use crate::args::Uncertain;
use crate::show;
use crate::stop::{Level, Stop};

/// So many problems are shown; the rest is counted.
const SHOWN: usize = 10;

/// More models than this share the last queue, so that a file with a million of them needs no million queues.
const MOST_QUEUES: usize = 64;

/// Where a row is: 16 bytes, of which there may be millions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// How many equal lines are before it.
    pub(crate) nth: u32,
}

/// The rows of one model, in their order.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) model: String,
    pub(crate) places: Vec<Place>,
}

/// What the pass found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Rows still to be done.
    pub(crate) queues: Vec<Queue>,
    /// Rows in the input that can be sent.
    pub(crate) rows: u64,
    /// Those of them that have a result.
    pub(crate) done: u64,
    /// Those of the done whose result is a failure.
    pub(crate) failed: u64,
    /// Those that were sent and have no result.
    pub(crate) uncertain: u64,
    /// Lines that cannot be sent.
    pub(crate) invalid: u64,
    /// The first of those, as they are shown.
    pub(crate) problems: Vec<String>,
    /// What the file seems to be.
    pub(crate) instead: Option<Instead>,
}

/// How rows are checked.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    pub(crate) shape: &'a LineFormat,
    pub(crate) known: &'a Earlier,
    pub(crate) uncertain: Uncertain,
    /// Knows the limits; nothing is sent by it.
    pub(crate) sizes: &'a Scheduler,
    pub(crate) stop: &'a Stop,
}

impl Check<'_> {
    /// Reads the whole input; `None` when it was told to stop.
    pub(crate) fn run(&self, input: &Input) -> Result<Option<Checked>> {
        let mut checked = Checked::default();
        let mut seen = Seen::default();
        let mut queues = HashMap::new();
        let cannot = || format!("cannot read {}", input.path().display());
        let mut lines = input.lines().with_context(cannot)?;
        while let Some(found) = lines.next().with_context(cannot)? {
            if self.stop.level() > Level::Go {
                return Ok(None);
            }
            if found.number == 1 {
                checked.instead = Instead::of(found.bytes);
            }
            let line = Line::read(found.bytes, self.shape).and_then(|line| {
                let Some(line) = line else { return Ok(None) };
                let (id, nth) = seen.name(&line)?;
                if !self.known.is_done(id) {
                    self.size(&line, found.bytes.len())?;
                }
                Ok(Some((line, id, nth)))
            });
            let (line, id, nth) = match line {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(problem) => {
                    checked.invalid += 1;
                    if checked.problems.len() < SHOWN {
                        checked.problems.push(format!("line {}{problem}", found.number));
                    }
                    continue;
                }
            };
            checked.rows += 1;
            if self.known.is_done(id) {
                checked.done += 1;
                checked.failed += u64::from(self.known.failed(id));
                continue;
            }
            if self.known.uncertain.contains(&id) {
                checked.uncertain += 1;
                if self.uncertain == Uncertain::Skip {
                    continue;
                }
            }
            let length = u32::try_from(found.bytes.len()).context("a line is longer than 4 GiB")?;
            let queue = match queues.get(&line.model) {
                Some(queue) => *queue,
                None => {
                    let queue = queues.len().min(MOST_QUEUES - 1);
                    if queue == checked.queues.len() {
                        checked.queues.push(Queue { model: line.model.clone(), places: Vec::new() });
                    }
                    if queues.len() < MOST_QUEUES {
                        queues.insert(line.model, queue);
                    }
                    queue
                }
            };
            checked.queues[queue].places.push(Place { offset: found.offset, length, nth });
        }
        Ok(Some(checked))
    }

    /// Refuses what is larger than a limit can ever hold. Tokens are counted only where their number could matter.
    fn size(&self, line: &Line, bytes: usize) -> Result<(), Problem> {
        let charge = |request: &Request| self.sizes.charge(request).map_err(|error| Problem::new(error.to_string()));
        if let Some(most) = line.at_most(bytes)
            && charge(&Request::new(line.model.clone(), most))?.1.is_none()
        {
            return Ok(());
        }
        match charge(&tollgate::tokens::Prompt::for_path(&line.path, &line.body).into())? {
            (_, None) => Ok(()),
            (charge, Some(limit)) => Err(too_large(charge.get(limit.dimension), &limit)),
        }
    }
}

fn too_large(size: u64, limit: &Limit) -> Problem {
    Problem::new(format!(
        "the request takes {} {}, more than {} {} can ever let pass; shorten it or lower its output cap",
        show::count(size),
        limit.dimension,
        limit.name(),
        show::count(limit.amount)
    ))
}

/// Which rows there were before.
#[derive(Debug, Default)]
struct Seen {
    /// Hashes of names and of contents.
    once: HashSet<u128>,
    /// How often contents came that came more than once.
    again: BTreeMap<u128, u32>,
}

impl Seen {
    fn name(&mut self, line: &Line) -> Result<(Id, u32), Problem> {
        use super::row::Identity::{Content, Named};
        match &line.identity {
            Named(name) => {
                let id = id_of(name);
                if !self.once.insert(id) {
                    return Err(Problem::field("custom_id", format!("{name:?} is the name of an earlier line too")));
                }
                Ok((id, 0))
            }
            Content(content) => {
                let mut nth = 0;
                if !self.once.insert(*content) {
                    let before = self.again.entry(*content).or_insert(0);
                    *before += 1;
                    nth = *before;
                }
                Ok((id_of(&line.identity.custom_id(nth)), nth))
            }
        }
    }
}
