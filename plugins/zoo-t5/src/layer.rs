//! A block: self-attention, attention to the encoder's output, and the feed forward layer, each with its norm before
//! it and a residual around it.

use super::buckets;
use super::config::Shape;
use easytransfer_plugin::nn::{self, Attention, AttentionTerms, DistanceBias};
use easytransfer_plugin::{
    Activation, Cache, Embedding, Error, Init, Linear, LinearConfig, Result, RmsNorm, Rng, Scope,
    Tensor,
};
use std::sync::Arc;

/// The bias of a stack, which its first layer owns and all of them use.
pub struct Bias {
    table: Embedding,
    buckets: Tensor,
}

impl Bias {
    /// Declares the table in the scope of the first layer's attention.
    pub fn new(shape: &Shape, scope: &Scope, causal: bool) -> Result<Self> {
        let init = Init::Normal(0.0, shape.init_factor * (shape.d_model as f64).powf(-0.5));
        let scope = scope.child("relative_attention_bias")?;
        let rows = buckets::of_distances(!causal, shape.buckets, shape.max_distance);
        Ok(Self {
            table: Embedding::new(&scope, shape.buckets, shape.heads, init)?,
            buckets: Tensor::from_slice(&rows, &[rows.len()])?,
        })
    }
}

/// Projections of attention, and the norm before it.
struct Projections {
    norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Projections {
    fn new(shape: &Shape, layer: &Scope, name: &str) -> Result<Self> {
        let inner = shape.heads * shape.d_kv;
        let scope = layer.child(name)?;
        let linear = |name: &str, i: usize, o: usize, deviation: f64| -> Result<Linear> {
            let init = Init::Normal(0.0, shape.init_factor * deviation);
            without_bias(i, o, init).init(&scope.child(name)?)
        };
        let (d, wide) = (shape.d_model, (shape.d_model as f64).powf(-0.5));
        let narrow = (shape.d_model as f64 * shape.d_kv as f64).powf(-0.5);
        Ok(Self {
            norm: RmsNorm::new(&layer.child("layer_norm")?, d, shape.epsilon)?,
            query: linear("q", d, inner, narrow)?,
            key: linear("k", d, inner, wide)?,
            value: linear("v", d, inner, wide)?,
            output: linear("o", inner, d, (inner as f64).powf(-0.5))?,
        })
    }

    fn keys_and_values(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        Ok([self.key.forward(x, Activation::None)?, self.value.forward(x, Activation::None)?])
    }
}

fn without_bias(d_input: usize, d_output: usize, init: Init) -> LinearConfig {
    LinearConfig { bias: false, ..LinearConfig::new(d_input, d_output).with_init(init) }
}

/// The feed forward layer; `gate` multiplies what the activation gives.
struct FeedForward {
    norm: RmsNorm,
    inner: Linear,
    gate: Option<Linear>,
    output: Linear,
}

impl FeedForward {
    fn new(shape: &Shape, layer: &Scope) -> Result<Self> {
        let scope = layer.child("DenseReluDense")?;
        let linear = |name: &str, i: usize, o: usize| -> Result<Linear> {
            let init = Init::Normal(0.0, shape.init_factor * (i as f64).powf(-0.5));
            without_bias(i, o, init).init(&scope.child(name)?)
        };
        let (d, inner) = (shape.d_model, shape.d_ff);
        let (first, gate) = if shape.gated {
            (linear("wi_0", d, inner)?, Some(linear("wi_1", d, inner)?))
        } else {
            (linear("wi", d, inner)?, None)
        };
        let output = linear("wo", inner, d)?;
        let norm = RmsNorm::new(&layer.child("layer_norm")?, d, shape.epsilon)?;
        Ok(Self { norm, inner: first, gate, output })
    }
}

/// The encoder's output and the starts of its runs.
pub type Memory<'a> = (&'a Tensor, &'a Tensor);

/// A layer of a stack.
pub struct Block {
    attention: Projections,
    cross: Option<Projections>,
    feed_forward: FeedForward,
    bias: Arc<Bias>,
    heads: usize,
    causal: bool,
    dropout: f64,
    activation: Activation,
    /// Names of what is kept while the host generates.
    kept: [String; 2],
}

impl Block {
    /// Declares layer `index` in its scope; without a bias it is the first one and makes it.
    pub fn new(
        shape: &Shape,
        scope: &Scope,
        index: usize,
        decoder: bool,
        bias: Option<Arc<Bias>>,
    ) -> Result<Self> {
        let first = scope.child("layer.0")?;
        let attention = Projections::new(shape, &first, "SelfAttention")?;
        let bias = match bias {
            Some(bias) => bias,
            None => Arc::new(Bias::new(shape, &first.child("SelfAttention")?, decoder)?),
        };
        let cross = if decoder {
            Some(Projections::new(shape, &scope.child("layer.1")?, "EncDecAttention")?)
        } else {
            None
        };
        let last = if decoder { "layer.2" } else { "layer.1" };
        Ok(Self {
            attention,
            cross,
            feed_forward: FeedForward::new(shape, &scope.child(last)?)?,
            bias,
            heads: shape.heads,
            causal: decoder,
            dropout: shape.dropout,
            activation: shape.activation,
            kept: [format!("decoder.{index}.self"), format!("decoder.{index}.cross")],
        })
    }

