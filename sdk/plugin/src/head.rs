//! Heads of tasks as data: a model says which layers `transformers` puts above it for a task and under which names, and
//! an app builds them, so that no app knows families of models.

use crate::{
    Activation, Call, Error, Init, LayerNorm, Linear, LinearConfig, Map, Param, Result, Scope,
    Tensor, nn,
};
use serde::{Deserialize, Serialize};

/// Which vector of a run a head sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadPool {
    /// That of the first token.
    First,
    /// That of the last token.
    Last,
    /// The mean over the tokens.
    Mean,
}

/// A layer of a head. Scopes are names of checkpoints, below the root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadLayer {
    /// One vector per run: [T, h] -> [B, h].
    Pool {
        /// Which one.
        by: HeadPool,
    },
    /// Dropout, whose probability an app may replace by its own.
    Dropout {
        /// Probability.
        p: f64,
    },
    /// activation(x Wᵀ + b).
    Linear {
        /// Scope of "weight" and "bias".
        scope: String,
        /// Width of the output; nothing for as many as the task has.
        width: Option<usize>,
        /// Whether there is a bias.
        bias: bool,
        /// The activation.
        activation: Activation,
        /// Standard deviation of new weights.
        deviation: f64,
    },
    /// A function of each element.
    Activation {
        /// The function.
        activation: Activation,
    },
    /// Layer normalisation.
    LayerNorm {
        /// Scope of "weight" and "bias".
        scope: String,
        /// Whether there is a bias.
        bias: bool,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Scores over the vocabulary by the words' own vectors.
    Words {
        /// Full name of the model's table of words [vocabulary, h].
        words: String,
        /// Scope of a "bias" [vocabulary] of the scores, if there is one.
        bias: Option<String>,
    },
}

enum Built {
    Pool(HeadPool),
    Dropout(f64),
    Linear(Linear, Activation),
    Activation(Activation),
    LayerNorm(LayerNorm),
    Words(String, Option<Param>),
}

/// A head with its parameters.
pub struct TaskHead {
    layers: Vec<Built>,
}

impl TaskHead {
    /// Declares the parameters of `layers` in `scope`, the root, above vectors of `width`; layers without a width of
    /// their own have `outputs`, and a table of words has `words` rows. `dropout` replaces the layers' own
    /// probabilities.
    pub fn new(
        scope: &Scope,
        layers: &[HeadLayer],
        mut width: usize,
        outputs: usize,
        words: usize,
        dropout: Option<f64>,
    ) -> Result<Self> {
        let mut built = Vec::with_capacity(layers.len());
        for layer in layers {
            built.push(match layer {
                HeadLayer::Pool { by } => Built::Pool(*by),
                HeadLayer::Dropout { p } => Built::Dropout(dropout.unwrap_or(*p)),
                HeadLayer::Linear { scope: name, width: own, bias, activation, deviation } => {
                    let d_output = own.unwrap_or(outputs);
                    let config = LinearConfig::new(width, d_output);
                    let config = LinearConfig { bias: *bias, ..config };
                    width = d_output;
                    let init = Init::Normal(0.0, *deviation);
                    Built::Linear(config.with_init(init).init(&scope.child(name)?)?, *activation)
                }
                HeadLayer::Activation { activation } => Built::Activation(*activation),
                HeadLayer::LayerNorm { scope: name, bias, epsilon } => {
                    let scope = scope.child(name)?;
                    Built::LayerNorm(if *bias {
                        LayerNorm::new(&scope, width, *epsilon)?
                    } else {
                        LayerNorm::without_bias(&scope, width, *epsilon)?
                    })
                }
                HeadLayer::Words { words: name, bias } => {
                    let bias = bias.as_ref().map(|name| {
                        width = words;
                        scope.child(name)?.param("bias", &[words], Init::Zeros)
                    });
                    Built::Words(name.clone(), bias.transpose()?)
                }
            });
        }
        Ok(Self { layers: built })
    }

    /// What the head makes of `x` [T, h], with `starts` [B + 1] where a layer pools runs. `param` finds parameters of
    /// the model by name ([`crate::Net::param`]).
    pub fn forward(
        &self,
        call: &Call<'_>,
        x: &Tensor,
        batch: &Map,
        param: &mut dyn FnMut(&str) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = match layer {
                Built::Pool(by) => pool(&x, &batch.get("starts")?, *by)?,
                Built::Dropout(p) => nn::dropout(&x, *p, call.rng())?,
                Built::Linear(linear, activation) => linear.forward(&x, *activation)?,
                Built::Activation(activation) => activation.apply(&x)?,
                Built::LayerNorm(norm) => norm.forward(&x, None, 0.0, None)?,
                Built::Words(words, bias) => {
                    let bias = bias.as_ref().map(Param::tensor).transpose()?;
                    nn::linear(&x, &param(words)?, bias.as_ref(), Activation::None)?
                }
            };
        }
        Ok(x)
    }
}

/// One vector per run: x [T, h], starts [B + 1] -> [B, h].
fn pool(x: &Tensor, starts: &Tensor, by: HeadPool) -> Result<Tensor> {
    match by {
        HeadPool::First => nn::pool(x, starts, nn::Pool::First),
        HeadPool::Mean => nn::pool(x, starts, nn::Pool::Mean),
        HeadPool::Last => {
            let starts = starts.to_vec::<i64>()?;
            let last: Vec<i64> = starts.windows(2).map(|run| run[1] - 1).collect();
            if starts.windows(2).any(|run| run[0] == run[1]) {
                return Err(Error::invalid("head: a run without tokens has no last token"));
            }
            x.index_select(0, &Tensor::from_slice(&last, &[last.len()])?)
        }
    }
}
