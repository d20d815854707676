//! The texts of a set that a text begins with.

/// Texts with a number each, sorted, so that those with a given beginning lie together.
pub struct Prefixes {
    entries: Vec<(Box<[u8]>, u32)>,
    /// Where the texts of each first byte begin.
    starts: Vec<u32>,
}

impl Prefixes {
    /// The set of some texts. Of equal texts the first counts; empty ones never match.
    pub fn new<'a>(texts: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut entries: Vec<(Box<[u8]>, u32)> = texts
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, number)| (text.into(), number))
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|a, b| a.0 == b.0);
        let mut starts = vec![0; 257];
        for (text, _) in &entries {
            starts[usize::from(text[0]) + 1] += 1;
        }
        for byte in 0..256 {
            starts[byte + 1] += starts[byte];
        }
        Self { entries, starts }
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All texts.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.entries.iter().map(|(text, _)| &**text)
    }

    /// Calls `found` with the length and number of every text that `text` begins with, shortest first.
    pub fn visit(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let Some(&first) = text.first() else { return };
        let (mut low, mut high) = (
            self.starts[usize::from(first)] as usize,
            self.starts[usize::from(first) + 1] as usize,
        );
        let mut depth = 1;
        while low < high {
            let (entry, number) = &self.entries[low];
            // The shortest of the texts with this beginning comes first.
            if entry.len() == depth {
                found(depth, *number);
                low += 1;
            }
            let Some(&byte) = text.get(depth) else { return };
            let rest = &self.entries[low..high];
            let begin = rest.partition_point(|(entry, _)| entry[depth] < byte);
            let end = rest[begin..].partition_point(|(entry, _)| entry[depth] == byte) + begin;
            (low, high) = (low + begin, low + end);
            depth += 1;
        }
    }

    /// Length and number of the longest text that `text` begins with.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut longest = None;
        if !self.is_empty() {
            self.visit(text, |len, number| longest = Some((len, number)));
        }
        longest
    }

    /// The number of a text.
    pub fn get(&self, text: &[u8]) -> Option<u32> {
        let at = self.entries.binary_search_by(|(entry, _)| (**entry).cmp(text)).ok()?;
        Some(self.entries[at].1)
    }
}
