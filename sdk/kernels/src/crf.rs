//! The linear-chain conditional random field (Lafferty, McCallum, Pereira, 2001): negative log likelihood by the
//! forward algorithm, its gradients by forward and backward, decoding by Viterbi. Everything is computed in `f64`.

use std::ops::Range;

use crate::elementwise::Store;
use crate::runs::{for_each_run_task, run_ranges, split_runs};
use crate::{Float, KernelError, Result, check_len, map_tasks};

/// Runs and tags of a field: emissions are [T, classes].
#[derive(Debug, Clone, Copy)]
pub struct CrfShape<'a> {
    /// Cumulative lengths [B + 1] of the runs.
    pub starts: &'a [i64],
    /// Number of tags, at least 1.
    pub classes: usize,
}

/// Scores of a field.
#[derive(Debug, Clone, Copy)]
pub struct CrfWeights<'a, F> {
    /// From tag (row) to the next tag (column), [classes, classes].
    pub transitions: &'a [F],
    /// Of the first tag of a run, `[classes]`.
    pub first: &'a [F],
    /// Of the last tag of a run, `[classes]`.
    pub last: &'a [F],
}

/// Where [`crf_backward`] stores its results; `None` for what nobody needs.
#[derive(Debug, Default)]
pub struct CrfGradients<'a, F> {
    /// Gradient of the emissions, [T, classes]; overwritten.
    pub emissions: Option<&'a mut [F]>,
    /// Gradient of the transitions, [classes, classes].
    pub transitions: Option<(Store, &'a mut [F])>,
    /// Gradient of the scores of the first tag, `[classes]`.
    pub first: Option<(Store, &'a mut [F])>,
    /// Gradient of the scores of the last tag, `[classes]`.
    pub last: Option<(Store, &'a mut [F])>,
}

/// Runs whose gradients one task sums: a constant, so that the order of the sums is one.
const RUNS_PER_TASK: usize = 4;
/// The smallest sum of scaled exponentials that is trusted: below it, the terms may have vanished.
const LEAST_SUM: f64 = 1e-200;

/// The weights in `f64`, and the exponentials of the transitions.
struct Scores {
    classes: usize,
    transitions: Vec<f64>,
    exp_transitions: Vec<f64>,
    first: Vec<f64>,
    last: Vec<f64>,
}

fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|term| (term - largest).exp()).sum::<f64>().ln()
}

impl Scores {
    fn new<F: Float>(weights: &CrfWeights<'_, F>, classes: usize) -> Self {
        let wide = |x: &[F]| x.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let transitions = wide(weights.transitions);
        let exp_transitions = transitions.iter().map(|v| v.exp()).collect();
        let (first, last) = (wide(weights.first), wide(weights.last));
        Self { classes, transitions, exp_transitions, first, last }
    }

    fn transition(&self, from: usize, to: usize) -> f64 {
        self.transitions[from * self.classes + to]
    }

    /// out[j] = log sum_i exp(from[i] + transition(i, j)), or with `reversed` transition(j, i). One exponential per
    /// tag unless the sum vanishes (forbidden transitions), in which case that tag is done term by term.
    fn step(&self, from: &[f64], reversed: bool, out: &mut [f64]) {
        let c = self.classes;
        let largest = from.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scaled: Vec<f64> = from.iter().map(|v| (v - largest).exp()).collect();
        if reversed {
            for (out, row) in out.iter_mut().zip(self.exp_transitions.chunks_exact(c)) {
                *out = row.iter().zip(&scaled).map(|(e, s)| e * s).sum();
            }
        } else {
            out.fill(0.0);
            for (&s, row) in scaled.iter().zip(self.exp_transitions.chunks_exact(c)) {
                out.iter_mut().zip(row).for_each(|(out, e)| *out += s * e);
            }
        }
        for (j, out) in out.iter_mut().enumerate() {
            *out = if *out > LEAST_SUM && out.is_finite() {
                largest + out.ln()
            } else {
                log_sum_exp((0..c).map(|i| {
                    let (a, b) = if reversed { (j, i) } else { (i, j) };
                    from[i] + self.transition(a, b)
                }))
            };
        }
    }

