//! Rules on the scores of the next token, in the order in which transformers applies them.

use super::options::GenerateOptions;

/// Changes the scores `[V]` of the token that follows `history` (the run's tokens, the first ones given and `new` of
/// them made). Logits for greedy search and sampling, log probabilities for beams, as in transformers.
pub fn apply(options: &GenerateOptions, history: &[i64], new: usize, scores: &mut [f32]) {
    if options.repetition_penalty != 1.0 {
        penalise(options.repetition_penalty as f32, history, scores);
    }
    if options.no_repeat_ngram > 0 {
        for token in completions(options.no_repeat_ngram, history) {
            forbid(token, scores);
        }
    }
    if new < options.min_new_tokens {
        options.eos.iter().for_each(|&token| forbid(token, scores));
    }
    if let Some(token) = options.forced_first.filter(|_| new == 0) {
        force(token, scores);
    }
    if let Some(token) = options.forced_last.filter(|_| new + 1 == options.max_new_tokens) {
        force(token, scores);
    }
}

fn score_of(token: i64, scores: &mut [f32]) -> Option<&mut f32> {
    usize::try_from(token).ok().and_then(|token| scores.get_mut(token))
}

fn forbid(token: i64, scores: &mut [f32]) {
    if let Some(score) = score_of(token, scores) {
        *score = f32::NEG_INFINITY;
    }
}

fn force(token: i64, scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    if let Some(score) = score_of(token, scores) {
        *score = 0.0;
    }
}

/// Keskar et al. 2019, "CTRL": each token of the history counts once.
fn penalise(penalty: f32, history: &[i64], scores: &mut [f32]) {
    let mut tokens = history.to_vec();
    tokens.sort_unstable();
    tokens.dedup();
    for token in tokens {
        if let Some(score) = score_of(token, scores) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Tokens that would complete a sequence of `len` tokens which the history already holds.
fn completions(len: usize, history: &[i64]) -> impl Iterator<Item = i64> {
    let begun = history.len().checked_sub(len - 1).map_or(&[][..], |at| &history[at..]);
    let windows =
        if history.len() < len { history[..0].windows(len) } else { history.windows(len) };
    windows.filter(move |window| window[..len - 1] == *begun).map(move |window| window[len - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: f32 = f32::NEG_INFINITY;

    fn applied(json: &str, history: &[i64], new: usize) -> Vec<f32> {
        let mut scores = vec![1.0, -1.0, 2.0, -2.0, 0.5];
        apply(&GenerateOptions::parse(json).unwrap(), history, new, &mut scores);
        scores
    }

    #[test]
    fn tokens_of_the_history_are_penalised_once() {
        let found = applied(r#"{"repetition_penalty": 2.0}"#, &[0, 3, 0, 3, 9, -1], 3);
        assert_eq!(found, [0.5, -1.0, 2.0, -4.0, 0.5]);
    }

    #[test]
    fn sequences_that_the_history_holds_are_not_completed_again() {
        let three = r#"{"no_repeat_ngram": 3}"#;
        assert_eq!(applied(three, &[1, 2, 3, 0, 1, 2], 4), [1.0, -1.0, 2.0, NO, 0.5]);
        assert_eq!(applied(three, &[1, 2, 3, 1, 2, 4, 1, 2], 4), [1.0, -1.0, 2.0, NO, NO]);
        assert_eq!(applied(three, &[1, 2], 0), [1.0, -1.0, 2.0, -2.0, 0.5]);
        assert_eq!(applied(three, &[2, 2, 2], 0), [1.0, -1.0, NO, -2.0, 0.5]);
        // Single tokens may stand once.
        assert_eq!(applied(r#"{"no_repeat_ngram": 1}"#, &[4, 0], 0), [NO, -1.0, 2.0, -2.0, NO]);
    }

    #[test]
    fn first_and_last_tokens_are_forced_and_ends_put_off() {
        let options = r#"{"min_new_tokens": 2, "max_new_tokens": 3, "eos": [2, 7],
            "forced_first": 3, "forced_last": 2}"#;
        assert_eq!(applied(options, &[0], 0), [NO, NO, NO, 0.0, NO]);
        assert_eq!(applied(options, &[0, 3], 1), [1.0, -1.0, NO, -2.0, 0.5]);
        assert_eq!(applied(options, &[0, 3, 0], 2), [NO, NO, 0.0, NO, NO]);
    }
}
