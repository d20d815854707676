//! A layer: disentangled attention, and a feed-forward layer.

use super::config::Shape;
use easytransfer_plugin::nn::{self, Attention, AttentionTerms, Positions};
use easytransfer_plugin::{
    Activation, Init, LayerNorm, Linear, LinearConfig, Result, Rng, Scope, Tensor,
};

/// Rows of the table of positions [P, h] that a batch needs, and the row for each distance.
#[derive(Clone)]
pub struct Table {
    pub rows: Tensor,
    pub buckets: Tensor,
}

/// What a layer computes with.
pub struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    /// Projections of positions; without them those of contents are used.
    position_key: Option<Linear>,
    position_query: Option<Linear>,
    content_to_position: bool,
    position_to_content: bool,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    attention: Attention,
    activation: Activation,
    dropout: f64,
}

impl Layer {
    /// Declares the parameters in the layer's scope.
    pub fn new(shape: &Shape, scope: &Scope) -> Result<Self> {
        let (h, inner) = (shape.hidden_size, shape.intermediate_size);
        let init = Init::Normal(0.0, shape.initializer_range);
        let linear = |name: &str, i: usize, o: usize| -> Result<Linear> {
            LinearConfig::new(i, o).with_init(init).init(&scope.child(name)?)
        };
        let norm = |name: &str| LayerNorm::new(&scope.child(name)?, h, shape.epsilon);
        let own = shape.distances.is_some() && !shape.shared_projections;
        let position = |wanted: bool, name: &str| -> Result<Option<Linear>> {
            if own && wanted { Ok(Some(linear(name, h, h)?)) } else { Ok(None) }
        };
        Ok(Self {
            query: linear("attention.self.query_proj", h, h)?,
            key: linear("attention.self.key_proj", h, h)?,
            value: linear("attention.self.value_proj", h, h)?,
            position_key: position(shape.content_to_position, "attention.self.pos_key_proj")?,
            position_query: position(shape.position_to_content, "attention.self.pos_query_proj")?,
            content_to_position: shape.content_to_position,
            position_to_content: shape.position_to_content,
            attention_output: linear("attention.output.dense", h, h)?,
            attention_norm: norm("attention.output.LayerNorm")?,
            intermediate: linear("intermediate.dense", h, inner)?,
            output: linear("output.dense", inner, h)?,
            output_norm: norm("output.LayerNorm")?,
            attention: Attention {
                heads: shape.heads,
                scale: Some(shape.scale()),
                dropout: shape.attention_dropout,
                causal: false,
            },
            activation: shape.activation,
            dropout: shape.dropout,
        })
    }

    /// x [T, h] -> [T, h].
    pub fn forward(
        &self,
        x: &Tensor,
        starts: &Tensor,
        table: Option<&Table>,
        rng: Option<&Rng>,
    ) -> Result<Tensor> {
        let project = |linear: &Linear, x: &Tensor| linear.forward(x, Activation::None);
        let (query, key) = (project(&self.query, x)?, project(&self.key, x)?);
        let value = project(&self.value, x)?;
        let (mut keys, mut queries) = (None, None);
        if let Some(Table { rows, .. }) = table {
            let rows = nn::dropout(rows, self.dropout, rng)?;
            if self.content_to_position {
                keys = Some(project(self.position_key.as_ref().unwrap_or(&self.key), &rows)?);
            }
            if self.position_to_content {
                queries =
                    Some(project(self.position_query.as_ref().unwrap_or(&self.query), &rows)?);
            }
        }
        let positions = table.filter(|_| keys.is_some() || queries.is_some()).map(|table| {
            let (keys, queries) = (keys.as_ref(), queries.as_ref());
            Positions { buckets: &table.buckets, keys, query: None, queries }
        });
        let terms = AttentionTerms { positions, ..AttentionTerms::default() };
        let context =
            nn::attention_with(&query, [&key, &value], starts, self.attention, &terms, rng)?;
        let attended = project(&self.attention_output, &context)?;
        let x = self.attention_norm.forward(&attended, Some(x), self.dropout, rng)?;
        let inner = self.intermediate.forward(&x, self.activation)?;
        self.output_norm.forward(&project(&self.output, &inner)?, Some(&x), self.dropout, rng)
    }
}
