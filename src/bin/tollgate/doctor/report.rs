//! The examination, for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use tollgate::Secret;

use super::finding::{Finding, Mark};
use super::verdict::Verdict;
use crate::{Exit, show};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) sentence: String,
    /// The program's exit code.
    exit_code: u8,
    /// What was examined or explained.
    pub(super) about: Value,
    pub(super) checks: Vec<Finding>,
}

impl Report {
    pub(super) fn new(verdict: Verdict, sentence: String, about: Value, checks: Vec<Finding>) -> Self {
        Self { verdict, sentence, exit_code: verdict.exit() as u8, about, checks }
    }

    /// Prints it to standard output, without `secret` whatever a server made of it.
    pub(super) fn print(&self, json: bool, secret: Option<&Secret>) -> Result<Exit> {
        let text = if json { serde_json::to_string_pretty(self)? } else { self.lines() };
        show::out(&show::without(&text, secret));
        Ok(self.verdict.exit())
    }

    fn lines(&self) -> String {
        let widest = self.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { check, result, seen, .. } in &self.checks {
            let mark = match result {
                Mark::Ok => "ok",
                Mark::Warn => "warn",
                Mark::Fail => "fail",
                Mark::Skipped => "skipped",
            };
            let _ = writeln!(text, "{mark:<7}  {check:<widest$}  {seen}");
        }
        let end = if self.verdict == Verdict::Healthy { " " } else { ": " };
        let _ = write!(text, "\nverdict: {}{end}{}", self.verdict.words(), self.sentence);
        text
    }
}
