//! The encoder: embeddings, layers, pooler.

use super::config::Shape;
use super::family::Family;
use easytransfer_plugin::nn::{self, Attention};
use easytransfer_plugin::{
    Activation, Call, Embedding, Error, Init, LayerNorm, Linear, LinearConfig, Map, ModelInfo,
    Param, Pool, Result, Rng, Scope, Task, Tensor, abi, recomputed,
};
use std::sync::Arc;

/// A post-norm Transformer encoder over runs of tokens.
pub struct Encoder {
    shape: Shape,
    family: Family,
    words: Embedding,
    positions: Embedding,
    segments: Option<Embedding>,
    norm: LayerNorm,
    project: Option<Linear>,
    /// Scope of each layer.
    scopes: Vec<String>,
    /// A layer stands at every place where its parameters are used.
    layers: Vec<Arc<Layer>>,
    pooler: Option<Linear>,
}

/// What a layer computes with; it runs again in the backward pass when the user asks for recomputation by layer.
struct Layer {
    attention: Attention,
    activation: Activation,
    /// Dropout between the attention output and its residual.
    attention_output_dropout: f64,
    /// Dropout between the second dense layer and its residual.
    output_dropout: f64,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

/// Tasks that each family has a class of heads for, with the end of its name.
const TASKS: [(&str, &str); 4] = [
    ("sequence-classification", "ForSequenceClassification"),
    ("masked-lm", "ForMaskedLM"),
    ("question-answering", "ForQuestionAnswering"),
    ("token-classification", "ForTokenClassification"),
];

impl Encoder {
    pub fn new(shape: Shape, family: Family, scope: &Scope) -> Result<Self> {
        let init = Init::Normal(0.0, shape.initializer_range);
        let (h, e) = (shape.hidden_size, shape.embedding_size);
        let embeddings = scope.child("embeddings")?;
        let table = |name: &str, rows: usize| -> Result<Embedding> {
            Embedding::new(&embeddings.child(name)?, rows, e, init)
        };
        let linear = |name: &str, i: usize, o: usize| -> Result<Linear> {
            LinearConfig::new(i, o).with_init(init).init(&scope.child(name)?)
        };
        let words = table("word_embeddings", shape.vocab_size)?;
        let positions = table("position_embeddings", shape.positions)?;
        if shape.sinusoidal {
            let values = sinusoids(shape.positions, e)?;
            positions.weight.assign(&Tensor::from_slice(&values, &[shape.positions, e])?)?;
        }
        let segments = match shape.segments {
            0 => None,
            rows => Some(table("token_type_embeddings", rows)?),
        };
        let norm = LayerNorm::new(&embeddings.child("LayerNorm")?, e, shape.epsilon)?;
        let project = if e == h && !family.always_projected {
            None
        } else {
            Some(linear(family.projection, e, h)?)
        };
        let scopes = shape.layer_scopes(&family);
        let mut layers: Vec<Arc<Layer>> = Vec::with_capacity(scopes.len());
        for (index, name) in scopes.iter().enumerate() {
            let layer = match scopes[..index].iter().position(|other| other == name) {
                Some(first) => layers[first].clone(),
                None => Arc::new(Layer::new(&shape, &family, &scope.child(name)?)?),
            };
            layers.push(layer);
        }
        let pooler = family.pooler.map(|name| linear(name, h, h)).transpose()?;
        Ok(Self {
            shape,
            family,
            words,
            positions,
            segments,
            norm,
            project,
            scopes,
            layers,
            pooler,
        })
    }

