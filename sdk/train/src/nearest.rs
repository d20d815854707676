//! The known name that a mistyped one probably meant.

use crate::error::excerpt;

/// The optimal string alignment distance between two words: insertions, deletions, replacements and swaps of
/// neighbouring characters, each at cost 1. Takes time and memory proportional to the product of the lengths.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let width = b.len() + 1;
    let mut cost = vec![0usize; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = i * width + j;
            if i == 0 || j == 0 {
                cost[at] = i + j;
                continue;
            }
            let replace = cost[at - width - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(cost[at - width] + 1).min(cost[at - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(cost[at - 2 * width - 2] + 1);
            }
            cost[at] = best;
        }
    }
    cost[cost.len() - 1]
}

/// The name among `known` that is nearest to `name`, without regard to case, if it is near enough to be a likely
/// mistake: at most a third of the longer word's characters differ (at least one may), or one contains the other.
/// Ties go to the earlier one.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a word of this length, and the distance costs its square.
    if name.len() > 200 {
        return None;
    }
    let folded = name.to_lowercase().replace('-', "_");
    let mut best: Option<(usize, &str)> = None;
    for candidate in known.into_iter().filter(|candidate| candidate.len() <= 200) {
        let other = candidate.to_lowercase().replace('-', "_");
        let longer = folded.chars().count().max(other.chars().count());
        let mut distance = edit_distance(&folded, &other);
        let shorter = folded.len().min(other.len());
        if shorter >= 3 && (folded.contains(&other) || other.contains(&folded)) {
            distance = distance.min((longer / 3).max(1));
        }
        if distance <= (longer / 3).max(1)
            && distance < longer
            && best.is_none_or(|(lowest, _)| distance < lowest)
        {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Names as a list for a message: "`a`, `b`, `c`"; after twenty of them the rest is counted.
pub fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return "none".to_string();
    }
    let mut list: Vec<String> =
        names.iter().take(20).map(|name| format!("`{}`", excerpt(name))).collect();
    if names.len() > 20 {
        list.push(format!("and {} more", names.len() - 20));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_swaps_once() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("lable", "label"), 1);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn nearest_finds_likely_mistakes_only() {
        let known = ["learning_rate", "epochs", "batch_tokens", "label"];
        assert_eq!(nearest("lable", known), Some("label"));
        assert_eq!(nearest("learning-rat", known), Some("learning_rate"));
        assert_eq!(nearest("epoch", known), Some("epochs"));
        assert_eq!(nearest("tokens", known), Some("batch_tokens"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn quoted_list_counts_the_rest() {
        assert_eq!(quoted_list(["a", "b"]), "`a`, `b`");
        let many: Vec<String> = (0..25).map(|i| i.to_string()).collect();
        assert!(quoted_list(many.iter().map(String::as_str)).ends_with("and 5 more"));
    }
}
