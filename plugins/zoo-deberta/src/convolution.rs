//! The convolution that version 2 has beside its first layer, for what neighbouring pieces of words say together.

use super::config::{Convolution, Shape};
use easytransfer_plugin::{Activation, Init, LayerNorm, Param, Result, Rng, Scope, Tensor, nn};

/// The convolution of the embeddings, whose output is added to the first layer's.
pub struct ConvLayer {
    /// [h, h / groups, kernel]
    weight: Param,
    bias: Param,
    norm: LayerNorm,
    groups: usize,
    activation: Activation,
    dropout: f64,
}

impl ConvLayer {
    /// Declares the parameters in the scope of the encoder.
    pub fn new(shape: &Shape, config: &Convolution, scope: &Scope) -> Result<Self> {
        let (h, scope) = (shape.hidden_size, scope.child("conv")?);
        let extents = [h, h / config.groups, config.kernel];
        let init = Init::Normal(0.0, shape.initializer_range);
        let conv = scope.child("conv")?;
        Ok(Self {
            weight: conv.param("weight", &extents, init)?,
            bias: conv.param("bias", &[h], Init::Zeros)?,
            norm: LayerNorm::new(&scope.child("LayerNorm")?, h, shape.epsilon)?,
            groups: config.groups,
            activation: config.activation,
            dropout: shape.dropout,
        })
    }

    /// The weight as one of a single group: zeros between columns that do not see each other.
    fn dense_weight(&self) -> Result<Tensor> {
        let weight = self.weight.tensor()?;
        let [rows, own, kernel] = [0, 1, 2].map(|axis| self.weight.shape()[axis]);
        if self.groups == 1 {
            return Ok(weight);
        }
        let part = rows / self.groups;
        let blocks: Vec<Tensor> = (0..self.groups)
            .map(|group| {
                let zeros =
                    |columns: usize| Tensor::zeros(weight.dtype(), &[part, columns, kernel]);
                let (before, after) = (group * own, (self.groups - 1 - group) * own);
                let block = weight.narrow(0, group * part, part)?;
                let mut parts = Vec::with_capacity(3);
                if before > 0 {
                    parts.push(zeros(before)?);
                }
                parts.push(block);
                if after > 0 {
                    parts.push(zeros(after)?);
                }
                Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)
            })
            .collect::<Result<_>>()?;
        Tensor::concat(&blocks.iter().collect::<Vec<_>>(), 0)
    }

    /// norm(first layer's output + activation(convolution of the embeddings)), all [T, h].
    pub fn forward(
        &self,
        embedded: &Tensor,
        output: &Tensor,
        starts: &Tensor,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let (weight, bias) = (self.dense_weight()?, self.bias.tensor()?);
        let convolved = nn::conv1d(embedded, &weight, Some(&bias), starts, 1)?;
        let convolved = self.activation.apply(&nn::dropout(&convolved, self.dropout, rng)?)?;
        self.norm.forward(&convolved, Some(output), 0.0, None)
    }
}