    /// The logarithms of the summed scores of all beginnings [len, classes], and of all paths.
    fn forward<F: Float>(&self, emissions: &[F]) -> (Vec<f64>, f64) {
        let c = self.classes;
        let mut alpha = vec![0.0; emissions.len()];
        let (head, mut rest) = alpha.split_at_mut(c);
        head.copy_from_slice(&self.first);
        head.iter_mut().zip(emissions).for_each(|(a, e)| *a += e.to_f64());
        let mut before = head;
        for emission in emissions[c..].chunks_exact(c) {
            let (here, next) = rest.split_at_mut(c);
            self.step(before, false, here);
            here.iter_mut().zip(emission).for_each(|(a, e)| *a += e.to_f64());
            (before, rest) = (here, next);
        }
        let total = log_sum_exp(before.iter().zip(&self.last).map(|(a, l)| a + l));
        (alpha, total)
    }

    /// The score of one path.
    fn path<F: Float>(&self, emissions: &[F], tags: &[i64]) -> f64 {
        let tag = |t: usize| tags[t] as usize;
        let end = tags.len() - 1;
        let emitted: f64 = (0..=end).map(|t| emissions[t * self.classes + tag(t)].to_f64()).sum();
        let moved: f64 = (0..end).map(|t| self.transition(tag(t), tag(t + 1))).sum();
        self.first[tag(0)] + emitted + moved + self.last[tag(end)]
    }
}

/// Sums of the gradients of some runs.
struct Sums {
    transitions: Vec<f64>,
    first: Vec<f64>,
    last: Vec<f64>,
}

impl Scores {
    /// Adds the gradients of `factor` times the negative log likelihood of one run; writes those of the emissions if
    /// wanted.
    fn gradients<F: Float>(
        &self,
        emissions: &[F],
        tags: &[i64],
        factor: f64,
        sums: &mut Sums,
        mut demissions: Option<&mut [F]>,
    ) {
        let c = self.classes;
        let (alpha, total) = self.forward(emissions);
        let tag = |t: usize| tags[t] as usize;
        let mut beta = self.last.clone();
        let mut ahead = vec![0.0; c];
        let mut marginal = vec![0.0; c];
        for t in (0..tags.len()).rev() {
            let alpha_here = &alpha[t * c..(t + 1) * c];
            for (j, marginal) in marginal.iter_mut().enumerate() {
                *marginal = (alpha_here[j] + beta[j] - total).exp();
            }
            marginal[tag(t)] -= 1.0;
            if let Some(out) = &mut demissions {
                for (out, m) in out[t * c..(t + 1) * c].iter_mut().zip(&marginal) {
                    *out = F::from_f64(factor * m);
                }
            }
            let add = |to: &mut [f64]| {
                to.iter_mut().zip(&marginal).for_each(|(to, m)| *to += factor * m);
            };
            if t + 1 == tags.len() {
                add(&mut sums.last);
            }
            if t == 0 {
                add(&mut sums.first);
                break;
            }
            for (j, ahead) in ahead.iter_mut().enumerate() {
                *ahead = emissions[t * c + j].to_f64() + beta[j];
            }
            self.pairs(&alpha[(t - 1) * c..t * c], &ahead, total, factor, &mut sums.transitions);
            sums.transitions[tag(t - 1) * c + tag(t)] -= factor;
            self.step(&ahead, true, &mut beta);
        }
    }

