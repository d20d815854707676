//! Queries of the second stream that see no key: those of the first tokens of a permutation that hides all others.
//!
//! `transformers` takes 1e30 from the score of each hidden key. Where all are hidden, rounding leaves nothing of the
//! scores, so the weights are equal, but gradients pass as if the scores were there. This is the same: the weights are
//! the softmax of scores from which their own value is taken.

use super::layer::Keys;
use super::surroundings::{Numbers, reach, tensor};
use easytransfer_plugin::{Result, Rng, Tensor, nn};

/// A query that sees nothing.
#[derive(Clone)]
pub struct Blind {
    /// Its row in the batch.
    row: usize,
    /// The first key of its run, and how many there are.
    first: usize,
    count: usize,
    /// Row of the first key's distance in the table of distances.
    distance: usize,
    /// For each key 0 in the query's segment, 1 in another one.
    segments: Option<Tensor>,
}

/// Runs of queries and keys, and the length of the longest one of keys.
pub struct Runs<'a> {
    pub starts: &'a [i64],
    pub key_starts: &'a [i64],
    pub longest: i64,
}

/// Those of the rows `targets` that see no key by the order.
pub fn blind(
    targets: &[i64],
    order: &Numbers,
    segments: Option<&Numbers>,
    runs: Runs<'_>,
    causal: bool,
) -> Result<Vec<Blind>> {
    let Runs { starts, key_starts, longest } = runs;
    let (places, keys) = (order.of_queries.to_vec::<i64>()?, order.of_keys.to_vec::<i64>()?);
    let mut found = Vec::new();
    for &row in targets {
        let run = starts.partition_point(|start| *start <= row) - 1;
        let (first, end) = (key_starts[run], key_starts[run + 1]);
        // The last query stands at the last key.
        let after = starts[run + 1] - 1 - row;
        let own = end - 1 - after;
        let last = if causal { own + 1 } else { end };
        let place = places[row as usize];
        if keys[first as usize..last as usize].iter().any(|key| *key < place) {
            continue;
        }
        let segments = match segments {
            Some(numbers) => {
                let own = numbers.of_queries.to_vec::<i64>()?[row as usize];
                let all = numbers.of_keys.to_vec::<i64>()?;
                let keys = &all[first as usize..end as usize];
                let other: Vec<i64> = keys.iter().map(|key| i64::from(*key != own)).collect();
                Some(tensor(&other)?)
            }
            None => None,
        };
        found.push(Blind {
            row: row as usize,
            first: first as usize,
            count: (end - first) as usize,
            distance: (reach(longest) - (own - first)) as usize,
            segments,
        });
    }
    Ok(found)
}

/// Queries as they meet keys, distances and segments: [T, heads * d_head] twice, and scores [T, heads, 2].
pub struct Queries<'a> {
    pub word: &'a Tensor,
    pub relative: &'a Tensor,
    pub segments: Option<&'a Tensor>,
    pub heads: usize,
}

impl Blind {
    /// `attended` [T, heads * d_head], in which the query has zeros, with what it gets.
    pub fn add_to(
        &self,
        attended: &Tensor,
        queries: &Queries<'_>,
        keys: &Keys,
        dropout: f64,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let (heads, width) = (queries.heads, attended.extent(1)?);
        let size = width / heads;
        let split = |x: &Tensor, first: usize, count: usize| -> Result<Tensor> {
            x.narrow(0, first, count)?.reshape(&[count, heads, size])?.permute(&[1, 0, 2])
        };
        // [heads, 1, count]
        let product = |query: &Tensor, with: &Tensor, first: usize| -> Result<Tensor> {
            let with = split(with, first, self.count)?.transpose()?;
            split(query, self.row, 1)?.matmul(&with)
        };
        let mut scores = product(queries.word, &keys.key, self.first)?.add(&product(
            queries.relative,
            &keys.distances,
            self.distance,
        )?)?;
        if let (Some(pair), Some(other)) = (queries.segments, &self.segments) {
            let pair = pair.narrow(0, self.row, 1)?.reshape(&[heads, 1, 2])?;
            scores = scores.add(&pair.index_select(2, other)?)?;
        }
        let scores = scores.affine((size as f64).powf(-0.5), 0.0)?;
        let weights = nn::softmax(&scores.sub(&scores.detach()?)?)?;
        let weights = nn::dropout(&weights, dropout, rng)?;
        let mean = weights.matmul(&split(&keys.value, self.first, self.count)?)?;
        let mean = mean.permute(&[1, 0, 2])?.reshape(&[1, width])?;
        attended.index_add(0, &tensor(&[self.row as i64])?, &mean)
    }
}
