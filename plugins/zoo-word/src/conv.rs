//! Convolution over the windows of a text.

use super::runs::{Runs, with_zeros};
use easytransfer_plugin::{Init, Param, Result, Scope, Tensor, nn};

/// A convolution over words: weight [filters, inputs, width], bias [filters].
pub struct Conv {
    weight: Param,
    bias: Param,
    width: usize,
}

/// What a convolution gives.
pub struct Windows {
    /// One vector for each token [T, filters]: of the window around it, with zeros beyond the text.
    pub of_tokens: Tensor,
    /// One for each window [W, filters].
    pub values: Tensor,
    /// The windows of each text; a text without words has none.
    pub runs: Runs,
}

/// The deviation of Glorot and Bengio 2010 for a convolution.
pub fn xavier_normal(field: usize, inputs: usize, filters: usize) -> Init {
    Init::TruncatedNormal(0.0, (2.0 / (field * (inputs + filters)) as f64).sqrt())
}

impl Conv {
    /// Declares `weight` and `bias` in `scope`.
    pub fn new(
        scope: &Scope,
        [filters, inputs, width]: [usize; 3],
        init: Init,
        bias: Init,
    ) -> Result<Self> {
        let weight = scope.param("weight", &[filters, inputs, width], init)?;
        Ok(Self { weight, bias: scope.param("bias", &[filters], bias)?, width })
    }

    /// The activated convolution of each window of x [T, inputs]. A text is padded with `around` zeros on both sides,
    /// and one that is shorter than a window then still, at its end, to the width of a window.
    pub fn windows(
        &self,
        x: &Tensor,
        runs: &Runs,
        around: usize,
        activation: fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Windows> {
        let width = self.width;
        let padded = |len: usize| if len == 0 { 0 } else { (len + 2 * around).max(width) };
        let total: Vec<usize> = runs.lens.iter().map(|len| padded(*len)).collect();
        let is_padded = total != runs.lens;
        // Rows of the padded runs: where each comes from, the place of each token, and the middle of each window.
        let nothing = runs.tokens_len() as i64;
        let (mut sources, mut tokens, mut middles, mut counts) = (vec![], vec![], vec![], vec![]);
        let before = (width - 1) / 2;
        let (mut token, mut row) = (0i64, 0i64);
        for (len, total) in runs.lens.iter().zip(&total) {
            let first = if *len == 0 { 0 } else { around };
            for place in 0..*total {
                let is_token = (first..first + len).contains(&place);
                sources.push(if is_token { token } else { nothing });
                if is_token {
                    tokens.push(row + place as i64);
                    token += 1;
                }
            }
            let count = if *len == 0 { 0 } else { total - width + 1 };
            middles.extend((0..count).map(|window| row + (window + before) as i64));
            counts.push(count);
            row += *total as i64;
        }
        let select = |from: &Tensor, rows: &[i64]| -> Result<Tensor> {
            from.index_select(0, &Tensor::from_slice(rows, &[rows.len()])?)
        };
        let (weight, bias) = (self.weight.tensor()?, self.bias.tensor()?);
        let conv = |x: &Tensor, runs: &Runs| -> Result<Tensor> {
            activation(&nn::conv1d(x, &weight, Some(&bias), &runs.starts, 1)?)
        };
        let all = if is_padded {
            conv(&select(&with_zeros(x)?, &sources)?, &Runs::new(total)?)?
        } else {
            conv(x, runs)?
        };
        Ok(Windows {
            of_tokens: if is_padded { select(&all, &tokens)? } else { all.clone() },
            values: if width == 1 && !is_padded { all } else { select(&all, &middles)? },
            runs: Runs::new(counts)?,
        })
    }
}
