//! A layer: attention over the text or a window of it, and a gated feed-forward layer (Shazeer 2020, GEGLU).

use super::config::Shape;
use easytransfer_plugin::nn::{self, Angles, Attention, AttentionTerms};
use easytransfer_plugin::{
    Activation, Init, LayerNorm, Linear, LinearConfig, Result, Rng, Scope, Tensor,
};

/// A norm with or without a bias, as the configuration says.
pub fn norm(shape: &Shape, scope: &Scope, name: &str) -> Result<LayerNorm> {
    let scope = scope.child(name)?;
    if shape.norm_bias {
        LayerNorm::new(&scope, shape.hidden_size, shape.epsilon)
    } else {
        LayerNorm::without_bias(&scope, shape.hidden_size, shape.epsilon)
    }
}

/// What a layer computes with.
pub struct Layer {
    /// The first layer has none: the embeddings' norm stands before it.
    attention_norm: Option<LayerNorm>,
    /// Queries, keys and values side by side.
    qkv: Linear,
    attention_output: Linear,
    mlp_norm: LayerNorm,
    /// What is activated, and its gate.
    input: Linear,
    output: Linear,
    attention: Attention,
    /// Greatest distance that is seen, in a local layer.
    pub window: Option<usize>,
    activation: Activation,
    mlp_dropout: f64,
    width: usize,
    inner: usize,
}

impl Layer {
    /// Declares layer `index` in its scope.
    pub fn new(shape: &Shape, scope: &Scope, index: usize) -> Result<Self> {
        let (h, inner) = (shape.hidden_size, shape.intermediate_size);
        let narrow = Init::TruncatedNormal(0.0, shape.initializer_range);
        // What is added to the residual stream starts smaller in deep models (Radford et al. 2019).
        let depth = (2.0 * shape.local.len() as f64).sqrt();
        let added = Init::TruncatedNormal(0.0, shape.initializer_range / depth);
        let linear = |name: &str, i: usize, o: usize, bias: bool, init: Init| -> Result<Linear> {
            let config = LinearConfig::new(i, o).with_init(init);
            LinearConfig { bias, ..config }.init(&scope.child(name)?)
        };
        let attention_norm = if index == 0 { None } else { Some(norm(shape, scope, "attn_norm")?) };
        Ok(Self {
            attention_norm,
            qkv: linear("attn.Wqkv", h, 3 * h, shape.attention_bias, narrow)?,
            attention_output: linear("attn.Wo", h, h, shape.attention_bias, added)?,
            mlp_norm: norm(shape, scope, "mlp_norm")?,
            input: linear("mlp.Wi", h, 2 * inner, shape.mlp_bias, narrow)?,
            output: linear("mlp.Wo", inner, h, shape.mlp_bias, added)?,
            attention: Attention {
                heads: shape.heads,
                scale: None,
                dropout: shape.attention_dropout,
                causal: false,
            },
            window: shape.local[index].then_some(shape.window),
            activation: shape.activation,
            mlp_dropout: shape.mlp_dropout,
            width: h,
            inner,
        })
    }

    /// x [T, h] -> [T, h].
    pub fn forward(
        &self,
        x: &Tensor,
        starts: &Tensor,
        angles: &Angles,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let normed = match &self.attention_norm {
            Some(norm) => norm.forward(x, None, 0.0, None)?,
            None => x.clone(),
        };
        let h = self.width;
        let qkv = self.qkv.forward(&normed, Activation::None)?;
        // Queries and keys turn alike, so they turn together.
        let turned = angles.turn(&qkv.narrow(1, 0, 2 * h)?)?;
        let (query, key) = (turned.narrow(1, 0, h)?, turned.narrow(1, h, h)?);
        let value = qkv.narrow(1, 2 * h, h)?;
        let terms = AttentionTerms { window: self.window, ..AttentionTerms::default() };
        let context =
            nn::attention_with(&query, [&key, &value], starts, self.attention, &terms, rng)?;
        let attended = self.attention_output.forward(&context, Activation::None)?;
        let x = x.add(&nn::dropout(&attended, self.attention.dropout, rng)?)?;
        let normed = self.mlp_norm.forward(&x, None, 0.0, None)?;
        let both = self.input.forward(&normed, Activation::None)?;
        let activated = self.activation.apply(&both.narrow(1, 0, self.inner)?)?;
        let gated = activated.mul(&both.narrow(1, self.inner, self.inner)?.contiguous()?)?;
        let gated = nn::dropout(&gated, self.mlp_dropout, rng)?;
        x.add(&self.output.forward(&gated, Activation::None)?)
    }
}
