//! Words, layers, memory, and the second stream.

use super::config::Shape;
use super::heads::{self, WORDS};
use super::layer::Layer;
use super::surroundings::Surroundings;
use easytransfer_plugin::{
    Cache, Call, Embedding, Error, Init, Map, ModelInfo, Param, Result, Scope, abi, nn, recomputed,
};
use std::sync::Arc;

/// Positions have no end. Longer texts than this are a mistake.
const MOST_POSITIONS: usize = 1 << 20;

/// XLNet over runs of tokens.
pub struct Network {
    shape: Shape,
    words: Embedding,
    /// What stands for a token that the second stream predicts, [1, 1, d_model].
    mask: Param,
    layers: Vec<Arc<Layer>>,
    /// Names under which the layers' inputs are kept.
    kept: Vec<String>,
}

impl Network {
    /// Declares the parameters in `scope`.
    pub fn new(shape: Shape, scope: &Scope) -> Result<Self> {
        let init = Init::Normal(0.0, shape.initializer_range);
        let mask = scope.param("mask_emb", &[1, 1, shape.d_model], init)?;
        let words = Embedding::new(&scope.child(WORDS)?, shape.vocab_size, shape.d_model, init)?;
        let kept: Vec<String> = (0..shape.layers).map(|index| format!("layer.{index}")).collect();
        let layers = kept
            .iter()
            .map(|name| Ok(Arc::new(Layer::new(&shape, &scope.child(name)?)?)))
            .collect::<Result<_>>()?;
        Ok(Self { shape, words, mask, layers, kept })
    }

    pub fn info(&self) -> ModelInfo {
        let shape = &self.shape;
        let ignore =
            ["lm_loss.", "sequence_summary.", "logits_proj.", "classifier.", "qa_outputs."];
        let more = ["start_logits.", "end_logits.", "answer_class."];
        ModelInfo {
            hidden_size: shape.d_model,
            layers: shape.layers,
            vocab_size: shape.vocab_size,
            embedding_size: shape.d_model,
            activation: shape.activation,
            layer_norm_eps: shape.epsilon,
            max_positions: MOST_POSITIONS,
            base_prefix: "transformer".to_owned(),
            class: "XLNetModel".to_owned(),
            tasks: heads::tasks(shape),
            classifier_dropout: shape.summary_last_dropout,
            initializer_range: shape.initializer_range,
            ignore: ignore.iter().chain(&more).map(|name| (*name).to_owned()).collect(),
            depth: std::iter::once(WORDS.to_owned()).chain(self.kept.iter().cloned()).collect(),
            beside: vec![("mask_emb".to_owned(), 0)],
            ..ModelInfo::default()
        }
    }

    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let (ids, rng, cache) = (batch.get("ids")?, call.rng(), call.cache());
        let dropout = self.shape.dropout;
        let mut x = nn::dropout(&self.words.forward(&ids)?, dropout, rng)?;
        let about = Surroundings::new(&self.shape, batch, cache, x.dtype(), rng)?;
        let mut query = match &about.targets {
            Some(targets) => {
                let width = self.shape.d_model;
                let mask = self.mask.tensor()?.reshape(&[1, width])?;
                Some(nn::dropout(&mask.broadcast_to(&[targets.len(), width])?, dropout, rng)?)
            }
            None => None,
        };
        let hidden_states = call.wants(abi::ET_WANT_HIDDEN_STATES);
        for (index, layer) in self.layers.iter().enumerate() {
            if hidden_states {
                outputs.put(&format!("hidden_states/{index}"), &x)?;
            }
            if cache.is_some() {
                // Nothing is recorded while runs go on.
                let rows = [x.clone()];
                let ([mut seen], _) = Cache::append(cache, &self.kept[index], rows, &about.starts)?;
                if seen.extent(0)? != about.tokens {
                    return Err(Error::invalid(format!(
                        "positions: expected to go on behind what memory holds, {} tokens with the new ones, found {}",
                        seen.extent(0)?,
                        about.tokens
                    )));
                }
                if let Some(rows) = &about.seen {
                    seen = seen.index_select(0, rows)?;
                }
                (x, query) = layer.forward(&x, query.as_ref(), &seen, &about, rng)?;
                continue;
            }
            let (layer, about) = (layer.clone(), about.clone());
            match query {
                None => {
                    [x] = recomputed(&[&x], rng, move |inputs, rng| match *inputs {
                        [x] => Ok([layer.forward(x, None, x, &about, rng)?.0]),
                        _ => Err(Error::invalid("a layer of one stream has one input")),
                    })?;
                }
                Some(second) => {
                    let inputs = [&x, &second];
                    let [content, second] = recomputed(&inputs, rng, move |inputs, rng| {
                        let [x, query] = *inputs else {
                            return Err(Error::invalid("a layer of two streams has two inputs"));
                        };
                        match layer.forward(x, Some(query), x, &about, rng)? {
                            (content, Some(query)) => Ok([content, query]),
                            _ => Err(Error::invalid("a layer lost its second stream")),
                        }
                    })?;
                    (x, query) = (content, Some(second));
                }
            }
        }
        if hidden_states {
            outputs.put(&format!("hidden_states/{}", self.layers.len()), &x)?;
        }
        if let Some(query) = query {
            outputs.put("target/last", &nn::dropout(&query, dropout, rng)?)?;
        }
        outputs.put("last", &nn::dropout(&x, dropout, rng)?)
    }
}
