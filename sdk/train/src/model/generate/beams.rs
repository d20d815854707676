//! Beam search over one run, as transformers has had it since 4.50 (`GenerationMixin._beam_search`): the same
//! candidates, scores and ends, in single precision as there.

use super::options::{EarlyStopping, GenerateOptions};

/// Stands for "impossible": lower than any sum of log probabilities.
const NEVER: f32 = -1e9;

/// New tokens of a run and their score.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The new tokens.
    pub tokens: Vec<i64>,
    /// The sum of their log probabilities, by the length penalty once it is finished.
    pub score: f32,
}

/// The beams of one run.
pub struct Beams {
    running: Vec<Hypothesis>,
    /// At most as many as there are beams, the best first.
    finished: Vec<Hypothesis>,
    /// Whether a running beam may still become better than a finished one.
    open: bool,
}

/// A beam of the next step: the running one that it continues, and the token.
pub type LaneStep = (usize, i64);

impl Beams {
    /// As many equal beams as the options say; the first alone may be continued at the first step.
    pub fn new(options: &GenerateOptions) -> Self {
        let beam = |score| Hypothesis { tokens: Vec::new(), score };
        let running = (0..options.beams).map(|index| beam(if index == 0 { 0.0 } else { NEVER }));
        Self { running: running.collect(), finished: Vec::new(), open: true }
    }

    /// Takes the log probabilities [beams, V] of the next token of each running beam. Answers with the beams that run
    /// on, or with nothing when the search has ended.
    pub fn step(&mut self, options: &GenerateOptions, scores: &[f32]) -> Vec<LaneStep> {
        let beams = options.beams;
        let new = self.running.first().map_or(0, |beam| beam.tokens.len()) + 1;
        let width = (scores.len() / beams).max(1);
        // Even if every beam's likeliest token ends it, enough others are left to run on.
        let kept = (1 + options.eos.len()).max(2) * beams;
        let candidates: Vec<Candidate> = best(self.sums(scores, width), kept)
            .into_iter()
            .map(|(index, score)| {
                let (beam, token) = (index / width, (index % width) as i64);
                Candidate { beam, token, score, ends: options.ends(token, new) }
            })
            .collect();
        let penalty = |len: usize| (len as f64).powf(options.length_penalty) as f32;
        let likeliest = candidates.iter().take(beams);
        for candidate in likeliest.filter(|candidate| candidate.ends) {
            let tokens = self.continued(candidate);
            self.finished.push(Hypothesis { tokens, score: candidate.score / penalty(new) });
        }
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beams);

        let running = candidates
            .iter()
            .map(|candidate| candidate.score + if candidate.ends { NEVER } else { 0.0 });
        let chosen = best(running, beams);
        let steps: Vec<LaneStep> =
            chosen.iter().map(|&(at, _)| (candidates[at].beam, candidates[at].token)).collect();
        self.running = chosen
            .iter()
            .map(|&(at, score)| Hypothesis { tokens: self.continued(&candidates[at]), score })
            .collect();

        let full = self.finished.len() == beams;
        let longest = match options.early_stopping {
            EarlyStopping::Never if options.length_penalty > 0.0 => options.max_new_tokens,
            _ => new,
        };
        let reachable = self.running.first().map_or(NEVER, |beam| beam.score) / penalty(longest);
        let worst = self.finished.last().filter(|_| full).map_or(NEVER, |beam| beam.score);
        self.open &= reachable > worst;
        let is_enough = full && options.early_stopping == EarlyStopping::WhenFull;
        let all_end = candidates.iter().all(|candidate| candidate.ends);
        if !self.open || is_enough || all_end { Vec::new() } else { steps }
    }

    /// The best finished ones.
    pub fn results(self, count: usize) -> impl Iterator<Item = Hypothesis> {
        self.finished.into_iter().take(count)
    }

    /// Scores of all beams with all tokens.
    fn sums(&self, scores: &[f32], width: usize) -> impl Iterator<Item = f32> {
        let rows = self.running.iter().zip(scores.chunks_exact(width));
        rows.flat_map(|(beam, row)| row.iter().map(|score| beam.score + score))
    }

    fn continued(&self, candidate: &Candidate) -> Vec<i64> {
        let mut tokens = self.running[candidate.beam].tokens.clone();
        tokens.push(candidate.token);
        tokens
    }
}