    /// out[i, j] += factor times the probability of tag `i` followed by tag `j`.
    fn pairs(&self, alpha: &[f64], ahead: &[f64], total: f64, factor: f64, out: &mut [f64]) {
        let c = self.classes;
        let most = |x: &[f64]| x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (left, right) = (most(alpha), most(ahead));
        let scale = (left + right - total).exp();
        // With a moderate scale, products that vanish belong to probabilities that do.
        let fast = scale < 1e150 && self.exp_transitions.iter().all(|e| e.is_finite());
        let scaled: Vec<f64> = ahead.iter().map(|v| (v - right).exp()).collect();
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            if fast {
                let row = &self.exp_transitions[i * c..(i + 1) * c];
                let weight = factor * scale * (alpha[i] - left).exp();
                for ((out, e), s) in out.iter_mut().zip(row).zip(&scaled) {
                    *out += weight * (e * s);
                }
            } else {
                for (j, out) in out.iter_mut().enumerate() {
                    *out += factor * (alpha[i] + self.transition(i, j) + ahead[j] - total).exp();
                }
            }
        }
    }
}

fn check<F: Float>(
    kernel: &'static str,
    shape: &CrfShape<'_>,
    emissions: &[F],
    weights: &CrfWeights<'_, F>,
) -> Result<Vec<Range<usize>>> {
    let classes = shape.classes;
    if classes == 0 {
        let (argument, expected) = ("classes", "at least 1");
        return Err(KernelError::Value { kernel, argument, expected, found: 0.0 });
    }
    check_len(kernel, "transitions", classes * classes, weights.transitions.len())?;
    check_len(kernel, "first", classes, weights.first.len())?;
    check_len(kernel, "last", classes, weights.last.len())?;
    let rows = emissions.len() / classes;
    check_len(kernel, "emissions", rows * classes, emissions.len())?;
    run_ranges(kernel, "starts", shape.starts, rows)
}

/// Refuses other than `rows` tags from 0 up to `bound`; `kernel` is named in the error.
///
/// # Errors
/// `Length`; `Index`, with the position of the first one.
pub fn check_tags(kernel: &'static str, tags: &[i64], rows: usize, bound: usize) -> Result {
    check_len(kernel, "tags", rows, tags.len())?;
    match tags.iter().position(|&tag| !(0..bound as i64).contains(&tag)) {
        None => Ok(()),
        Some(position) => {
            let (argument, value) = ("tags", tags[position]);
            Err(KernelError::Index { kernel, argument, position, value, bound })
        }
    }
}

/// Elements that a field over all tokens reads, the measure for handing work to other threads.
fn work(shape: &CrfShape<'_>, emissions: usize) -> usize {
    // An exponential costs as much as a few dozen multiply-adds.
    emissions * (shape.classes + 32)
}

/// Writes the negative log likelihood of the `tags` `[T]` of each run to `nll` `[B]`; 0 for an empty run.
///
/// # Errors
/// If a slice does not fit `shape`, `starts` are no cumulative lengths, or a tag is outside `0..classes`.
pub fn crf_forward<F: Float>(
    shape: CrfShape<'_>,
    emissions: &[F],
    tags: &[i64],
    weights: CrfWeights<'_, F>,
    nll: &mut [F],
) -> Result {
    const NAME: &str = "crf_forward";
    let runs = check(NAME, &shape, emissions, &weights)?;
    check_tags(NAME, tags, emissions.len() / shape.classes, shape.classes)?;
    check_len(NAME, "nll", runs.len(), nll.len())?;
    let scores = Scores::new(&weights, shape.classes);
    let tasks = runs.into_iter().zip(nll).collect();
    for_each_run_task(work(&shape, emissions.len()), tasks, |(run, nll)| {
        *nll = if run.is_empty() {
            F::ZERO
        } else {
            let emissions = &emissions[run.start * shape.classes..run.end * shape.classes];
            F::from_f64(scores.forward(emissions).1 - scores.path(emissions, &tags[run]))
        };
    });
    Ok(())
}

