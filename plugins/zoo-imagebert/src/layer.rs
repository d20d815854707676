//! A layer of BERT (Devlin et al. 2019): attention and two dense layers, each with its residual and its norm behind it.

use super::config::ImageBertConfig;
use easytransfer_plugin::nn::{self, Attention};
use easytransfer_plugin::{
    Activation, Init, LayerNorm, Linear, LinearConfig, Result, Rng, Scope, Tensor,
};

/// One layer, by the names of Hugging Face's BERT.
pub struct Layer {
    attention: Attention,
    activation: Activation,
    dropout: f64,
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Layer {
    /// Declares its parameters in `scope`.
    pub fn new(config: &ImageBertConfig, scope: &Scope) -> Result<Self> {
        let (h, inner) = (config.hidden_size, config.intermediate_size);
        let init = Init::TruncatedNormal(0.0, config.initializer_range);
        let linear = |name: &str, inputs: usize, outputs: usize| {
            LinearConfig::new(inputs, outputs).with_init(init).init(&scope.child(name)?)
        };
        let norm = |name: &str| LayerNorm::new(&scope.child(name)?, h, config.layer_norm_eps);
        Ok(Self {
            attention: Attention {
                heads: config.num_attention_heads,
                scale: None,
                dropout: config.attention_probs_dropout_prob,
                causal: false,
            },
            activation: config.hidden_act,
            dropout: config.hidden_dropout_prob,
            query: linear("attention.self.query", h, h)?,
            key: linear("attention.self.key", h, h)?,
            value: linear("attention.self.value", h, h)?,
            attended: linear("attention.output.dense", h, h)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", h, inner)?,
            output: linear("output.dense", inner, h)?,
            output_norm: norm("output.LayerNorm")?,
        })
    }

    /// x [T, h] in the runs of `starts` -> [T, h].
    pub fn forward(&self, x: &Tensor, starts: &Tensor, rng: Option<&Rng>) -> Result<Tensor> {
        let part = |linear: &Linear| linear.forward(x, Activation::None);
        let (query, key, value) = (part(&self.query)?, part(&self.key)?, part(&self.value)?);
        let context = nn::attention(&query, &key, &value, starts, self.attention, rng)?;
        let attended = self.attended.forward(&context, Activation::None)?;
        let x = self.attention_norm.forward(&attended, Some(x), self.dropout, rng)?;
        let inner = self.intermediate.forward(&x, self.activation)?;
        let output = self.output.forward(&inner, Activation::None)?;
        self.output_norm.forward(&output, Some(&x), self.dropout, rng)
    }
}