/// A beam with one more token.
struct Candidate {
    beam: usize,
    token: i64,
    score: f32,
    ends: bool,
}

/// The `count` greatest values with their places, the greatest first; of equal ones the first.
fn best(values: impl Iterator<Item = f32>, count: usize) -> Vec<(usize, f32)> {
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(count + 1);
    for (at, value) in values.enumerate() {
        if best.len() == count && best.last().is_some_and(|&(_, last)| value <= last) {
            continue;
        }
        best.insert(best.partition_point(|&(_, other)| other >= value), (at, value));
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> GenerateOptions {
        GenerateOptions::parse(json).unwrap()
    }

    /// Log probabilities of the tokens 0 to 3, where 0 ends a run.
    fn rows(rows: &[[f32; 4]]) -> Vec<f32> {
        rows.iter().flatten().map(|p| p.ln()).collect()
    }

    #[test]
    fn the_greatest_values_come_first_and_equal_ones_in_their_order() {
        let values = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];
        assert_eq!(best(values.into_iter(), 3), [(1, 3.0), (3, 3.0), (2, 2.0)]);
        assert_eq!(best(values.into_iter(), 9).len(), 5);
    }

    #[test]
    fn a_likelier_whole_beats_a_likelier_beginning() {
        // Token 1 is likeliest at first, but what follows 2 is nearly sure.
        let options = options(r#"{"beams": 2, "eos": [0], "max_new_tokens": 4}"#);
        let mut beams = Beams::new(&options);
        let first = [0.01, 0.5, 0.4, 0.09];
        assert_eq!(beams.step(&options, &rows(&[first, first])), [(0, 1), (0, 2)]);
        let next = beams.step(&options, &rows(&[[0.3, 0.3, 0.2, 0.2], [0.97, 0.01, 0.01, 0.01]]));
        // "2, end" is finished, "1, end" is no longer among the two likeliest to count.
        assert_eq!(beams.finished.len(), 2);
        assert_eq!(beams.finished[0].tokens, [2, 0]);
        assert!((beams.finished[0].score - (0.4f32 * 0.97).ln() / 2.0).abs() < 1e-6);
        assert!(next.is_empty(), "nothing that runs is better than what is finished: {next:?}");
    }

    #[test]
    fn early_stopping_decides_between_enough_and_better() {
        let step = |stopping: &str, penalty: f64| {
            let options = options(&format!(
                r#"{{"beams": 2, "eos": [0], "max_new_tokens": 9, "early_stopping": {stopping},
                    "length_penalty": {penalty}}}"#
            ));
            let mut beams = Beams::new(&options);
            let first = [0.3, 0.5, 0.1, 0.1];
            assert_eq!(beams.step(&options, &rows(&[first, first])).len(), 2);
            assert_eq!(beams.finished.len(), 1);
            beams.step(&options, &rows(&[[0.6, 0.4, 0.0, 0.0], [0.1, 0.3, 0.3, 0.3]])).len()
        };
        // Finished: ln(0.3) = -1.20 and ln(0.3) / 2 = -0.60; running: ln(0.2) = -1.61, / 2 = -0.80 now, / 9 = -0.18
        // at best.
        assert_eq!(step("true", 1.0), 0);
        assert_eq!(step("false", 1.0), 2);
        assert_eq!(step("\"never\"", 1.0), 2);
        // Without a penalty by length -1.61 is worse than both.
        assert_eq!(step("false", 0.0), 0);
        assert_eq!(step("\"never\"", 0.0), 0);
    }

    #[test]
    fn runs_end_at_their_longest() {
        let options = options(r#"{"beams": 2, "max_new_tokens": 2, "return": 2}"#);
        let mut beams = Beams::new(&options);
        let row = [0.1, 0.2, 0.3, 0.4];
        assert_eq!(beams.step(&options, &rows(&[row, row])), [(0, 3), (0, 2)]);
        assert_eq!(beams.step(&options, &rows(&[row, row])), []);
        let found: Vec<_> = beams.results(2).map(|beam| beam.tokens).collect();
        assert_eq!(found, [[3, 3], [3, 2]]);
    }
}
