//! The texts of a prompt, copied into one buffer.

/// Texts in the order they were found, in groups that are counted (and remembered) together.
///
/// A group is usually one text. A request's tool definitions are dozens of short texts that come again in every
/// request: as one group they are looked up at once, where each alone would be too short to remember.
#[derive(Clone, Default)]
pub(super) struct Texts {
    buffer: String,
    /// End of each text in `buffer`.
    ends: Vec<usize>,
    /// End of each group in `ends`.
    groups: Vec<usize>,
    grouping: bool,
}

impl Texts {
    /// Adds a text, to the open group if there is one.
    pub(super) fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.buffer.push_str(text);
        self.ends.push(self.buffer.len());
        if !self.grouping {
            self.groups.push(self.ends.len());
        }
    }

    /// Texts pushed from here on form one group, until [`close_group`](Self::close_group).
    pub(super) fn open_group(&mut self) {
        self.grouping = true;
    }

    /// Ends the group; without texts it leaves no trace.
    pub(super) fn close_group(&mut self) {
        self.grouping = false;
        if self.groups.last().copied().unwrap_or(0) < self.ends.len() {
            self.groups.push(self.ends.len());
        }
    }

    /// Bytes of all texts.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The groups, in order.
    pub(super) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        let mut first = 0;
        self.groups.iter().map(move |&last| {
            let start = if first == 0 { 0 } else { self.ends[first - 1] };
            let ends = &self.ends[first..last];
            first = last;
            Group { whole: &self.buffer[start..self.ends[last - 1]], start, ends }
        })
    }
}

/// Texts that are counted together: each on its own, the sum remembered as one.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    /// The texts one after the other.
    pub(super) whole: &'a str,
    /// Where `whole` begins in the buffer.
    start: usize,
    /// Where each text ends in the buffer.
    pub(super) ends: &'a [usize],
}

impl<'a> Group<'a> {
    /// The texts.
    pub(super) fn texts(self) -> impl Iterator<Item = &'a str> {
        let mut begin = self.start;
        self.ends.iter().map(move |&end| {
            let text = &self.whole[begin - self.start..end - self.start];
            begin = end;
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_back_as_they_were_pushed() {
        let mut texts = Texts::default();
        texts.push("one");
        texts.open_group();
        texts.push("two");
        texts.push("");
        texts.push("three");
        texts.close_group();
        texts.open_group();
        texts.close_group();
        texts.push("four");
        let groups: Vec<Vec<&str>> = texts.groups().map(|group| group.texts().collect()).collect();
        assert_eq!(groups, [vec!["one"], vec!["two", "three"], vec!["four"]]);
        assert_eq!(texts.bytes(), "onetwothreefour".len());
    }
}
