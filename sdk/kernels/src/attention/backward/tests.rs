//! The backward pass against differences, between layouts, precisions and threads.

use super::*;
use crate::attention::{AttentionOutputs, attention_forward};
use crate::philox::Counter;
use crate::testing::{
    assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
};

/// Output and, from `do_`, the gradients of q, k and v laid end to end.
fn both<F: Float>(
    shape: AttentionShape<'_>,
    [q, k, v]: [&[F]; 3],
    dropout: Option<Dropout>,
    do_: &[F],
) -> (Vec<F>, Vec<F>) {
    let width = shape.width();
    let mut o = vec![F::ZERO; q.len()];
    let mut lse = vec![F::ZERO; q.len() / width * shape.heads];
    let [q, k, v] = [q, k, v].map(|x| RowsView::new(x, width));
    let mut words = vec![0xaaaau16; shape.decisions_len().unwrap()];
    let decisions = Some(&mut words[..]);
    let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions };
    attention_forward(shape, q, k, v, dropout, outputs).unwrap();
    let keys = AttentionShape::rows_of(shape.key_starts) * width;
    // With dropout's decisions as they were kept, and with decisions that are made again.
    let [gradient, again] = [Some(&words[..]), None].map(|decisions| {
        let mut gradient = vec![F::from_f64(f64::NAN); o.len() + 2 * keys];
        let (dq, rest) = gradient.split_at_mut(o.len());
        let (dk, dv) = rest.split_at_mut(keys);
        let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions };
        let gradients = AttentionGradients::Separate { q: dq, k: dk, v: dv };
        attention_backward(shape, saved, dropout, do_, gradients).unwrap();
        gradient
    });
    assert!(gradient == again, "kept decisions are not those that are made again");
    (o, gradient)
}

fn check_differences(shape: AttentionShape<'_>, dropout: Option<Dropout>) {
    let (queries, keys) = (
        AttentionShape::rows_of(shape.query_starts) * shape.width(),
        AttentionShape::rows_of(shape.key_starts) * shape.width(),
    );
    let all: Vec<f64> = random(queries + 2 * keys, 1);
    let do_: Vec<f64> = random(queries, 2);
    let split = |x: &[f64]| {
        let parts = [&x[..queries], &x[queries..queries + keys], &x[queries + keys..]];
        both(shape, parts, dropout, &do_)
    };
    let expected = numeric_gradient(&all, |x| dot(&split(x).0, &do_));
    assert_close(&split(&all).1, &expected, 2e-8);
}

#[test]
fn gradients_match_differences_with_and_without_dropout() {
    let starts = [0i64, 3, 3, 4, 11];
    let dropout = Dropout::new(0.3, Counter::new(9, 8, 7)).unwrap();
    for (causal, dropout) in
        [(false, None), (true, None), (false, Some(dropout)), (true, Some(dropout))]
    {
        check_differences(
            AttentionShape {
                heads: 2,
                head_size: 3,
                query_starts: &starts,
                key_starts: &starts,
                causal,
                scale: 0.9,
            },
            dropout,
        );
    }
}

#[test]
fn cross_attention_gradients_match_differences() {
    // Runs without keys, without queries, with fewer keys than queries and with more.
    let (query_starts, key_starts) = ([0i64, 2, 2, 6, 8], [0i64, 0, 3, 5, 10]);
    for causal in [false, true] {
        check_differences(
            AttentionShape {
                heads: 1,
                head_size: 2,
                query_starts: &query_starts,
                key_starts: &key_starts,
                causal,
                scale: 1.0,
            },
            Dropout::new(0.2, Counter::new(1, 1, 1)).ok(),
        );
    }
}

#[test]
fn several_tiles_match_differences_and_all_layouts_agree() {
    let rows = QUERY_TILE.max(KEY_TILE) + 20;
    let starts = [0i64, rows as i64];
    let dropout = Dropout::new(0.5, Counter::new(3, 2, 1)).ok();
    for causal in [false, true] {
        let shape = AttentionShape {
            heads: 2,
            head_size: 4,
            query_starts: &starts,
            key_starts: &starts,
            causal,
            scale: 0.5,
        };
        let width = shape.width();
        let n = rows * width;
        let qkv: Vec<f64> = random(3 * n, 1);
        let do_: Vec<f64> = random(n, 2);
        let part = |i: usize| &qkv[i * n..(i + 1) * n];
        let (_, gradient) = both(shape, [part(0), part(1), part(2)], dropout, &do_);
        // A directional derivative reaches all tiles at the price of two passes.
        let direction: Vec<f64> = random(3 * n, 3);
        let at = |step: f64| {
            let x: Vec<f64> = qkv.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            dot(&both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..]], dropout, &do_).0, &do_)
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert_close(&[dot(&gradient, &direction)], &[expected], 1e-7);

        let fuse = |parts: &[&[f64]]| -> Vec<f64> {
            let row =
                |t: usize| parts.iter().flat_map(move |x| x[t * width..(t + 1) * width].to_vec());
            (0..rows).flat_map(row).collect()
        };
        let fused = fuse(&[part(0), part(1), part(2)]);
        let rows_of = |i: usize| RowsView::new(&fused[i * width..], 3 * width);
        let (mut o, mut lse) = (vec![0.0; n], vec![0.0; rows * 2]);
        let (q, k, v) = (rows_of(0), rows_of(1), rows_of(2));
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
        attention_forward(shape, q, k, v, dropout, outputs).unwrap();
        let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions: None };
        let (mut dqkv, mut dq, mut dkv) = (vec![0.0; 3 * n], vec![0.0; n], vec![0.0; 2 * n]);
        let into = AttentionGradients::Fused(&mut dqkv);
        attention_backward(shape, saved, dropout, &do_, into).unwrap();
        let into = AttentionGradients::FusedKeyValue { q: &mut dq, kv: &mut dkv };
        attention_backward(shape, saved, dropout, &do_, into).unwrap();
        let third = |i: usize| &gradient[i * n..(i + 1) * n];
        assert_eq!(dqkv, fuse(&[third(0), third(1), third(2)]));
        assert_eq!((&dq[..], dkv), (third(0), fuse(&[third(1), third(2)])));
    }
}

#[test]
fn single_precision_follows_double() {
    let starts = [0i64, 40, 190];
    let shape = AttentionShape {
        heads: 2,
        head_size: 16,
        query_starts: &starts,
        key_starts: &starts,
        causal: false,
        scale: 0.25,
    };
    let n = 190 * 32;
    let x: Vec<f32> = random(4 * n, 5);
    let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let dropout = Dropout::new(0.1, Counter::new(3, 2, 1)).ok();
    let (_, found) = both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..3 * n]], dropout, &x[3 * n..]);
    let (_, expected) =
        both(shape, [&wide[..n], &wide[n..2 * n], &wide[2 * n..3 * n]], dropout, &wide[3 * n..]);
    assert_close(&found, &expected, 2e-5);
}

#[test]
fn threads_do_not_change_bits() {
    let starts = [0i64, 200, 500, 507];
    let shape = AttentionShape {
        heads: 4,
        head_size: 32,
        query_starts: &starts,
        key_starts: &starts,
        causal: false,
        scale: 0.2,
    };
    let n = 507 * 128;
    let x: Vec<f32> = random(4 * n, 5);
    let dropout = Dropout::new(0.1, Counter::new(1, 2, 3)).ok();
    let (one, three) = with_one_and_three_threads(|| {
        both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..3 * n]], dropout, &x[3 * n..]).1
    });
    assert_same_bits(&one, &three);
}
