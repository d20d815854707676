//! The likeliest token, or one drawn at random.

use easytransfer_plugin::{Error, Result, Rng};

use super::options::GenerateOptions;

/// The first of the greatest scores.
pub fn likeliest(scores: &[f32]) -> usize {
    let first = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
    (0..scores.len()).fold(0, first)
}

/// Draws a token by the softmax of the scores, which are changed: one number of the generator per token. Errors: no
/// token is left that may be drawn.
pub fn draw(options: &GenerateOptions, scores: &mut [f32], rng: &Rng) -> Result<usize> {
    warp(options, scores);
    // 53 bits, as many as a double holds.
    let point = (rng.bits() >> 11) as f64 / (1u64 << 53) as f64;
    token_at(point, scores).ok_or_else(|| {
        Error::invalid("generate: the rules forbid every token; relax no_repeat_ngram or eos")
    })
}

/// Temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020), in the order of transformers.
pub fn warp(options: &GenerateOptions, scores: &mut [f32]) {
    if options.temperature != 1.0 {
        scores.iter_mut().for_each(|score| *score /= options.temperature as f32);
    }
    if options.top_k > 0 && options.top_k < scores.len() {
        let mut sorted = scores.to_vec();
        let (_, &mut least, _) =
            sorted.select_nth_unstable_by(options.top_k - 1, |a, b| b.total_cmp(a));
        forbid(scores, |_, score| score < least);
    }
    if options.top_p < 1.0 {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let weights = weights(scores);
        let all: f64 = weights.iter().sum();
        let mut sum = 0.0;
        order.pop();
        for at in order {
            sum += weights[at];
            if sum / all > 1.0 - options.top_p {
                break;
            }
            scores[at] = f32::NEG_INFINITY;
        }
    }
}

fn forbid(scores: &mut [f32], which: impl Fn(usize, f32) -> bool) {
    for (at, score) in scores.iter_mut().enumerate() {
        if which(at, *score) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// What the softmax is proportional to.
fn weights(scores: &[f32]) -> Vec<f64> {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter().map(|score| f64::from(score - greatest).exp()).collect()
}

/// The token at a point of [0, 1), on which tokens lie end to end by their probability.
fn token_at(point: f64, scores: &[f32]) -> Option<usize> {
    let weights = weights(scores);
    let end = point * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let mut last = None;
    for (at, weight) in weights.into_iter().enumerate() {
        // Tokens without probability are never drawn, nor any where no token has one.
        if weight > 0.0 {
            sum += weight;
            last = Some(at);
            if sum > end {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(json: &str, probabilities: &[f32]) -> Vec<usize> {
        let mut scores: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        warp(&GenerateOptions::parse(json).unwrap(), &mut scores);
        (0..scores.len()).filter(|&at| scores[at] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn only_the_likeliest_tokens_are_left() {
        let p = [0.1, 0.4, 0.05, 0.3, 0.15];
        assert_eq!(left(r#"{"top_k": 2}"#, &p), [1, 3]);
        assert_eq!(left(r#"{"top_k": 9}"#, &p).len(), 5);
        // The fewest tokens that have at least the asked part of the probability.
        assert_eq!(left(r#"{"top_p": 0.6}"#, &p), [1, 3]);
        assert_eq!(left(r#"{"top_p": 0.75}"#, &p), [1, 3, 4]);
        assert_eq!(left(r#"{"top_p": 0.01}"#, &p), [1]);
        // Of equal tokens at the border top-k leaves all.
        assert_eq!(left(r#"{"top_k": 1}"#, &[0.4, 0.4, 0.2]), [0, 1]);
        // Top-p counts among what top-k has left: 0.4 of 0.7 is less than 0.6, 0.4 of 0.55 is more.
        assert_eq!(left(r#"{"top_k": 2, "top_p": 0.5}"#, &p), [1]);
    }

    #[test]
    fn temperature_divides_scores() {
        let mut scores = [1.0, -3.0];
        warp(&GenerateOptions::parse(r#"{"temperature": 0.5}"#).unwrap(), &mut scores);
        assert_eq!(scores, [2.0, -6.0]);
    }

    #[test]
    fn tokens_lie_end_to_end() {
        let scores = [0.25f32.ln(), f32::NEG_INFINITY, 0.5f32.ln(), 0.25f32.ln()];
        let found = [0.0, 0.24, 0.26, 0.74, 0.76, 0.999_999_9].map(|at| token_at(at, &scores));
        assert_eq!(found, [Some(0), Some(0), Some(2), Some(2), Some(3), Some(3)]);
        assert_eq!(token_at(0.5, &[f32::NEG_INFINITY; 3]), None);
    }

    #[test]
    fn the_first_of_the_greatest_is_the_likeliest() {
        assert_eq!(likeliest(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 2]), 0);
    }
}