    /// The bias, for the next layer.
    pub fn bias(&self) -> Arc<Bias> {
        self.bias.clone()
    }

    /// x [T, d_model] -> [T, d_model]. A decoder's layer also reads `memory`, or what the cache has kept of it.
    pub fn forward(
        &self,
        x: &Tensor,
        starts: &Tensor,
        memory: Option<Memory<'_>>,
        cache: Option<&Cache<'_>>,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let normed = self.attention.norm.forward(x)?;
        let new = self.attention.keys_and_values(&normed)?;
        let ([key, value], key_starts) = Cache::append(cache, &self.kept[0], new, starts)?;
        let table = self.bias.table.weight.tensor()?;
        let terms = AttentionTerms {
            key_starts: Some(&key_starts),
            bias: Some(DistanceBias { table: &table, buckets: &self.bias.buckets }),
            ..AttentionTerms::default()
        };
        let kept = [&key, &value];
        let mut x =
            self.attend(&self.attention, x, &normed, kept, starts, (self.causal, terms), rng)?;
        if let Some(cross) = &self.cross {
            let ([key, value], key_starts) = Cache::once(cache, &self.kept[1], || {
                let (memory, starts) = memory
                    .ok_or_else(|| Error::invalid("decoder: there is no encoder's output"))?;
                Ok((cross.keys_and_values(memory)?, starts.clone()))
            })?;
            let terms =
                AttentionTerms { key_starts: Some(&key_starts), ..AttentionTerms::default() };
            let normed = cross.norm.forward(&x)?;
            x = self.attend(cross, &x, &normed, [&key, &value], starts, (false, terms), rng)?;
        }
        let FeedForward { norm, inner, gate, output } = &self.feed_forward;
        let normed = norm.forward(&x)?;
        let mut hidden = inner.forward(&normed, self.activation)?;
        if let Some(gate) = gate {
            hidden = hidden.mul(&gate.forward(&normed, Activation::None)?)?;
        }
        let hidden = nn::dropout(&hidden, self.dropout, rng)?;
        let hidden = output.forward(&hidden, Activation::None)?;
        x.add(&nn::dropout(&hidden, self.dropout, rng)?)
    }

    /// x + attention of `normed` to keys and values.
    #[allow(clippy::too_many_arguments, reason = "they are what attention has")]
    fn attend(
        &self,
        by: &Projections,
        x: &Tensor,
        normed: &Tensor,
        keys_and_values: [&Tensor; 2],
        starts: &Tensor,
        (causal, terms): (bool, AttentionTerms<'_>),
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let query = by.query.forward(normed, Activation::None)?;
        // The initial weights stand in for a scale.
        let (heads, dropout) = (self.heads, self.dropout);
        let options = Attention { heads, scale: Some(1.0), dropout, causal };
        let context = nn::attention_with(&query, keys_and_values, starts, options, &terms, rng)?;
        let attended = by.output.forward(&context, Activation::None)?;
        x.add(&nn::dropout(&attended, self.dropout, rng)?)
    }
}
