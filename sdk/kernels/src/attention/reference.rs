//! Attention and its gradients by plain loops in `f64`, and the kernels compared with them at every instruction set,
//! over lengths around the edges of vectors and tiles.

use crate::attention::backward::{AttentionGradients, AttentionSaved, attention_backward};
use crate::attention::{AttentionOutputs, AttentionShape, attention_forward};
use crate::philox::{Counter, Dropout};
use crate::runs::RowsView;
use crate::testing::{assert_close, at_every_level, random};

/// The output and the gradients of q, k and v.
struct Results([Vec<f64>; 4]);

/// The formulas, without tiles: S = scale Q K^T, P = softmax(S), O = (P F) V with the factors F of dropout.
fn plain(
    shape: &AttentionShape<'_>,
    [q, k, v, do_]: [&[f32]; 4],
    dropout: Option<Dropout>,
) -> Results {
    let (d, width) = (shape.head_size, shape.width());
    let (mut o, mut dq) = (vec![0f64; q.len()], vec![0f64; q.len()]);
    let (mut dk, mut dv) = (vec![0f64; k.len()], vec![0f64; k.len()]);
    let mut factors = vec![1f64; shape.dropout_elements() as usize];
    if let Some(dropout) = dropout {
        dropout.write_factors(0, &mut factors);
    }
    let lengths = shape.key_starts.windows(2).map(|pair| pair[1] - pair[0]);
    let row_len = (lengths.max().unwrap_or(0) as usize).next_multiple_of(4);
    let runs = shape.query_starts.windows(2).zip(shape.key_starts.windows(2));
    for (queries, keys) in runs {
        let (queries, keys) =
            (queries[0] as usize..queries[1] as usize, keys[0] as usize..keys[1] as usize);
        for (t, head) in queries.clone().flat_map(|t| (0..shape.heads).map(move |h| (t, h))) {
            let row = |x: &[f32], t: usize| -> Vec<f64> {
                x[t * width + head * d..][..d].iter().map(|&x| f64::from(x)).collect()
            };
            let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            let unseen = (queries.end - 1 - t) * usize::from(shape.causal);
            let seen = keys.start..keys.end.saturating_sub(unseen).max(keys.start);
            let (q_row, do_row) = (row(q, t), row(do_, t));
            let weights: Vec<f64> =
                seen.clone().map(|s| (shape.scale * dot(&q_row, &row(k, s))).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let factor = |j: usize| factors[(t * shape.heads + head) * row_len + j];
            let at = |row: usize, c: usize| row * width + head * d + c;
            let dweight: Vec<f64> = (seen.clone().enumerate())
                .map(|(j, s)| factor(j) * dot(&do_row, &row(v, s)))
                .collect();
            let delta: f64 = weights.iter().zip(&dweight).map(|(w, dw)| w / sum * dw).sum();
            for (j, s) in seen.enumerate() {
                let (p, ds) = (weights[j] / sum, weights[j] / sum * (dweight[j] - delta));
                for c in 0..d {
                    o[at(t, c)] += p * factor(j) * f64::from(v[at(s, c)]);
                    dv[at(s, c)] += p * factor(j) * do_row[c];
                    dq[at(t, c)] += shape.scale * ds * f64::from(k[at(s, c)]);
                    dk[at(s, c)] += shape.scale * ds * q_row[c];
                }
            }
        }
    }
    Results([o, dq, dk, dv])
}

/// Compares the kernels with the formulas for runs of these numbers of queries and keys.
fn check(heads: usize, head_size: usize, queries: &[usize], keys: &[usize], p: f64, causal: bool) {
    let starts = |lengths: &[usize]| -> Vec<i64> {
        let ends = lengths.iter().scan(0, |end, &len| {
            *end += len as i64;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    };
    let (query_starts, key_starts) = (starts(queries), starts(keys));
    let scale = 1.5 / (head_size as f64).sqrt();
    let (query_starts, key_starts) = (&query_starts[..], &key_starts[..]);
    let shape = AttentionShape { heads, head_size, query_starts, key_starts, causal, scale };
    let width = shape.width();
    let (m, n) = (queries.iter().sum::<usize>() * width, keys.iter().sum::<usize>() * width);
    let (q, k, v, do_): (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) =
        (random(m, 1), random(n, 2), random(n, 3), random(m, 4));
    // An odd offset: rows need not begin with a block of random numbers.
    let dropout = (p > 0.0).then(|| Dropout::new(p, Counter::new(5, 6, 7)).unwrap());
    let Results(expected) = plain(&shape, [&q, &k, &v, &do_], dropout);
    // What is there before must not matter.
    let stale = |len| vec![f32::NAN; len];
    let (mut o, mut lse) = (stale(m), stale(m / head_size));
    let [q, k, v] = [&q, &k, &v].map(|x| RowsView::new(x, width));
    let mut words = vec![0u16; shape.decisions_len().unwrap()];
    let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: Some(&mut words) };
    attention_forward(shape, q, k, v, dropout, outputs).unwrap();
    let (mut dq, mut dk, mut dv) = (stale(m), stale(n), stale(n));
    let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions: Some(&words) };
    let into = AttentionGradients::Separate { q: &mut dq, k: &mut dk, v: &mut dv };
    attention_backward(shape, saved, dropout, &do_, into).unwrap();
    for (found, expected) in [&o, &dq, &dk, &dv].into_iter().zip(&expected) {
        assert_close(found, expected, 5e-6);
    }
}

#[test]
fn lengths_at_the_edges_match_plain_loops_at_every_level() {
    // One head of one run is computed on the calling thread, whose level is forced.
    at_every_level(|| {
        for len in [1, 2, 15, 16, 17, 31, 33, 64, 65, 127, 128, 129, 300] {
            for (p, causal) in [(0.0, false), (0.3, false), (0.0, true), (0.3, true)] {
                check(1, 32, &[len], &[len], p, causal);
            }
        }
    });
}

#[test]
fn odd_head_sizes_match_plain_loops_at_every_level() {
    at_every_level(|| {
        for head_size in [1, 5, 16, 17, 40, 64] {
            check(1, head_size, &[21], &[21], 0.2, false);
            check(1, head_size, &[70], &[140], 0.2, true);
        }
    });
}

#[test]
fn few_queries_or_keys_match_plain_loops_at_every_level() {
    at_every_level(|| {
        for (queries, keys) in
            [(1, 300), (300, 1), (16, 129), (129, 16), (17, 2), (3, 50), (90, 40), (0, 5), (5, 0)]
        {
            for (p, causal) in [(0.3, false), (0.3, true)] {
                check(1, 8, &[queries], &[keys], p, causal);
            }
        }
    });
}

#[test]
fn many_runs_and_heads_match_plain_loops() {
    let lengths = [13, 0, 1, 40, 7, 16, 2, 129, 33, 0];
    let others = [9, 3, 0, 64, 7, 20, 150, 5, 33, 0];
    for (p, causal) in [(0.0, false), (0.1, false), (0.1, true)] {
        check(3, 16, &lengths, &lengths, p, causal);
        check(3, 16, &lengths, &others, p, causal);
    }
}
