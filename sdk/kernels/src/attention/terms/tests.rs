//! Attention with terms compared with plain loops and with differences, in all combinations.

use super::*;
use crate::attention::backward::{AttentionGradients, AttentionSaved, attention_backward_with};
use crate::attention::{AttentionOutputs, AttentionShape, attention_forward_with};
use crate::philox::{Counter, Dropout};
use crate::testing::{
    assert_close, assert_same_bits, at_every_level, dot, numeric_gradient, random,
    with_one_and_three_threads,
};
use crate::{Float, Result};

/// Which terms there are.
#[derive(Debug, Clone, Copy, Default)]
struct Which {
    bias: bool,
    keys: bool,
    query: bool,
    queries: bool,
    segments: bool,
    window: Option<usize>,
    /// Whether inclusive.
    order: Option<bool>,
    causal: bool,
}

impl Which {
    const ALL: Self = Self {
        bias: true,
        keys: true,
        query: true,
        queries: true,
        segments: true,
        window: None,
        order: Some(true),
        causal: false,
    };

    fn every() -> impl Iterator<Item = Self> {
        (0..2 * 8 * 2 * 3 * 3 * 2).map(|code: usize| {
            let bit = |bit: usize| code >> bit & 1 == 1;
            Self {
                bias: bit(0),
                keys: bit(1),
                query: bit(1) && bit(2),
                queries: bit(3),
                segments: bit(4),
                causal: bit(5),
                window: [None, Some(0), Some(3)][code / 64 % 3],
                order: [None, Some(false), Some(true)][code / 192],
            }
        })
    }
}

/// Inputs of one call; the differentiable ones lie end to end in `values`.
struct Case {
    heads: usize,
    head_size: usize,
    query_starts: Vec<i64>,
    key_starts: Vec<i64>,
    which: Which,
    dropout: Option<Dropout>,
    bias_buckets: Vec<i64>,
    position_buckets: Vec<i64>,
    numbers: [Vec<i64>; 4],
}

const BIAS_ROWS: usize = 5;
const POSITION_ROWS: usize = 9;

