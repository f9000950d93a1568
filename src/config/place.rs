//! Where something stands in the text of a configuration.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// The way to a field: names of tables, and positions in lists.
#[derive(Debug)]
pub(crate) struct Field(Vec<Step>);

#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
}

impl Field {
    pub(crate) fn of(name: impl Into<String>) -> Self {
        Self(vec![Step::Name(name.into())])
    }

    pub(crate) fn at(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    pub(crate) fn field(mut self, name: impl Into<String>) -> Self {
        self.0.push(Step::Name(name.into()));
        self
    }

    /// Where it begins in `text`, in bytes; where it is not there, as what has a default need not be, where the nearest table
    /// around it does.
    pub(crate) fn offset(&self, text: &str) -> usize {
        let Ok(root) = DeTable::parse(text) else { return 0 };
        let root = DeValue::Table(root.into_inner());
        let (mut value, mut offset) = (&root, 0);
        for step in &self.0 {
            let found = match (step, value) {
                (Step::Name(name), DeValue::Table(table)) => {
                    let found = table.iter().find(|(key, _)| key.get_ref() == name);
                    found.map(|(key, value)| (key.span().start, value))
                }
                (Step::Index(index), DeValue::Array(list)) => list.get(*index).map(|value| (value.span().start, value)),
                _ => None,
            };
            let Some((start, inner)) = found else { break };
            (value, offset) = (inner.get_ref(), start);
        }
        offset
    }
}

/// `account[1].models.gpt-4o.rpm`
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) if i == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

/// Line and column of an offset, both from 1, the column in characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    (before.matches('\n').count() + 1, before.chars().rev().take_while(|char| *char != '\n').count() + 1)
}
