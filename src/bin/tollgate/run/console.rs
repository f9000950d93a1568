//! What the user sees while it runs: lines on standard error, above the progress display if there is one.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::settings::Talk;
use crate::show;

#[derive(Debug)]
pub(crate) struct Console {
    talk: Talk,
    bar: Option<ProgressBar>,
}

impl Console {
    /// A display of `rows`, of which `done` are done, if somebody looks at it.
    pub(crate) fn new(talk: Talk, rows: u64, done: u64) -> Self {
        let bar = (talk > Talk::Quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(rows).with_position(done);
            let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {percent} %\n{msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { talk, bar }
    }

    /// Something that everybody should know.
    pub(crate) fn say(&self, text: &str) {
        if self.talk > Talk::Quiet {
            self.print(text);
        }
    }

    /// Something for those who asked for it.
    pub(crate) fn detail(&self, text: &str) {
        if self.talk == Talk::Verbose {
            self.print(text);
        }
    }

    /// Something that is said also to those who asked for quiet.
    pub(crate) fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| show::line(text)),
            None => show::line(text),
        }
    }

    pub(crate) fn bar(&self) -> Option<&ProgressBar> {
        self.bar.as_ref()
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
