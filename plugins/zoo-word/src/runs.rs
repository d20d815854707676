//! Runs of tokens by their lengths, and the two sides of a pair.

use easytransfer_plugin::{Call, LogLevel, Map, Pool, Result, Tensor, log, nn};
use std::sync::Once;

/// Runs that lie end to end.
pub struct Runs {
    /// Their lengths.
    pub lens: Vec<usize>,
    /// Cumulative lengths [B + 1] I64.
    pub starts: Tensor,
}

impl Runs {
    /// Runs of these lengths.
    pub fn new(lens: Vec<usize>) -> Result<Self> {
        let mut end = 0;
        let mut starts = vec![0];
        starts.extend(lens.iter().map(|len| {
            end += *len as i64;
            end
        }));
        Ok(Self { starts: Tensor::from_slice(&starts, &[starts.len()])?, lens })
    }

    /// Those of a batch.
    pub fn of(batch: &Map) -> Result<Self> {
        let starts = batch.get("starts")?;
        let places = starts.to_vec::<i64>()?;
        let lens = places.windows(2).map(|pair| (pair[1] - pair[0]).max(0) as usize).collect();
        Ok(Self { lens, starts })
    }

    /// Tokens of all runs.
    pub fn tokens_len(&self) -> usize {
        self.lens.iter().sum()
    }

    /// The row of `by_run` [B, h] that belongs to each token, [T, h].
    pub fn spread(&self, by_run: &Tensor) -> Result<Tensor> {
        let lens = self.lens.iter().enumerate();
        let rows: Vec<i64> = lens.flat_map(|(run, len)| vec![run as i64; *len]).collect();
        by_run.index_select(0, &Tensor::from_slice(&rows, &[rows.len()])?)
    }

    /// Sum over each run, x [T, h] -> [B, h]; zeros for an empty one.
    pub fn sum(&self, x: &Tensor) -> Result<Tensor> {
        let lens: Vec<f32> = self.lens.iter().map(|len| *len as f32).collect();
        let lens = Tensor::from_slice(&lens, &[lens.len(), 1])?.cast(x.dtype())?;
        nn::pool(x, &self.starts, Pool::Mean)?.mul(&lens)
    }
}

/// x [T, h] with a row of zeros below, at which an index may point that has nothing else to point at.
pub fn with_zeros(x: &Tensor) -> Result<Tensor> {
    Tensor::concat(&[x, &Tensor::zeros(x.dtype(), &[1, x.extent(1)?])?], 0)
}

/// One text of each pair of a batch.
pub struct Side {
    /// Ids of its words [T] I64.
    pub ids: Tensor,
    /// Where each begins and ends; a pair may lack a text.
    pub runs: Runs,
}

/// Says once that pairs are missing; a network over pairs trains on single texts without a complaint of its own.
static NO_PAIRS: Once = Once::new();

/// The two texts of each row: tokens of segment 0, and those of all others. Without segments there is only the first.
pub fn sides(call: &Call<'_>, batch: &Map) -> Result<[Side; 2]> {
    let ids = batch.get("ids")?.to_vec::<i64>()?;
    let segments = match batch.find("segments")? {
        Some(segments) => segments.to_vec::<i64>()?,
        None => vec![0; ids.len()],
    };
    let mut first = (Vec::new(), Vec::new());
    let mut second = (Vec::new(), Vec::new());
    let mut tokens = ids.into_iter().zip(segments);
    for len in Runs::of(batch)?.lens {
        let before = [first.0.len(), second.0.len()];
        for (id, segment) in tokens.by_ref().take(len) {
            if segment == 0 { first.0.push(id) } else { second.0.push(id) }
        }
        first.1.push(first.0.len() - before[0]);
        second.1.push(second.0.len() - before[1]);
    }
    if second.0.is_empty() && !first.0.is_empty() && call.rng().is_some() {
        NO_PAIRS.call_once(|| {
            let message = "a batch of training data has no second texts, which a network over pairs compares with \
                           the first ones; is their column named (text_pair)?";
            log(LogLevel::Warn, "zoo-word", message);
        });
    }
    let side = |(ids, lens): (Vec<i64>, Vec<usize>)| -> Result<Side> {
        Ok(Side { ids: Tensor::from_slice(&ids, &[ids.len()])?, runs: Runs::new(lens)? })
    };
    Ok([side(first)?, side(second)?])
}

/// What the two vectors of a pair say of each other: [left; right; left - right; left * right].
pub fn contrast(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    Tensor::concat(&[left, right, &left.sub(right)?, &left.mul(right)?], 1)
}
