//! Attention's probabilities, for inspection.

use crate::attention::ahead::Ahead;
use crate::attention::shape::Run;
use crate::attention::tile::{Softmax, Tile, finish_softmax, softmax_tile};
use crate::attention::{AttentionShape, pack_queries, scores_of};
use crate::gemm::packed_len;
use crate::runs::RowsView;
use crate::{Float, Result};

/// The probabilities themselves, for inspection: one vector per run, [heads, queries, keys], without dropout.
///
/// # Errors
/// As [`crate::attention::attention_forward`].
pub fn attention_probabilities<F: Float>(
    shape: AttentionShape<'_>,
    q: RowsView<'_, F>,
    k: RowsView<'_, F>,
) -> Result<Vec<Vec<F>>> {
    const NAME: &str = "attention_probabilities";
    let queries = AttentionShape::rows_of(shape.query_starts);
    let keys = AttentionShape::rows_of(shape.key_starts);
    let runs = shape.runs(NAME, queries, keys, None)?;
    q.check(NAME, "q", queries, shape.width())?;
    k.check(NAME, "k", keys, shape.width())?;
    let mut all = Vec::with_capacity(runs.len());
    for run in &runs {
        let (rows, cols) = (run.queries.len(), run.keys.len());
        let mut out = vec![F::ZERO; shape.heads * rows * cols];
        if out.is_empty() {
            all.push(out);
            continue;
        }
        for (head, out) in out.chunks_exact_mut(rows * cols).enumerate() {
            probabilities(&shape, &q, &k, run, head, out);
        }
        all.push(out);
    }
    Ok(all)
}

/// Writes the probabilities [queries, keys] of one head of a run that has both.
fn probabilities<F: Float>(
    shape: &AttentionShape<'_>,
    q: &RowsView<'_, F>,
    k: &RowsView<'_, F>,
    run: &Run,
    head: usize,
    out: &mut [F],
) {
    let first = head * shape.head_size;
    let tile = Tile {
        queries: run.queries.len(),
        keys: run.keys.len(),
        first_query: 0,
        first_key: 0,
        causal_shift: shape.causal_shift(run),
    };
    let mut panels = vec![F::ZERO; packed_len::<F>(shape.head_size, tile.queries)];
    let mut scores = vec![F::ZERO; tile.keys * tile.stride()];
    let [mut largest, mut sum, mut correction] = [(); 3].map(|()| vec![F::ZERO; tile.stride()]);
    let mut ahead = Ahead::new(1);
    pack_queries(&q.part(run.queries.start, first), [tile.queries, shape.head_size], &mut panels);
    let scale = F::from_f64(shape.scale);
    scores_of(
        &tile,
        scale,
        &k.part(run.keys.start, first),
        shape.head_size,
        &panels,
        &mut scores,
        &mut ahead,
    );
    let mut state = Softmax { largest: &mut largest, sum: &mut sum, correction: &mut correction };
    softmax_tile(&tile, &mut scores, &[], &mut state, true);
    finish_softmax(F::ONE, &mut largest, &mut sum);
    for (query, row) in out.chunks_exact_mut(tile.keys).enumerate() {
        for (key, p) in row.iter_mut().enumerate() {
            *p = scores[key * tile.stride() + query] * sum[query];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttentionOutputs, attention_forward};
    use crate::testing::random;

    #[test]
    fn probabilities_give_the_output_and_respect_causality() {
        let starts = [0i64, 4, 4, 9];
        let (query_starts, key_starts) = (&starts[..], &starts[..]);
        let shape = AttentionShape {
            heads: 2,
            head_size: 3,
            query_starts,
            key_starts,
            causal: true,
            scale: 0.7,
        };
        let qkv: Vec<f64> = random(9 * 18, 3);
        let part = |third: usize| RowsView::new(&qkv[third * 6..], 18);
        let all = attention_probabilities(shape, part(0), part(1)).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [32, 0, 50]);
        let (mut o, mut lse) = (vec![0.0; 9 * 6], vec![0.0; 9 * 2]);
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
        attention_forward(shape, part(0), part(1), part(2), None, outputs).unwrap();
        for (run, (start, len)) in [(0, (0, 4)), (2, (4, 5))] {
            for (head, i) in (0..2).flat_map(|head| (0..len).map(move |i| (head, i))) {
                let p = &all[run][(head * len + i) * len..][..len];
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(p[i + 1..].iter().all(|&p| p == 0.0));
                let value = |j: usize| qkv[(start + j) * 18 + 12 + head * 3];
                let expected: f64 = p.iter().enumerate().map(|(j, p)| p * value(j)).sum();
                assert!((o[(start + i) * 6 + head * 3] - expected).abs() < 1e-12);
            }
        }
    }
}
