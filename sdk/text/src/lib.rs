//! Words for messages: the known name that a mistyped one probably meant, lists of names, excerpts of somebody's
//! data, and what a panic said. One of each for all crates.
#![forbid(unsafe_code)]

use std::any::Any;

/// The optimal string alignment distance between two words: insertions, deletions, replacements and swaps of
/// neighbouring characters, each at cost 1. Takes time proportional to the product of the lengths.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    // Costs of the beginnings of `b` against beginnings of `a`, which grow by one character from row to row.
    let mut before_last = vec![0; b.len() + 1];
    let mut last = before_last.clone();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
        row[0] = i;
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    row[b.len()]
}

/// A name as it is compared: without regard to case, and `-` as `_`.
fn folded(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// Whether a name fits a pattern, in which `*` stands for any text, none included.
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or("");
    for part in parts {
        match name.split_once(part) {
            Some((_, behind)) => name = behind,
            None => return false,
        }
    }
    name.ends_with(last)
}

/// The name among `known` that is nearest to `name`, without regard to case, however far it is; none only where
/// nothing is known. Ties go to the earlier one.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = folded(name);
    known.into_iter().min_by_key(|other| edit_distance(&name, &folded(other)))
}

/// The name among `known` that is nearest to `name`, without regard to case, if it is near enough to be a likely
/// mistake: at most a third of the longer word's characters differ (at least one may), or one contains the other.
/// Ties go to the earlier one.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a word of this length, and the distance costs its square.
    if name.len() > 200 {
        return None;
    }
    let name = folded(name);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known.into_iter().filter(|candidate| candidate.len() <= 200) {
        let other = folded(candidate);
        let longer = name.chars().count().max(other.chars().count());
        let mut distance = edit_distance(&name, &other);
        let shorter = name.len().min(other.len());
        if shorter >= 3 && (name.contains(&other) || other.contains(&name)) {
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

/// Shortens a piece of somebody's data for a message: at most 60 characters, control characters escaped.
pub fn excerpt(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars().take(60) {
        if character.is_control() {
            short.extend(character.escape_debug());
        } else {
            short.push(character);
        }
    }
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

/// What a panic said, from the payload that `catch_unwind` gives.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name) in [
            ("head.bias", "head.bias"),
            ("head.*", "head.bias"),
            ("*.bias", "head.bias"),
            ("*", ""),
            ("encoder.*.weight", "encoder.layer.0.weight"),
            ("*layer*0*", "encoder.layer.10"),
            ("a*a", "aa"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("head", "head.bias"),
            ("head.*", "head"),
            ("*.bias", "head.bias.0"),
            ("encoder.*.weight", "encoder.weight"),
            ("a*a", "a"),
            ("", "x"),
            ("*x*y", "yx"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn edit_distance_counts_swaps_once() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("lable", "label"), 1);
        assert_eq!(edit_distance("ab", "ba"), 1);
        assert_eq!(edit_distance("a cat", "an act"), 2);
        assert_eq!(edit_distance("ca", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn closest_is_always_there_if_anything_is_known() {
        let known = ["encoder.weight", "encoder.bias"];
        assert_eq!(closest("encoder.wieght", known), Some("encoder.weight"));
        assert_eq!(closest("Encoder.Bias", known), Some("encoder.bias"));
        assert_eq!(closest("zzz", known), Some("encoder.bias"));
        assert_eq!(closest("zzz", []), None);
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
        let names = ["cross-entropy", "mse", "focal"];
        assert_eq!(nearest("cros-entropi", names), Some("cross-entropy"));
        assert_eq!(nearest("mae", names), Some("mse"));
        assert_eq!(nearest("wasserstein", names), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn quoted_list_counts_the_rest() {
        assert_eq!(quoted_list(["a", "b"]), "`a`, `b`");
        let many: Vec<String> = (0..25).map(|i| i.to_string()).collect();
        assert!(quoted_list(many.iter().map(String::as_str)).ends_with("and 5 more"));
    }

    #[test]
    fn excerpt_is_short_and_printable() {
        assert_eq!(excerpt("a\tb"), "a\\tb");
        assert_eq!(excerpt(&"é".repeat(100)).chars().count(), 61);
    }

    #[test]
    fn panic_text_knows_constant_and_formatted_messages() {
        let said = |panic: fn()| {
            let payload = std::panic::catch_unwind(panic).unwrap_err();
            panic_text(&*payload).to_owned()
        };
        assert_eq!(said(|| panic!("constant")), "constant");
        assert_eq!(said(|| panic!("number {}", std::hint::black_box(3))), "number 3");
        assert_eq!(said(|| std::panic::panic_any(3)), "no message");
    }
}
