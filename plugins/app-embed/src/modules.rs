//! What stands behind the pooling: the modules of sentence-transformers that turn one vector into another.

use easytransfer_plugin::{
    Activation, Error, Init, LayerNorm, Linear, LinearConfig, Result, Scope, Tensor,
};
use serde::Deserialize;

/// A module as the options say it. `scope` is where its parameters are declared.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModuleOptions {
    /// activation(x Wᵀ + b), and x or its projection added.
    Dense {
        scope: String,
        in_features: usize,
        out_features: usize,
        bias: bool,
        activation: Activation,
        residual: bool,
    },
    /// Layer normalisation over the vector.
    LayerNorm { scope: String, dimension: usize },
    /// Euclidean length 1.
    Normalize,
}

/// A module with its parameters.
pub enum Module {
    Dense { linear: Linear, activation: Activation, residual: Residual },
    LayerNorm(LayerNorm),
    Normalize,
}

/// What a dense module adds to its output.
pub enum Residual {
    Nothing,
    Input,
    Projection(Linear),
}

/// PyTorch's default.
const LAYER_NORM_EPSILON: f64 = 1e-5;

impl Module {
    /// Declares the parameters; `width` is that of the input, and becomes that of the output. Errors: another width
    /// than the module's.
    pub fn build(options: &ModuleOptions, scope: &Scope, width: &mut usize) -> Result<Self> {
        let expect = |scope: &str, key: &str, found: usize, width: usize| {
            if found == width {
                return Ok(());
            }
            let expected = format!("{width}, the width of what comes in");
            Err(Error::bad_input(format!("{scope}: {key}: expected {expected}, found {found}")))
        };
        match options {
            ModuleOptions::Normalize => Ok(Self::Normalize),
            ModuleOptions::LayerNorm { scope: name, dimension } => {
                expect(name, "dimension", *dimension, *width)?;
                let norm = scope.child(name)?.child("norm")?;
                Ok(Self::LayerNorm(LayerNorm::new(&norm, *width, LAYER_NORM_EPSILON)?))
            }
            ModuleOptions::Dense {
                scope: name,
                in_features,
                out_features,
                bias,
                activation,
                residual,
            } => {
                expect(name, "in_features", *in_features, *width)?;
                let scope = scope.child(name)?;
                let linear = |name: &str, bias| {
                    let config = LinearConfig {
                        d_input: *in_features,
                        d_output: *out_features,
                        bias,
                        init: Init::KaimingUniform,
                    };
                    config.init(&scope.child(name)?)
                };
                let residual = match (residual, in_features == out_features) {
                    (false, _) => Residual::Nothing,
                    (true, true) => Residual::Input,
                    (true, false) => Residual::Projection(linear("residual", false)?),
                };
                *width = *out_features;
                Ok(Self::Dense {
                    linear: linear("linear", *bias)?,
                    activation: *activation,
                    residual,
                })
            }
        }
    }

    /// x [B, width in] -> [B, width out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Normalize => normalized(x),
            Self::LayerNorm(norm) => norm.forward(x, None, 0.0, None),
            Self::Dense { linear, activation, residual } => {
                let y = linear.forward(x, *activation)?;
                match residual {
                    Residual::Nothing => Ok(y),
                    Residual::Input => y.add(x),
                    Residual::Projection(linear) => y.add(&linear.forward(x, Activation::None)?),
                }
            }
        }
    }
}

/// Rows of Euclidean length 1; a row of zeros stays as it is.
pub fn normalized(x: &Tensor) -> Result<Tensor> {
    let norms = x.sqr()?.sum(&[-1], true)?.sqrt()?.clamp(1e-12, f64::MAX)?;
    x.div(&norms)
}
