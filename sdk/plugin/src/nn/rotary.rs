//! Rotary position embeddings (Su et al. 2021, RoFormer), by tensor operations.

use crate::{DType, Error, Result, Tensor};

/// Turns pairs of a head's columns by angles that grow with the token's position, each pair at a pace of its own.
/// Column `i` of the first half of a head makes a pair with column `i` of the second half, as `transformers` lays
/// them.
pub struct Rotary {
    /// Angle per position for each pair, F32 [1, size / 2].
    paces: Tensor,
    /// What a row of a head becomes when each pair is turned by a right angle, F32 [size, size].
    quarter: Tensor,
    pairs: usize,
}

/// Sines and cosines of a batch's tokens, made once for all layers that share a [`Rotary`].
#[derive(Clone)]
pub struct Angles {
    /// Cosines for each column of all heads, [T, heads * size].
    pub cos: Tensor,
    /// Sines of that shape.
    pub sin: Tensor,
    /// The turn by a right angle, [size, size].
    pub quarter: Tensor,
}

impl Rotary {
    /// Pair `i` of a head of `size` columns turns by theta^(-2 i / size) / `factor` per position; a factor above 1
    /// stretches positions (Chen et al. 2023, "position interpolation"). Errors: an odd size.
    pub fn new(size: usize, theta: f64, factor: f64) -> Result<Self> {
        if size == 0 || !size.is_multiple_of(2) {
            return Err(Error::invalid(format!(
                "rotary embedding: expected heads of an even size, found {size}"
            )));
        }
        // In single precision, because the reference rounds so, and far positions multiply what is lost.
        let pace = |pair: usize| {
            let exponent = (2 * pair) as f32 / size as f32;
            1.0 / (theta as f32).powf(exponent) / factor as f32
        };
        let pairs = size / 2;
        let paces: Vec<f32> = (0..pairs).map(pace).collect();
        let mut quarter = vec![0f32; size * size];
        for pair in 0..pairs {
            quarter[(pair + pairs) * size + pair] = -1.0;
            quarter[pair * size + pair + pairs] = 1.0;
        }
        Ok(Self {
            paces: Tensor::from_slice(&paces, &[1, pairs])?,
            quarter: Tensor::from_slice(&quarter, &[size, size])?,
            pairs,
        })
    }

    /// The angles of tokens at `positions` [T] I64 for that many heads side by side, in elements of `dtype`.
    pub fn at(&self, positions: &Tensor, heads: usize, dtype: DType) -> Result<Angles> {
        let (tokens, pairs) = (positions.len(), self.pairs);
        let angles = positions.cast(DType::F32)?.reshape(&[tokens, 1])?.mul(&self.paces)?;
        let spread = |x: Tensor| {
            let x = x.cast(dtype)?.reshape(&[tokens, 1, pairs])?;
            let x = x.broadcast_to(&[tokens, 2 * heads, pairs])?.contiguous()?;
            x.reshape(&[tokens, 2 * heads * pairs])
        };
        Ok(Angles {
            cos: spread(angles.cos()?)?,
            sin: spread(angles.sin()?)?,
            quarter: self.quarter.cast(dtype)?,
        })
    }
}

impl Angles {
    /// x [T, heads * size] with each head turned -> [T, heads * size].
    pub fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, size) = (x.extent(0)?, self.quarter.extent(0)?);
        let x = x.contiguous()?;
        // A product moves columns by all threads; each of its sums has one term, so nothing is rounded.
        let heads = x.reshape(&[rows * (x.extent(1)? / size), size])?;
        let turned = heads.matmul(&self.quarter)?.reshape(x.shape())?;
        x.mul(&self.cos)?.add(&turned.mul(&self.sin)?)
    }
}
