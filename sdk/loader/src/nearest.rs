//! The nearest known name to one that is not known, for messages.

/// Number of single-character insertions, deletions and replacements between two texts (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The known name with the fewest edits to `wanted`, if it is near enough to be a likely slip: at most a third of the
/// longer name, and at least two edits are always allowed.
pub(crate) fn nearest<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (best, edits) = known
        .into_iter()
        .map(|name| (name, distance(wanted, name)))
        .min_by_key(|&(name, edits)| (edits, name))?;
    let longer = wanted.chars().count().max(best.chars().count());
    (edits <= (longer / 3).max(2) && edits < longer).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn only_likely_slips_are_offered() {
        let known = ["cross-entropy", "mse", "focal"];
        assert_eq!(nearest("cros-entropi", known), Some("cross-entropy"));
        assert_eq!(nearest("mae", known), Some("mse"));
        assert_eq!(nearest("wasserstein", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
