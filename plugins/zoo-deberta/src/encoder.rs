//! The encoder: embeddings, the table of positions, layers.

use super::config::Shape;
use super::convolution::ConvLayer;
use super::heads;
use super::layer::{Layer, Table};
use easytransfer_plugin::{
    Activation, Call, Embedding, Error, Init, LayerNorm, Linear, LinearConfig, Map, ModelInfo,
    Param, Result, Rng, Scope, Tensor, abi, nn, recomputed,
};
use std::sync::Arc;

/// A post-norm Transformer encoder over runs of tokens.
pub struct Encoder {
    shape: Shape,
    words: Embedding,
    positions: Option<Embedding>,
    segments: Option<Embedding>,
    project: Option<Linear>,
    norm: LayerNorm,
    /// Vectors of distances [2 span, h].
    table: Option<Param>,
    table_norm: Option<LayerNorm>,
    convolution: Option<ConvLayer>,
    layers: Vec<Arc<Layer>>,
}

impl Encoder {
    /// Declares the parameters in `scope`.
    pub fn new(shape: Shape, scope: &Scope) -> Result<Self> {
        let (h, e) = (shape.hidden_size, shape.embedding_size);
        let init = Init::Normal(0.0, shape.initializer_range);
        let (embeddings, encoder) = (scope.child("embeddings")?, scope.child("encoder")?);
        let table = |name: &str, rows: usize| -> Result<Embedding> {
            Embedding::new(&embeddings.child(name)?, rows, e, init)
        };
        let words = table("word_embeddings", shape.vocab_size)?;
        let positions = if shape.biased_input {
            Some(table("position_embeddings", shape.positions)?)
        } else {
            None
        };
        let segments = match shape.segments {
            0 => None,
            rows => Some(table("token_type_embeddings", rows)?),
        };
        let project = if e == h {
            None
        } else {
            let config = LinearConfig { bias: false, ..LinearConfig::new(e, h).with_init(init) };
            Some(config.init(&embeddings.child("embed_proj")?)?)
        };
        let norm = LayerNorm::new(&embeddings.child("LayerNorm")?, h, shape.epsilon)?;
        let layers = (0..shape.layers)
            .map(|index| {
                Ok(Arc::new(Layer::new(&shape, &encoder.child(&format!("layer.{index}"))?)?))
            })
            .collect::<Result<_>>()?;
        let rows = shape.distances.as_ref().map(|distances| 2 * distances.span());
        let distances = match rows {
            Some(rows) => {
                Some(encoder.child("rel_embeddings")?.param("weight", &[rows, h], init)?)
            }
            None => None,
        };
        // The norm is there also where nothing passes through it.
        let table_norm = if shape.norm_of_positions {
            Some(LayerNorm::new(&encoder.child("LayerNorm")?, h, shape.epsilon)?)
        } else {
            None
        };
        let convolution = shape.convolution.as_ref();
        let convolution = convolution.map(|config| ConvLayer::new(&shape, config, &encoder));
        let convolution = convolution.transpose()?;
        Ok(Self {
            words,
            positions,
            segments,
            project,
            norm,
            table: distances,
            table_norm,
            convolution,
            layers,
            shape,
        })
    }