impl Case {
    fn new(head_size: usize, queries: &[usize], keys: &[usize], which: Which, p: f64) -> Self {
        let starts = |lengths: &[usize]| -> Vec<i64> {
            let ends = lengths.iter().scan(0, |end, &len| {
                *end += len as i64;
                Some(*end)
            });
            std::iter::once(0).chain(ends).collect()
        };
        let pick = |len: usize, bound: i64, seed| -> Vec<i64> {
            let values: Vec<f64> = random(len, seed);
            values.iter().map(|v| ((v + 1.0) / 2.0 * bound as f64) as i64).collect()
        };
        let (m, n) = (queries.iter().sum(), keys.iter().sum());
        Self {
            heads: 2,
            head_size,
            query_starts: starts(queries),
            key_starts: starts(keys),
            which,
            dropout: (p > 0.0).then(|| Dropout::new(p, Counter::new(5, 6, 7)).unwrap()),
            bias_buckets: pick(7, BIAS_ROWS as i64, 20),
            position_buckets: pick(13, POSITION_ROWS as i64, 21),
            numbers: [pick(m, 2, 22), pick(n, 2, 23), pick(m, 6, 24), pick(n, 6, 25)],
        }
    }

    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    fn shape(&self) -> AttentionShape<'_> {
        AttentionShape {
            heads: self.heads,
            head_size: self.head_size,
            query_starts: &self.query_starts,
            key_starts: &self.key_starts,
            causal: self.which.causal,
            scale: 0.8,
        }
    }

    /// Lengths of q, k, v, bias, keys of positions, query of positions, queries of positions and scores of segments.
    fn lens(&self) -> [usize; 8] {
        let width = self.width();
        let rows = |starts: &[i64]| *starts.last().unwrap() as usize;
        let (m, n) = (rows(&self.query_starts) * width, rows(&self.key_starts) * width);
        let table = POSITION_ROWS * width;
        let given = |given: bool, len: usize| if given { len } else { 0 };
        let which = self.which;
        [
            m,
            n,
            n,
            given(which.bias, BIAS_ROWS * self.heads),
            given(which.keys, table),
            given(which.query, m),
            given(which.queries, table),
            given(which.segments, m / self.head_size * 2),
        ]
    }

    fn len(&self) -> usize {
        self.lens().iter().sum()
    }

    fn parts<'a, F>(&self, values: &'a [F]) -> [&'a [F]; 8] {
        let mut rest = values;
        self.lens().map(|len| {
            let (part, after) = rest.split_at(len);
            rest = after;
            part
        })
    }

    fn terms<'a, F: Float>(&'a self, values: &'a [F]) -> AttentionTerms<'a, F> {
        let (which, width) = (self.which, self.width());
        let [_, _, _, bias, keys, query, queries, segments] = self.parts(values);
        let rows = |given: bool, x: &'a [F]| given.then(|| RowsView::new(x, width));
        let [of_queries, of_keys, query_order, key_order] = &self.numbers;
        AttentionTerms {
            bias: which.bias.then_some(DistanceBias { table: bias, buckets: &self.bias_buckets }),
            positions: (which.keys || which.queries).then(|| Positions {
                rows: POSITION_ROWS,
                buckets: &self.position_buckets,
                keys: rows(which.keys, keys),
                query: rows(which.query, query),
                queries: rows(which.queries, queries),
            }),
            segments: which.segments.then_some(Segments { scores: segments, of_queries, of_keys }),
            window: which.window,
            order: which.order.map(|inclusive| Order {
                of_queries: query_order,
                of_keys: key_order,
                inclusive,
            }),
        }
    }

    /// Plain loops in `f64`.
    fn naive(&self, values: &[f64]) -> Vec<f64> {
        let (d, h, width, which) = (self.head_size, self.heads, self.width(), self.which);
        let [q, k, v, bias, keys, query, queries, segments] = self.parts(values);
        let shape = self.shape();
        let mut factors = vec![1f64; shape.dropout_elements() as usize];
        if let Some(dropout) = self.dropout {
            dropout.write_factors(0, &mut factors);
        }
        let lengths = self.key_starts.windows(2).map(|pair| pair[1] - pair[0]);
        let row_len = (lengths.max().unwrap() as usize).next_multiple_of(4);
        let mut out = vec![0.0; q.len()];
        let dot = |a: &[f64], i: usize, b: &[f64], j: usize, head: usize| -> f64 {
            let (i, j) = (i * width + head * d, j * width + head * d);
            a[i..i + d].iter().zip(&b[j..j + d]).map(|(a, b)| a * b).sum()
        };
        let runs = self.query_starts.windows(2).zip(self.key_starts.windows(2));
        for (of_queries, of_keys) in runs {
            let (first, start) = (of_queries[0] as usize, of_keys[0] as usize);
            let (m, n) = (of_queries[1] as usize - first, of_keys[1] as usize - start);
            for (i, head) in (0..m).flat_map(|i| (0..h).map(move |head| (i, head))) {
                let t = first + i;
                let mut weights = vec![0.0; n];
                for (j, weight) in weights.iter_mut().enumerate() {
                    let s = start + j;
                    let distance = j as i64 - (i as i64 + n as i64 - m as i64);
                    let bucket = |map: &[i64]| {
                        let reach = map.len() as i64 / 2;
                        map[(distance.clamp(-reach, reach) + reach) as usize] as usize
                    };
                    let mut score = dot(q, t, k, s, head);
                    if which.keys {
                        let x = if which.query { query } else { q };
                        score += dot(x, t, keys, bucket(&self.position_buckets), head);
                    }
                    if which.queries {
                        score += dot(k, s, queries, bucket(&self.position_buckets), head);
                    }
                    if which.segments {
                        let other = usize::from(self.numbers[0][t] != self.numbers[1][s]);
                        score += segments[(t * h + head) * 2 + other];
                    }
                    score *= shape.scale;
                    if which.bias {
                        score += bias[bucket(&self.bias_buckets) * h + head];
                    }
                    let seen = (!which.causal || distance <= 0)
                        && which.window.is_none_or(|w| distance.unsigned_abs() as usize <= w)
                        && which.order.is_none_or(|inclusive| {
                            let (place, other) = (self.numbers[3][s], self.numbers[2][t]);
                            if inclusive { place <= other } else { place < other }
                        });
                    *weight = if seen { score.exp() } else { 0.0 };
                }
                let sum: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                    let factor = factors[(t * h + head) * row_len + j];
                    for c in head * d..(head + 1) * d {
                        out[t * width + c] += weight / sum * factor * v[(start + j) * width + c];
                    }
                }
            }
        }
        out
    }

    /// Output, logarithms and decisions.
    fn forward<F: Float>(&self, values: &[F]) -> (Vec<F>, Vec<F>, Vec<u16>) {
        let [q, k, v, ..] = self.parts(values);
        let stale = |len| vec![F::from_f64(f64::NAN); len];
        let (mut o, mut lse) = (stale(q.len()), stale(q.len() / self.head_size));
        let shape = self.shape();
        let mut words = vec![0xaaaau16; shape.decisions_len_within(self.which.window).unwrap()];
        let inputs = [q, k, v].map(|x| RowsView::new(x, self.width()));
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: Some(&mut words) };
        attention_forward_with(shape, self.terms(values), inputs, self.dropout, outputs).unwrap();
        (o, lse, words)
    }

    /// Output and gradients, laid as the values are.
    fn both<F: Float>(&self, values: &[F], do_: &[F]) -> (Vec<F>, Vec<F>) {
        let (o, lse, words) = self.forward(values);
        let [q, k, v, ..] = self.parts(values).map(|x| RowsView::new(x, self.width()));
        let [gradient, again] = [Some(&words[..]), None].map(|decisions| {
            let mut gradient = vec![F::from_f64(f64::NAN); values.len()];
            let mut rest = &mut gradient[..];
            let parts = self.lens().map(|len| crate::machine::scratch::take(&mut rest, len));
            let [dq, dk, dv, bias, keys, query, queries, segments] = parts;
            let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions };
            let into = AttentionGradients::Separate { q: dq, k: dk, v: dv };
            let terms = TermGradients {
                bias: Some(bias),
                position_keys: Some(keys),
                position_query: Some(query),
                position_queries: Some(queries),
                segments: Some(segments),
            };
            let (shape, all) = (self.shape(), self.terms(values));
            attention_backward_with(shape, all, saved, self.dropout, do_, into, terms).unwrap();
            gradient
        });
        assert!(gradient == again, "kept decisions are not those that are made again");
        (o, gradient)
    }

    /// Compares output and one directional derivative, which reaches all inputs at the price of two passes.
    fn check(&self) {
        let values: Vec<f64> = random(self.len(), 1);
        let do_: Vec<f64> = random(self.lens()[0], 2);
        let (o, gradient) = self.both(&values, &do_);
        assert_close(&o, &self.naive(&values), 1e-12);
        let direction: Vec<f64> = random(values.len(), 3);
        let at = |step: f64| {
            let x: Vec<f64> = values.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            dot(&self.naive(&x), &do_)
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert_close(&[dot(&gradient, &direction)], &[expected], 1e-7);
    }
}

