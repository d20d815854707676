//! Regular expressions of tokenizer files. The engine that runs them goes back and tries again, so some expressions
//! take time that no text is worth: those are refused by their form. It gives up, without a word, where it has gone
//! back a million times, so no text may be so long that this happens.

/// Bytes of a text that an expression which is not well known may be run over, at most.
const STRETCH: usize = 1 << 16;
/// Characters that the engine goes back over in one place, with room to spare.
pub const MOST_BACK: usize = 1 << 19;

/// Bytes of an expression.
const LONGEST: usize = 1024;

/// Expressions of models that many use: GPT-2, GPT-4 and Llama 3, Qwen 2, GPT-4o, CLIP, and runs of spaces.
const WELL_KNOWN: [&str; 8] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r" {2,}",
    r"\s+",
    r"\s",
];

/// Whether an expression is one of many models.
fn is_well_known(expression: &str) -> bool {
    WELL_KNOWN.contains(&expression)
}

/// Bytes of a text that an expression may be run over: each alternative with a repetition may go back over all of it.
pub fn stretch(expression: &str) -> usize {
    if is_well_known(expression) {
        return MOST_BACK;
    }
    let repetitions = expression.bytes().filter(|byte| b"*+{".contains(byte)).count();
    STRETCH.min(MOST_BACK / repetitions.max(1))
}

/// What has been seen of a group or of the whole.
#[derive(Default)]
struct Group {
    /// Something in it may be matched in more than one way.
    choice: bool,
    /// Repetitions without end in the present alternative.
    endless: usize,
}

/// Why an expression is refused, if it is.
pub fn reason_against(expression: &str) -> Option<&'static str> {
    if is_well_known(expression) {
        return None;
    }
    if expression.len() > LONGEST {
        return Some("is too long");
    }
    let mut groups = vec![Group::default()];
    // What the last closed group was like, as long as a repetition may follow it.
    let mut closed: Option<Group> = None;
    let mut chars = expression.chars().peekable();
    while let Some(c) = chars.next() {
        let last = groups.len() - 1;
        let after_group = closed.take();
        match c {
            '\\' => match chars.next() {
                Some('1'..='9' | 'k' | 'g') => return Some("refers back to what it found"),
                Some('p' | 'P' | 'x') if chars.peek() == Some(&'{') => {
                    while chars.next().is_some_and(|c| c != '}') {}
                }
                _ => {}
            },
            '[' => {
                let mut depth = 1;
                while depth > 0 {
                    match chars.next() {
                        Some('\\') => drop(chars.next()),
                        Some('[') => depth += 1,
                        Some(']') => depth -= 1,
                        Some(_) => {}
                        None => return Some("has a class that does not end"),
                    }
                }
            }
            '(' => {
                groups.push(Group::default());
                if groups.len() > 16 {
                    return Some("has groups in groups in groups");
                }
                if chars.peek() == Some(&'?') {
                    chars.next();
                    // The rest of the group's kind: flags, "=", "!", ":", "<" and others.
                    while let Some(&c) = chars.peek() {
                        if matches!(c, 'R' | '(' | '&' | 'P') {
                            return Some("calls itself or has a condition");
                        }
                        if c == ')' {
                            break;
                        }
                        chars.next();
                        if matches!(c, ':' | '=' | '!' | '>') {
                            break;
                        }
                    }
                }
            }
            ')' => {
                let group = groups.pop().unwrap_or_default();
                let Some(outer) = groups.last_mut() else { return Some("has too many brackets") };
                outer.choice |= group.choice;
                outer.endless += group.endless;
                closed = Some(group);
            }
            '|' => {
                groups[last].choice = true;
                // Of the whole, only one alternative is tried to its end at a time.
                if last == 0 {
                    groups[0].endless = 0;
                }
            }
            '*' | '+' | '?' | '{' => {
                let (low, high) = match c {
                    '*' => (0, None),
                    '+' => (1, None),
                    '?' => (0, Some(1)),
                    _ => {
                        let body: String = chars.by_ref().take_while(|c| *c != '}').collect();
                        let (low, high) = body.split_once(',').unwrap_or((&body, &body));
                        let low = low.trim().parse::<usize>().unwrap_or(0);
                        match high.trim() {
                            "" => (low, None),
                            high => (low, Some(high.parse::<usize>().unwrap_or(usize::MAX))),
                        }
                    }
                };
                if high.is_some_and(|high| high > 64) || low > 64 {
                    return Some("repeats something more than 64 times");
                }
                let many = high.is_none_or(|high| high > 1);
                if many && after_group.is_some_and(|group| group.choice) {
                    return Some(
                        "repeats what can be found in more than one way, which may take forever",
                    );
                }
                groups[last].choice |= high != Some(low);
                if high.is_none() {
                    groups[last].endless += 1;
                    if groups[last].endless > 1 {
                        return Some("has more than one repetition without end in an alternative");
                    }
                }
                // A lazy or possessive repetition has a mark of its own.
                if matches!(chars.peek(), Some('?' | '+')) {
                    chars.next();
                }
            }
            _ => {}
        }
        if groups[groups.len() - 1].endless > 1 {
            return Some("has more than one repetition without end in an alternative");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_may_take_forever_are_refused() {
        for refused in [
            "(a+)+b",
            "(a*)*",
            "(?:a|a)*b",
            "(a|ab)+c",
            "([a-z]+)*$",
            r"(\w+\s?)*!",
            "(a?){50}",
            "a*a*b",
            r"(.*)\1",
            "((a{1,5}){1,5}){1,5}",
            "(x+x+)+y",
            "a{1,1000}",
            "(?=(a+))+",
            "(?R)",
            "(a|b|ab)*?c",
        ] {
            assert!(reason_against(refused).is_some(), "{refused}");
        }
    }

    #[test]
    fn expressions_of_honest_files_are_taken() {
        for taken in WELL_KNOWN.iter().chain(&[
            r"\p{N}",
            "[0-9]+",
            r"[^\S\r\n]+",
            r"\d{3}",
            "(?<=a)b",
            r"\p{L}+|\p{N}{1,3}|\s+(?!\S)",
            "a|b|c",
            r"[\u4e00-\u9fff]",
            r"(?:\d{3})+",
            r"\s+$",
            "-",
        ]) {
            assert_eq!(reason_against(taken), None, "{taken}");
        }
    }
}