    pub fn info(&self) -> ModelInfo {
        let offset = self.position_offset() as usize;
        let mut depth = vec!["embeddings".to_owned()];
        depth.extend_from_slice(&self.scopes);
        ModelInfo {
            hidden_size: self.shape.hidden_size,
            layers: self.layers.len(),
            vocab_size: self.shape.vocab_size,
            embedding_size: self.shape.embedding_size,
            activation: self.shape.activation,
            layer_norm_eps: self.shape.epsilon,
            max_positions: self.shape.positions.saturating_sub(offset),
            base_prefix: self.family.base_prefix.to_owned(),
            class: format!("{}Model", self.family.class),
            tasks: TASKS
                .map(|(task, class)| {
                    let class = format!("{}{class}", self.family.class);
                    let form = self.family.form.to_owned();
                    (task.to_owned(), Task { class, form, ..Task::default() })
                })
                .into(),
            classifier_dropout: self.shape.classifier_dropout,
            initializer_range: self.shape.initializer_range,
            pooled: self.pooler.is_some(),
            pooler: self.family.pooler.unwrap_or_default().to_owned(),
            ignore: [
                "embeddings.position_ids",
                "embeddings.token_type_ids",
                "cls.",
                "lm_head.",
                "classifier.",
                "pre_classifier.",
                "qa_outputs.",
                "discriminator_predictions.",
                "generator_predictions.",
                "generator_lm_head.",
                "vocab_transform.",
                "vocab_layer_norm.",
                "vocab_projector.",
                "sequence_summary.",
                "predictions.",
                "sop_classifier.",
            ]
            .into_iter()
            .chain(self.family.pooler.is_none().then_some("pooler."))
            .map(str::to_owned)
            .collect(),
            depth,
            beside: [
                self.project.is_some().then(|| (self.family.projection.to_owned(), 0)),
                self.family.pooler.map(|name| (name.to_owned(), self.layers.len() + 1)),
            ]
            .into_iter()
            .flatten()
            .collect(),
            ..ModelInfo::default()
        }
    }

    fn position_offset(&self) -> i64 {
        if self.family.positions_after_padding { self.shape.pad_token_id + 1 } else { 0 }
    }

    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let starts = batch.get("starts")?;
        let mut x = self.embed(call, batch)?;
        let hidden_states = call.wants(abi::ET_WANT_HIDDEN_STATES);
        for (index, layer) in self.layers.iter().enumerate() {
            if hidden_states {
                outputs.put(&format!("hidden_states/{index}"), &x)?;
            }
            let layer = layer.clone();
            [x] = recomputed(&[&x, &starts], call.rng(), move |inputs, rng| match inputs {
                [x, starts] => Ok([layer.forward(x, starts, rng)?]),
                _ => Err(Error::invalid("a layer has two inputs")),
            })?;
        }
        if hidden_states {
            outputs.put(&format!("hidden_states/{}", self.layers.len()), &x)?;
        }
        if let Some(pooler) = &self.pooler
            && call.wants(abi::ET_WANT_POOLED)
        {
            let first = nn::pool(&x, &starts, Pool::First)?;
            outputs.put("pooled", &pooler.forward(&first, Activation::Tanh)?)?;
        }
        outputs.put("last", &x)
    }

    /// The row of each token in the table of positions.
    fn places(&self, batch: &Map, ids: &Tensor) -> Result<Tensor> {
        let positions = batch.get("positions")?;
        if !self.family.positions_after_padding {
            return Ok(positions);
        }
        let (pad, offset) = (self.shape.pad_token_id, self.position_offset());
        let ids = ids.to_vec::<i64>()?;
        if !ids.contains(&pad) {
            return positions.affine(1.0, offset as f64);
        }
        // Padding that stands in a text is not counted: its place is the padding's own, and the next token takes the
        // next place.
        let mut skipped = 0;
        let counted = positions.to_vec::<i64>()?.into_iter().zip(ids).map(|(position, id)| {
            if position == 0 {
                skipped = 0;
            }
            if id == pad {
                skipped += 1;
                return pad;
            }
            position - skipped + offset
        });
        let counted: Vec<i64> = counted.collect();
        Tensor::from_slice(&counted, &[counted.len()])
    }