/// Gradients of [`crf_forward`] from `dnll` `[B]`.
///
/// # Errors
/// As [`crf_forward`].
pub fn crf_backward<F: Float>(
    shape: CrfShape<'_>,
    emissions: &[F],
    tags: &[i64],
    weights: CrfWeights<'_, F>,
    dnll: &[F],
    gradients: CrfGradients<'_, F>,
) -> Result {
    const NAME: &str = "crf_backward";
    let classes = shape.classes;
    let runs = check(NAME, &shape, emissions, &weights)?;
    check_tags(NAME, tags, emissions.len() / classes, classes)?;
    check_len(NAME, "dnll", runs.len(), dnll.len())?;
    let CrfGradients { emissions: demissions, transitions, first, last } = gradients;
    let mut parts: Vec<Option<&mut [F]>> = match demissions {
        Some(demissions) => {
            check_len(NAME, "demissions", emissions.len(), demissions.len())?;
            split_runs(demissions, &runs, classes).into_iter().map(Some).collect()
        }
        None => runs.iter().map(|_| None).collect(),
    };
    let scores = Scores::new(&weights, classes);
    let tasks: Vec<_> = runs
        .chunks(RUNS_PER_TASK)
        .zip(dnll.chunks(RUNS_PER_TASK))
        .zip(parts.chunks_mut(RUNS_PER_TASK))
        .collect();
    let sums = map_tasks(tasks, |((runs, dnll), parts)| {
        let mut sums = Sums {
            transitions: vec![0.0; classes * classes],
            first: vec![0.0; classes],
            last: vec![0.0; classes],
        };
        for ((run, dnll), part) in runs.iter().zip(dnll).zip(parts) {
            if !run.is_empty() {
                let emissions = &emissions[run.start * classes..run.end * classes];
                let tags = &tags[run.clone()];
                scores.gradients(emissions, tags, dnll.to_f64(), &mut sums, part.as_deref_mut());
            }
        }
        sums
    });
    store(NAME, "dtransitions", &sums, |sums| &sums.transitions, classes * classes, transitions)?;
    store(NAME, "dfirst", &sums, |sums| &sums.first, classes, first)?;
    store(NAME, "dlast", &sums, |sums| &sums.last, classes, last)
}

/// Adds the parts in their order and stores the sum.
fn store<F: Float>(
    kernel: &'static str,
    argument: &'static str,
    sums: &[Sums],
    part: impl Fn(&Sums) -> &[f64],
    len: usize,
    out: Option<(Store, &mut [F])>,
) -> Result {
    let Some((store, out)) = out else { return Ok(()) };
    check_len(kernel, argument, len, out.len())?;
    for (i, out) in out.iter_mut().enumerate() {
        let total = F::from_f64(sums.iter().map(|sums| part(sums)[i]).sum());
        *out = if store == Store::Add { *out + total } else { total };
    }
    Ok(())
}

/// Writes the most probable tags of each run to `tags` `[T]` (Viterbi, 1967); of equal paths, the one with the smaller
/// tags at the end of the run.
///
/// # Errors
/// If a slice does not fit `shape` or `starts` are no cumulative lengths.
pub fn crf_decode<F: Float>(
    shape: CrfShape<'_>,
    emissions: &[F],
    weights: CrfWeights<'_, F>,
    tags: &mut [i64],
) -> Result {
    const NAME: &str = "crf_decode";
    let c = shape.classes;
    let runs = check(NAME, &shape, emissions, &weights)?;
    check_len(NAME, "tags", emissions.len() / c, tags.len())?;
    let scores = Scores::new(&weights, c);
    let parts = split_runs(tags, &runs, 1);
    let tasks = runs.into_iter().zip(parts).filter(|(run, _)| !run.is_empty()).collect();
    for_each_run_task(work(&shape, emissions.len()), tasks, |(run, tags)| {
        let emissions = &emissions[run.start * c..run.end * c];
        let mut best: Vec<f64> =
            scores.first.iter().zip(emissions).map(|(first, e)| first + e.to_f64()).collect();
        let mut next = vec![0.0; c];
        let mut from = vec![0usize; emissions.len()];
        for (t, emission) in emissions.chunks_exact(c).enumerate().skip(1) {
            for (j, next) in next.iter_mut().enumerate() {
                let score = |i: usize| best[i] + scores.transition(i, j);
                let i = largest((0..c).map(score));
                from[t * c + j] = i;
                *next = score(i) + emission[j].to_f64();
            }
            std::mem::swap(&mut best, &mut next);
        }
        let mut tag = largest(best.iter().zip(&scores.last).map(|(b, l)| b + l));
        for t in (0..tags.len()).rev() {
            tags[t] = tag as i64;
            tag = from[t * c + tag];
        }
    });
    Ok(())
}