#[test]
fn all_combinations_match_loops_and_differences() {
    for (code, which) in Which::every().enumerate() {
        let p = if code % 2 == 0 { 0.0 } else { 0.3 };
        // An empty run of keys, one of queries, more keys than queries and fewer.
        Case::new(3, &[4, 2, 0, 5, 7], &[4, 0, 3, 9, 3], which, p).check();
    }
}

#[test]
fn several_tiles_match_loops_and_differences() {
    for (code, which) in Which::every().enumerate().skip(7).step_by(23) {
        let p = if code % 2 == 0 { 0.3 } else { 0.0 };
        Case::new(4, &[150, 1, 70], &[150, 140, 70], which, p).check();
        Case::new(4, &[20, 130], &[300, 17], Which { window: Some(40), ..which }, p).check();
    }
}

#[test]
fn every_gradient_matches_differences() {
    for which in [Which::ALL, Which { query: false, causal: true, window: Some(2), ..Which::ALL }] {
        let case = Case::new(2, &[3, 4], &[3, 6], which, 0.2);
        let values: Vec<f64> = random(case.len(), 1);
        let do_: Vec<f64> = random(case.lens()[0], 2);
        let expected = numeric_gradient(&values, |x| dot(&case.naive(x), &do_));
        assert_close(&case.both(&values, &do_).1, &expected, 2e-8);
    }
}

#[test]
fn single_precision_follows_loops_at_every_level() {
    at_every_level(|| {
        for len in [1, 15, 16, 17, 64, 65, 128, 129, 200] {
            for causal in [false, true] {
                let case = Case::new(16, &[len], &[len], Which { causal, ..Which::ALL }, 0.2);
                let values: Vec<f32> = random(case.len(), 1);
                let wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
                let do_: Vec<f64> = random(case.lens()[0], 2);
                let narrow: Vec<f32> = do_.iter().map(|&x| x as f32).collect();
                let (o, gradient) = case.both(&values, &narrow);
                assert_close(&o, &case.naive(&wide), 5e-6);
                // Tables gather sums over all queries.
                assert_close(&gradient, &case.both(&wide, &do_).1, 1e-4);
            }
        }
    });
}