    fn embed(&self, call: &Call<'_>, batch: &Map) -> Result<Tensor> {
        let ids = batch.get("ids")?;
        let positions = self.places(batch, &ids)?;
        let segments = match &self.segments {
            // Families with one row of segments have no segments to tell apart.
            Some(table) if table.weight.shape()[0] > 1 && batch.has("segments") => {
                Some((table, batch.get("segments")?))
            }
            Some(table) => Some((table, ids.affine(0.0, 0.0)?)),
            None => None,
        };
        let value = |table: &Embedding| Param::tensor(&table.weight);
        let (words, places) = (value(&self.words)?, value(&self.positions)?);
        let sum = match segments {
            Some((table, segments)) => nn::embedding_sum(&[
                (&words, &ids),
                (&places, &positions),
                (&value(table)?, &segments),
            ])?,
            None => nn::embedding_sum(&[(&words, &ids), (&places, &positions)])?,
        };
        let x = self.norm.forward(&sum, None, 0.0, None)?;
        let x = nn::dropout(&x, self.shape.dropout, call.rng())?;
        match &self.project {
            Some(project) => project.forward(&x, Activation::None),
            None => Ok(x),
        }
    }
}

/// The table of positions of Vaswani et al. 2017: sines at even places, cosines at odd ones.
fn sinusoids(rows: usize, width: usize) -> Result<Vec<f32>> {
    let too_large = || {
        Error::bad_input(format!(
            "config.json: max_position_embeddings: there is no memory for {rows} rows"
        ))
    };
    let len = rows.checked_mul(width).ok_or_else(too_large)?;
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| too_large())?;
    for row in 0..rows {
        values.extend((0..width).map(|column| {
            let angle = row as f64 / 10_000f64.powf((column / 2 * 2) as f64 / width as f64);
            (if column % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
        }));
    }
    Ok(values)
}

impl Layer {
    fn new(shape: &Shape, family: &Family, scope: &Scope) -> Result<Self> {
        let (h, init) = (shape.hidden_size, Init::Normal(0.0, shape.initializer_range));
        let linear = |name: &str, i: usize, o: usize| -> Result<Linear> {
            LinearConfig::new(i, o).with_init(init).init(&scope.child(name)?)
        };
        let norm = |name: &str| LayerNorm::new(&scope.child(name)?, h, shape.epsilon);
        let dropout_if = |there: bool| if there { shape.dropout } else { 0.0 };
        let [query, key, value, out, out_norm, first, second, second_norm] = family.parts;
        Ok(Self {
            attention: Attention {
                heads: shape.heads,
                scale: None,
                dropout: shape.attention_dropout,
                causal: false,
            },
            activation: shape.activation,
            attention_output_dropout: dropout_if(family.attention_output_dropout),
            output_dropout: dropout_if(family.output_dropout),
            query: linear(query, h, h)?,
            key: linear(key, h, h)?,
            value: linear(value, h, h)?,
            attention_output: linear(out, h, h)?,
            attention_norm: norm(out_norm)?,
            intermediate: linear(first, h, shape.intermediate_size)?,
            output: linear(second, shape.intermediate_size, h)?,
            output_norm: norm(second_norm)?,
        })
    }

    fn forward(&self, x: &Tensor, starts: &Tensor, rng: Option<&Rng>) -> Result<Tensor> {
        let context = nn::attention(
            &self.query.forward(x, Activation::None)?,
            &self.key.forward(x, Activation::None)?,
            &self.value.forward(x, Activation::None)?,
            starts,
            self.attention,
            rng,
        )?;
        let attended = self.attention_output.forward(&context, Activation::None)?;
        let dropout = self.attention_output_dropout;
        let x = self.attention_norm.forward(&attended, Some(x), dropout, rng)?;
        let inner = self.intermediate.forward(&x, self.activation)?;
        let output = self.output.forward(&inner, Activation::None)?;
        self.output_norm.forward(&output, Some(&x), self.output_dropout, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::sinusoids;

    #[test]
    fn sinusoids_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/config.json");
        let text = std::fs::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows = golden["sinusoids"].as_array().unwrap();
        let expected: Vec<f64> = rows
            .iter()
            .flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
            .collect();
        let found = sinusoids(rows.len(), expected.len() / rows.len()).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!(sinusoids(usize::MAX, 2).is_err() && sinusoids(1 << 44, 16).is_err());
    }
}
