//! Layers: parameters with their forward pass. Names and layouts are those of PyTorch.

use crate::{Activation, Init, Param, Result, Rng, Scope, Tensor, nn};

/// y = activation(x Wᵀ + b), W [d_output, d_input].
pub struct Linear {
    /// Weight [d_output, d_input].
    pub weight: Param,
    /// Bias `[d_output]`.
    pub bias: Option<Param>,
}

/// How to make a [`Linear`].
#[derive(Clone, Copy, Debug)]
pub struct LinearConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Width of the output.
    pub d_output: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Initial weight; the bias starts at zero.
    pub init: Init,
}

impl LinearConfig {
    /// A layer with bias and normal weights of deviation 0.02.
    pub fn new(d_input: usize, d_output: usize) -> Self {
        Self { d_input, d_output, bias: true, init: Init::Normal(0.0, 0.02) }
    }

    /// Other initial weights.
    pub fn with_init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Declares `weight` and `bias` in `scope`.
    pub fn init(self, scope: &Scope) -> Result<Linear> {
        Ok(Linear {
            weight: scope.param("weight", &[self.d_output, self.d_input], self.init)?,
            bias: if self.bias {
                Some(scope.param("bias", &[self.d_output], Init::Zeros)?)
            } else {
                None
            },
        })
    }
}

impl Linear {
    /// x [.., d_input] -> [.., d_output].
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Param::tensor).transpose()?;
        nn::linear(x, &self.weight.tensor()?, bias.as_ref(), activation)
    }
}

/// Layer normalisation over the last axis, with residual and dropout.
pub struct LayerNorm {
    /// Scale `[h]`.
    pub weight: Param,
    shift: Shift,
    epsilon: f64,
}

/// What a layer norm adds.
enum Shift {
    /// A parameter [h].
    Trained(Param),
    /// Zeros [h].
    Nothing(Tensor),
}

impl LayerNorm {
    /// Declares `weight` and `bias` in `scope`.
    pub fn new(scope: &Scope, size: usize, epsilon: f64) -> Result<Self> {
        let weight = scope.param("weight", &[size], Init::ONES)?;
        let shift = Shift::Trained(scope.param("bias", &[size], Init::Zeros)?);
        Ok(Self { weight, shift, epsilon })
    }

    /// Declares `weight` in `scope`: nothing is added.
    pub fn without_bias(scope: &Scope, size: usize, epsilon: f64) -> Result<Self> {
        let weight = scope.param("weight", &[size], Init::ONES)?;
        let shift = Shift::Nothing(Tensor::zeros(weight.tensor()?.dtype(), &[size])?);
        Ok(Self { weight, shift, epsilon })
    }

    /// norm(residual + dropout(x)); dropout counts only with an `rng`.
    pub fn forward(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
        dropout: f64,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let gamma = self.weight.tensor()?;
        let beta = match &self.shift {
            Shift::Trained(bias) => bias.tensor()?,
            Shift::Nothing(zeros) => zeros.clone(),
        };
        nn::layer_norm(x, residual, &gamma, &beta, self.epsilon, dropout, rng)
    }
}

/// Root mean square normalisation over the last axis: a scale, no shift.
pub struct RmsNorm {
    /// Scale `[h]`.
    pub weight: Param,
    epsilon: f64,
}

impl RmsNorm {
    /// Declares `weight` in `scope`.
    pub fn new(scope: &Scope, size: usize, epsilon: f64) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[size], Init::ONES)?, epsilon })
    }

    /// norm(x).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        nn::rms_norm(x, &self.weight.tensor()?, self.epsilon)
    }
}

/// A table of vectors by id.
pub struct Embedding {
    /// Table [rows, h].
    pub weight: Param,
}

impl Embedding {
    /// Declares `weight` in `scope`.
    pub fn new(scope: &Scope, rows: usize, size: usize, init: Init) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[rows, size], init)? })
    }

    /// ids `[T]` -> [T, h].
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        nn::embedding_sum(&[(&self.weight.tensor()?, ids)])
    }
}