#[test]
fn queries_that_see_nothing_give_zeros() {
    let which = Which { order: Some(false), bias: true, ..Which::default() };
    let mut case = Case::new(4, &[200], &[200], which, 0.0);
    // The first half sees nothing; the others see only keys of the last tile.
    case.numbers[2] = (0..200).map(|i| i64::from(i >= 100)).collect();
    case.numbers[3] = (0..200).map(|j| i64::from(j < 190)).collect();
    let values: Vec<f32> = random(case.len(), 1);
    let (o, lse, _) = case.forward(&values);
    let (_, gradient) = case.both(&values, &vec![1.0; o.len()]);
    let half = 100 * case.width();
    assert!(o[..half].iter().all(|&x| x == 0.0) && o[half..].iter().all(|&x| x != 0.0));
    assert!(lse[..200].iter().all(|&x| x == f32::NEG_INFINITY));
    assert!(gradient[..half].iter().all(|&x| x == 0.0));
    assert!(gradient.iter().all(|x| x.is_finite()));
    case.check();
}

#[test]
fn infinite_bias_hides_keys() {
    let case = Case::new(4, &[6], &[6], Which { bias: true, ..Which::default() }, 0.0);
    let mut values: Vec<f64> = random(case.len(), 1);
    let first = case.len() - BIAS_ROWS * 2;
    values[first..].fill(f64::NEG_INFINITY);
    let (o, gradient) = case.both(&values, &vec![1.0; case.lens()[0]]);
    assert!(o.iter().chain(&gradient).all(|&x| x == 0.0));
}

#[test]
fn threads_do_not_change_bits() {
    let case = Case::new(32, &[200, 3, 120, 90, 64], &[200, 3, 120, 90, 64], Which::ALL, 0.1);
    let values: Vec<f32> = random(case.len(), 1);
    let do_: Vec<f32> = random(case.lens()[0], 2);
    let (one, three) = with_one_and_three_threads(|| {
        let (o, gradient) = case.both(&values, &do_);
        [o, gradient].concat()
    });
    assert_same_bits(&one, &three);
}

#[test]
fn terms_that_do_not_fit_are_refused_by_name() {
    let case = Case::new(3, &[4], &[5], Which::ALL, 0.0);
    let values: Vec<f64> = random(case.len(), 1);
    let run = |change: &dyn Fn(&mut AttentionTerms<'_, f64>)| -> Result {
        let mut terms = case.terms(&values);
        change(&mut terms);
        let inputs = [0, 1, 2].map(|i| RowsView::new(case.parts(&values)[i], case.width()));
        let (mut o, mut lse) = (vec![0.0; case.lens()[0]], vec![0.0; 8]);
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
        attention_forward_with(case.shape(), terms, inputs, None, outputs)
    };
    run(&|_| ()).unwrap();
    let refused = |name: &str, change: &dyn Fn(&mut AttentionTerms<'_, f64>)| {
        let text = run(change).unwrap_err().to_string();
        assert!(text.contains(&format!(" {name}")), "{name}: {text}");
    };
    let bias = |terms: &mut AttentionTerms<'_, f64>, buckets| {
        if let Some(bias) = &mut terms.bias {
            bias.buckets = buckets;
        }
    };
    refused("bias_buckets[1]", &|terms| bias(terms, &[0, BIAS_ROWS as i64, 0]));
    refused("bias_buckets[0]", &|terms| bias(terms, &[-1]));
    refused("bias_buckets", &|terms| bias(terms, &[0, 1]));
    refused("bias_buckets", &|terms| bias(terms, &[]));
    let positions = |terms: &mut AttentionTerms<'_, f64>,
                     change: &dyn Fn(&mut Positions<'_, f64>)| {
        change(terms.positions.as_mut().unwrap());
    };
    refused("position_buckets[0]", &|terms| positions(terms, &|x| x.buckets = &[99]));
    refused("position_keys", &|terms| positions(terms, &|x| (x.keys, x.queries) = (None, None)));
    refused("position_keys", &|terms| positions(terms, &|x| x.keys = None));
    refused("position_keys", &|terms| positions(terms, &|x| x.keys = Some(RowsView::new(&[], 6))));
    refused("position_query", &|terms| {
        positions(terms, &|x| x.query = Some(RowsView::new(&[], 6)))
    });
    refused("segments", &|terms| terms.segments.as_mut().unwrap().of_queries = &[1]);
    refused("key_segments", &|terms| terms.segments.as_mut().unwrap().of_keys = &[1]);
    refused("segment_scores", &|terms| terms.segments.as_mut().unwrap().scores = &[1.0]);
    refused("order", &|terms| terms.order.as_mut().unwrap().of_queries = &[1]);
    refused("key_order", &|terms| terms.order.as_mut().unwrap().of_keys = &[1]);
}