/// Where the first of the largest values stands.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let start = (0, f64::NEG_INFINITY);
    values.enumerate().fold(start, |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    const C: usize = 3;
    const STARTS: [i64; 5] = [0, 4, 4, 5, 7];
    const TAGS: [i64; 7] = [0, 2, 1, 1, 2, 0, 2];
    const SHAPE: CrfShape<'static> = CrfShape { starts: &STARTS, classes: C };

    fn split<F>(x: &[F]) -> (&[F], CrfWeights<'_, F>) {
        let (emissions, rest) = x.split_at(7 * C);
        let (transitions, rest) = rest.split_at(C * C);
        let (first, last) = rest.split_at(C);
        (emissions, CrfWeights { transitions, first, last })
    }

    fn nll<F: Float>(x: &[F]) -> Vec<F> {
        let (emissions, weights) = split(x);
        let mut out = vec![F::ONE; 4];
        crf_forward(SHAPE, emissions, &TAGS, weights, &mut out).unwrap();
        out
    }

    /// All paths of a run with their scores, by enumeration.
    fn paths(x: &[f64], run: Range<usize>) -> Vec<(Vec<usize>, f64)> {
        let (e, w) = split(x);
        let count = C.pow(run.len() as u32);
        (0..count)
            .map(|code| {
                let path: Vec<usize> = (0..run.len()).map(|t| code / C.pow(t as u32) % C).collect();
                let mut score = w.first[path[0]] + w.last[path[path.len() - 1]];
                for (t, &tag) in path.iter().enumerate() {
                    score += e[(run.start + t) * C + tag];
                    score += if t > 0 { w.transitions[path[t - 1] * C + tag] } else { 0.0 };
                }
                (path, score)
            })
            .collect()
    }

    #[test]
    fn likelihood_and_decoding_match_enumeration() {
        let x: Vec<f64> = random::<f64>(7 * C + C * C + 2 * C, 1).iter().map(|v| 3.0 * v).collect();
        let (emissions, weights) = split(&x);
        let mut decoded = vec![-1; 7];
        crf_decode(SHAPE, emissions, weights, &mut decoded).unwrap();
        let found = nll(&x);
        assert_eq!(found[1], 0.0);
        for (run, range) in [(0, 0..4), (2, 4..5), (3, 5..7)] {
            let all = paths(&x, range.clone());
            let total = all.iter().map(|(_, score)| score.exp()).sum::<f64>().ln();
            let is =
                |tags: &[i64], path: &[usize]| tags.iter().zip(path).all(|(&a, &b)| a == b as i64);
            let score = all.iter().find(|(path, _)| is(&TAGS[range.clone()], path)).unwrap().1;
            assert!((found[run] - (total - score)).abs() < 1e-12);
            let best = all.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            assert!(is(&decoded[range], &best.0));
        }
    }

    fn gradient<F: Float>(x: &[F], dnll: &[F]) -> Vec<F> {
        let (emissions, weights) = split(x);
        let mut out = vec![F::from_f64(f64::NAN); x.len()];
        let (de, rest) = out.split_at_mut(7 * C);
        let (dt, rest) = rest.split_at_mut(C * C);
        let (df, dl) = rest.split_at_mut(C);
        let gradients = CrfGradients {
            emissions: Some(de),
            transitions: Some((Store::Write, dt)),
            first: Some((Store::Write, df)),
            last: Some((Store::Write, dl)),
        };
        crf_backward(SHAPE, emissions, &TAGS, weights, dnll, gradients).unwrap();
        out
    }

    #[test]
    fn gradients_match_differences() {
        let mut x: Vec<f64> = random(7 * C + C * C + 2 * C, 2);
        let dnll = [0.5, 7.0, -1.5, 2.0];
        // The second round forbids a transition, the third makes all scores so large that the fast sums overflow.
        for round in 0..3 {
            if round == 1 {
                x[7 * C + 1] = -1e4;
            }
            if round == 2 {
                x[7 * C..7 * C + C * C].iter_mut().for_each(|v| *v += 800.0);
            }
            let expected = numeric_gradient(&x, |x| dot(&nll(x), &dnll));
            assert_close(&gradient(&x, &dnll), &expected, 1e-5);
        }
    }

    #[test]
    fn gradients_add_to_what_is_there() {
        let x: Vec<f64> = random(7 * C + C * C + 2 * C, 2);
        let (emissions, weights) = split(&x);
        let mut first = vec![10.0; C];
        let gradients =
            CrfGradients { first: Some((Store::Add, &mut first)), ..CrfGradients::default() };
        crf_backward(SHAPE, emissions, &TAGS, weights, &[1.0; 4], gradients).unwrap();
        let all = gradient(&x, &[1.0; 4]);
        let expected: Vec<f64> = all[7 * C + C * C..][..C].iter().map(|v| v + 10.0).collect();
        assert_close(&first, &expected, 1e-14);
    }

    #[test]
    fn forbidden_paths_stay_finite() {
        // Only the path 0 0 0 ... is not forbidden at each step, and its own score is very low.
        let n = 7 * C + C * C + 2 * C;
        let mut x = vec![0.0f64; n];
        x[7 * C..7 * C + C * C].fill(-2000.0);
        assert!(nll(&x).iter().all(|v| v.is_finite()));
        assert!((nll(&x)[0] - 4.0 * (C as f64).ln()).abs() < 1e-9);
        assert!(gradient(&x, &[1.0; 4]).iter().all(|v| v.is_finite()));
    }

    #[test]
    fn threads_do_not_change_bits() {
        let starts: Vec<i64> = (0..=60).map(|run| run * 50).collect();
        let shape = CrfShape { starts: &starts, classes: 9 };
        let emissions: Vec<f32> = random(3000 * 9, 1);
        let tags: Vec<i64> = (0..3000).map(|t| t * 7 % 9).collect();
        let w: Vec<f32> = random(99, 2);
        let weights = CrfWeights { transitions: &w[..81], first: &w[81..90], last: &w[90..] };
        let (one, three) = with_one_and_three_threads(|| {
            let (mut nll, mut de) = (vec![0f32; 60], vec![0f32; emissions.len()]);
            let mut dt = vec![0f32; 81];
            crf_forward(shape, &emissions, &tags, weights, &mut nll).unwrap();
            let gradients = CrfGradients {
                emissions: Some(&mut de),
                transitions: Some((Store::Write, &mut dt)),
                ..CrfGradients::default()
            };
            crf_backward(shape, &emissions, &tags, weights, &nll, gradients).unwrap();
            let mut decoded = vec![0; 3000];
            crf_decode(shape, &emissions, weights, &mut decoded).unwrap();
            let decoded: Vec<f32> = decoded.iter().map(|&tag| tag as f32).collect();
            [nll, de, dt, decoded].concat()
        });
        assert_same_bits(&one, &three);
    }

    #[test]
    fn bad_tags_are_named() {
        let x = vec![0f32; 7 * C + C * C + 2 * C];
        let (emissions, weights) = split(&x);
        let tags = [0, 0, 3, 0, 0, 0, 0];
        let text = crf_forward(SHAPE, emissions, &tags, weights, &mut [0.0; 4]).unwrap_err();
        let text = text.to_string();
        assert_eq!(text, "crf_forward: tags[2] is 3, expected 0 to 2 (the table has 3 rows)");
    }
}