    pub fn info(&self) -> ModelInfo {
        let (shape, layers) = (&self.shape, self.layers.len());
        let depth = (0..layers).map(|index| format!("encoder.layer.{index}"));
        // What no layer of its own has counts to the embeddings, but for the convolution, whose output is the first
        // layer's.
        let beside = [
            ("encoder.rel_embeddings", 0),
            ("encoder.LayerNorm", 0),
            ("encoder.conv", layers.min(1)),
        ];
        let ignore = [
            "embeddings.position_ids",
            "embeddings.position_embeddings.",
            "cls.",
            "lm_predictions.",
            "mask_predictions.",
            "pooler.",
            "classifier.",
            "qa_outputs.",
        ];
        ModelInfo {
            hidden_size: shape.hidden_size,
            layers,
            vocab_size: shape.vocab_size,
            embedding_size: shape.embedding_size,
            activation: shape.activation,
            layer_norm_eps: shape.epsilon,
            max_positions: shape.positions,
            base_prefix: "deberta".to_owned(),
            class: "DebertaV2Model".to_owned(),
            tasks: heads::tasks(shape),
            classifier_dropout: shape.classifier_dropout,
            initializer_range: shape.initializer_range,
            ignore: ignore.map(str::to_owned).to_vec(),
            depth: std::iter::once("embeddings".to_owned()).chain(depth).collect(),
            beside: beside.map(|(scope, depth)| (scope.to_owned(), depth)).to_vec(),
            ..ModelInfo::default()
        }
    }

    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let starts = batch.get("starts")?;
        let embedded = self.embed(call.rng(), batch)?;
        let table = self.positions_of(&starts)?;
        let mut x = embedded.clone();
        let hidden_states = call.wants(abi::ET_WANT_HIDDEN_STATES);
        for (index, layer) in self.layers.iter().enumerate() {
            if hidden_states {
                outputs.put(&format!("hidden_states/{index}"), &x)?;
            }
            let layer = layer.clone();
            let mut inputs = vec![&x, &starts];
            inputs.extend(table.iter().flat_map(|table| [&table.rows, &table.buckets]));
            [x] = recomputed(&inputs, call.rng(), move |inputs, rng| match *inputs {
                [x, starts] => Ok([layer.forward(x, starts, None, rng)?]),
                [x, starts, rows, buckets] => {
                    let table = Table { rows: rows.clone(), buckets: buckets.clone() };
                    Ok([layer.forward(x, starts, Some(&table), rng)?])
                }
                _ => Err(Error::invalid("a layer has two inputs, or four")),
            })?;
            if let (0, Some(convolution)) = (index, &self.convolution) {
                x = convolution.forward(&embedded, &x, &starts, call.rng())?;
            }
        }
        if hidden_states {
            outputs.put(&format!("hidden_states/{}", self.layers.len()), &x)?;
        }
        outputs.put("last", &x)
    }

    /// The rows of the table of positions that the longest run of the batch needs: the others would be projected by
    /// every layer for nothing.
    fn positions_of(&self, starts: &Tensor) -> Result<Option<Table>> {
        let shape = &self.shape;
        let (Some(table), Some(distances)) = (&self.table, &shape.distances) else {
            return Ok(None);
        };
        if !shape.content_to_position && !shape.position_to_content {
            return Ok(None);
        }
        let starts = starts.to_vec::<i64>()?;
        let longest = starts.windows(2).map(|run| run[1] - run[0]).max().unwrap_or(0);
        let (first, count, buckets) = distances.rows(usize::try_from(longest).unwrap_or(0));
        let mut rows = table.tensor()?.narrow(0, first, count)?;
        if let Some(norm) = &self.table_norm {
            rows = norm.forward(&rows, None, 0.0, None)?;
        }
        let buckets = Tensor::from_slice(&buckets, &[buckets.len()])?;
        Ok(Some(Table { rows, buckets }))
    }

    fn embed(&self, rng: Option<&Rng>, batch: &Map) -> Result<Tensor> {
        let ids = batch.get("ids")?;
        let mut lookups = vec![(self.words.weight.tensor()?, ids.clone())];
        if let Some(table) = &self.positions {
            lookups.push((table.weight.tensor()?, batch.get("positions")?));
        }
        if let Some(table) = &self.segments {
            let own = if self.shape.segments > 1 && batch.has("segments") {
                batch.get("segments")?
            } else {
                ids.affine(0.0, 0.0)?
            };
            lookups.push((table.weight.tensor()?, own));
        }
        let pairs: Vec<(&Tensor, &Tensor)> =
            lookups.iter().map(|(table, ids)| (table, ids)).collect();
        let mut x = nn::embedding_sum(&pairs)?;
        if let Some(project) = &self.project {
            x = project.forward(&x, Activation::None)?;
        }
        nn::dropout(&self.norm.forward(&x, None, 0.0, None)?, self.shape.dropout, rng)
    }
}
