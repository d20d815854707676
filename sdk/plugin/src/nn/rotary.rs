//! Rotary position embeddings (Su et al. 2021, RoFormer), by tensor operations.

use crate::{DType, Error, Result, Tensor};

/// Turns pairs of a head's columns by angles that grow with the token's position, each pair at a pace of its own.
/// Column `i` of the first half of a head makes a pair with column `i` of the second half, as `transformers` lays
/// them.
pub struct Rotary {
    /// Angle per position for each pair, F32 [1, size / 2].
    paces: Tensor,
    pairs: usize,
}

/// Sines and cosines of a batch's tokens, made once for all layers that share a [`Rotary`].
#[derive(Clone)]
pub struct Angles {
    /// Cosines [T, 1, 1, size / 2].
    pub cos: Tensor,
    /// Sines of that shape.
    pub sin: Tensor,
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
        Ok(Self { paces: Tensor::from_slice(&paces, &[1, pairs])?, pairs })
    }

    /// The angles of tokens at `positions` [T] I64, in elements of `dtype`.
    pub fn at(&self, positions: &Tensor, dtype: DType) -> Result<Angles> {
        let tokens = positions.len();
        let angles = positions.cast(DType::F32)?.reshape(&[tokens, 1])?.mul(&self.paces)?;
        let angles = angles.reshape(&[tokens, 1, 1, self.pairs])?;
        Ok(Angles { cos: angles.cos()?.cast(dtype)?, sin: angles.sin()?.cast(dtype)? })
    }
}

impl Angles {
    /// x [T, heads * size] with each head turned -> [T, heads * size].
    pub fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = (x.extent(0)?, x.extent(1)?);
        let pairs = self.cos.extent(-1)?;
        let heads = width / (2 * pairs).max(1);
        let halves = x.reshape(&[tokens, heads, 2, pairs])?;
        let (a, b) = (halves.narrow(2, 0, 1)?, halves.narrow(2, 1, 1)?);
        let first = a.mul(&self.cos)?.sub(&b.mul(&self.sin)?)?;
        let second = b.mul(&self.cos)?.add(&a.mul(&self.sin)?)?;
        Tensor::concat(&[&first, &second], 2)?.reshape(&[tokens, width])
    }
}
