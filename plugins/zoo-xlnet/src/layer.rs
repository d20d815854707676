//! A layer: relative attention of one stream or of two, and a feed-forward layer.

use super::blind::Queries;
use super::config::Shape;
use super::surroundings::Surroundings;
use easytransfer_plugin::nn::{self, Attention, AttentionTerms, Order, Positions, Segments};
use easytransfer_plugin::{
    Activation, Init, LayerNorm, Linear, LinearConfig, Param, Result, Rng, Scope, Tensor,
};

/// What a layer computes with. Projections are [d_model, heads, d_head].
pub struct Layer {
    query: Param,
    key: Param,
    value: Param,
    output: Param,
    /// Projection of distances.
    relative: Param,
    /// Added to queries that meet keys, distances and segments, [heads, d_head].
    word_bias: Param,
    relative_bias: Param,
    segment_bias: Param,
    /// Vectors of "the same segment" and "another one", [2, heads, d_head].
    segments: Param,
    attention_norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
    attention: Attention,
    activation: Activation,
    dropout: f64,
    width: usize,
}

/// Keys, values and projected distances, which both streams read.
pub struct Keys {
    pub key: Tensor,
    pub value: Tensor,
    pub distances: Tensor,
}

impl Layer {
    /// Declares the parameters in the layer's scope.
    pub fn new(shape: &Shape, scope: &Scope) -> Result<Self> {
        let (d, heads) = (shape.d_model, shape.heads);
        let size = d / heads;
        let init = Init::Normal(0.0, shape.initializer_range);
        let (rel, ff) = (scope.child("rel_attn")?, scope.child("ff")?);
        let projection = |name: &str| rel.param(name, &[d, heads, size], init);
        let bias = |name: &str| rel.param(name, &[heads, size], init);
        let linear = |name: &str, i: usize, o: usize| -> Result<Linear> {
            LinearConfig::new(i, o).with_init(init).init(&ff.child(name)?)
        };
        let norm = |scope: &Scope| LayerNorm::new(&scope.child("layer_norm")?, d, shape.epsilon);
        Ok(Self {
            query: projection("q")?,
            key: projection("k")?,
            value: projection("v")?,
            output: projection("o")?,
            relative: projection("r")?,
            relative_bias: bias("r_r_bias")?,
            segment_bias: bias("r_s_bias")?,
            word_bias: bias("r_w_bias")?,
            segments: rel.param("seg_embed", &[2, heads, size], init)?,
            attention_norm: norm(&rel)?,
            norm: norm(&ff)?,
            inner: linear("layer_1", d, shape.d_inner)?,
            outer: linear("layer_2", shape.d_inner, d)?,
            attention: Attention {
                heads,
                scale: None,
                dropout: shape.dropout,
                causal: shape.causal,
            },
            activation: shape.activation,
            dropout: shape.dropout,
            width: d,
        })
    }

    /// The streams of contents [T, d_model] and of queries [M, d_model] -> the same. `seen` are the contents that the
    /// keys are made of: those of the stream, or with memory more.
    pub fn forward(
        &self,
        content: &Tensor,
        query: Option<&Tensor>,
        seen: &Tensor,
        about: &Surroundings,
        rng: Option<&Rng>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let keys = Keys {
            key: self.project(seen, &self.key)?,
            value: self.project(seen, &self.value)?,
            distances: self.project(&about.distances, &self.relative)?,
        };
        let own = self.project(content, &self.query)?;
        let attended = self.attend(&own, &keys, about, true, rng)?;
        let next = self.feed_forward(&self.add(content, &attended, rng)?, rng)?;
        let (Some(query), Some(targets)) = (query, &about.targets) else {
            return Ok((next, None));
        };
        // Distances count from where a query stands, so the queries go to the places of their tokens and back.
        let own = self.project(query, &self.query)?;
        let places = Tensor::zeros(own.dtype(), &[content.extent(0)?, self.width])?;
        let placed = places.index_add(0, targets, &own)?;
        let attended = self.attend(&placed, &keys, about, false, rng)?;
        let attended = attended.index_select(0, targets)?;
        let query = self.feed_forward(&self.add(query, &attended, rng)?, rng)?;
        Ok((next, Some(query)))
    }

    /// x [N, d_model] times a projection -> [N, heads * d_head].
    fn project(&self, x: &Tensor, by: &Param) -> Result<Tensor> {
        x.matmul(&by.tensor()?.reshape(&[self.width, self.width])?)
    }

    /// Attention of projected queries [T, heads * d_head]; with `itself` a token sees itself whatever the order.
    fn attend(
        &self,
        query: &Tensor,
        keys: &Keys,
        about: &Surroundings,
        itself: bool,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let with = |bias: &Param| query.add(&bias.tensor()?.reshape(&[1, self.width])?);
        let (word, relative) = (with(&self.word_bias)?, with(&self.relative_bias)?);
        let scores = match &about.segments {
            Some(_) => Some(self.segment_scores(&with(&self.segment_bias)?)?),
            None => None,
        };
        let segments = scores.as_ref().zip(about.segments.as_ref()).map(|(scores, numbers)| {
            let (of_queries, of_keys) = (&numbers.of_queries, Some(&numbers.of_keys));
            Segments { scores, of_queries, of_keys }
        });
        let order = about.order.as_ref().map(|numbers| Order {
            of_queries: &numbers.of_queries,
            of_keys: Some(&numbers.of_keys),
            inclusive: itself,
        });
        let positions = Positions {
            buckets: &about.buckets,
            keys: Some(&keys.distances),
            query: Some(&relative),
            queries: None,
        };
        let terms = AttentionTerms {
            key_starts: Some(&about.key_starts),
            positions: Some(positions),
            segments,
            order,
            ..AttentionTerms::default()
        };
        let pair = [&keys.key, &keys.value];
        let mut attended =
            nn::attention_with(&word, pair, &about.starts, self.attention, &terms, rng)?;
        if !itself {
            let (heads, segments) = (self.attention.heads, scores.as_ref());
            let queries = Queries { word: &word, relative: &relative, segments, heads };
            for blind in &about.blind {
                attended = blind.add_to(&attended, &queries, keys, self.dropout, rng)?;
            }
        }
        Ok(attended)
    }

    /// Products of queries [T, heads * d_head] with the vectors of "the same segment" and "another one" -> [T, heads,
    /// 2].
    fn segment_scores(&self, query: &Tensor) -> Result<Tensor> {
        let (tokens, heads) = (query.extent(0)?, self.attention.heads);
        let query = query.reshape(&[tokens, heads, self.width / heads])?.permute(&[1, 0, 2])?;
        query.matmul(&self.segments.tensor()?.permute(&[1, 2, 0])?)?.permute(&[1, 0, 2])
    }

    /// norm(x + dropout(output of attention)).
    fn add(&self, x: &Tensor, attended: &Tensor, rng: Option<&Rng>) -> Result<Tensor> {
        let output = self.output.tensor()?.reshape(&[self.width, self.width])?;
        let attended = nn::linear(attended, &output, None, Activation::None)?;
        self.attention_norm.forward(&attended, Some(x), self.dropout, rng)
    }

    fn feed_forward(&self, x: &Tensor, rng: Option<&Rng>) -> Result<Tensor> {
        let inner = nn::dropout(&self.inner.forward(x, self.activation)?, self.dropout, rng)?;
        let outer = self.outer.forward(&inner, Activation::None)?;
        self.norm.forward(&outer, Some(x), self.dropout, rng)
    }
}
