//! The encoder: embeddings, layers, the norm above them, and what stands above it for each task.

use super::config::Shape;
use super::layer::{Layer, norm};
use easytransfer_plugin::nn::{self, Angles, Rotary};
use easytransfer_plugin::{
    Activation, Call, Embedding, Error, HeadLayer, Init, LayerNorm, Map, ModelInfo, Result, Scope,
    Task, Tensor, abi, recomputed,
};
use std::sync::Arc;

/// Name of the table of words.
const WORDS: &str = "embeddings.tok_embeddings";

/// A pre-norm Transformer encoder over runs of tokens.
pub struct Encoder {
    shape: Shape,
    words: Embedding,
    norm: LayerNorm,
    layers: Vec<Arc<Layer>>,
    final_norm: LayerNorm,
    global: Rotary,
    local: Rotary,
}

impl Encoder {
    /// Declares the parameters in `scope`.
    pub fn new(shape: Shape, scope: &Scope) -> Result<Self> {
        let (rows, h) = (shape.vocab_size, shape.hidden_size);
        let init = Init::TruncatedNormal(0.0, shape.initializer_range);
        let words = Embedding::new(&scope.child(WORDS)?, rows, h, init)?;
        let embedded = norm(&shape, &scope.child("embeddings")?, "norm")?;
        let layers = (0..shape.local.len())
            .map(|index| {
                let scope = scope.child(&format!("layers.{index}"))?;
                Ok(Arc::new(Layer::new(&shape, &scope, index)?))
            })
            .collect::<Result<_>>()?;
        let final_norm = norm(&shape, scope, "final_norm")?;
        let size = h / shape.heads;
        let rotary = |rope: &super::config::Rope| Rotary::new(size, rope.theta, rope.factor);
        let (global, local) = (rotary(&shape.global_rope)?, rotary(&shape.local_rope)?);
        Ok(Self { shape, words, norm: embedded, layers, final_norm, global, local })
    }

    pub fn info(&self) -> ModelInfo {
        let shape = &self.shape;
        let layers = self.layers.len();
        let depth = (0..layers).map(|index| format!("layers.{index}"));
        ModelInfo {
            hidden_size: shape.hidden_size,
            layers,
            vocab_size: shape.vocab_size,
            embedding_size: shape.hidden_size,
            activation: shape.activation,
            layer_norm_eps: shape.epsilon,
            max_positions: shape.positions,
            base_prefix: "model".to_owned(),
            class: "ModernBertModel".to_owned(),
            tasks: self.tasks().into(),
            classifier_dropout: shape.classifier_dropout,
            initializer_range: shape.initializer_range,
            ignore: ["head.", "decoder.", "classifier."].map(str::to_owned).to_vec(),
            depth: std::iter::once("embeddings".to_owned()).chain(depth).collect(),
            beside: vec![("final_norm".to_owned(), layers + 1)],
            ..ModelInfo::default()
        }
    }

    /// The heads of `transformers`: each begins with a dense layer and a norm.
    fn tasks(&self) -> [(String, Task); 4] {
        let shape = &self.shape;
        let added = shape.initializer_range / (2.0 * shape.local.len().max(1) as f64).sqrt();
        let transform = [
            HeadLayer::Linear {
                scope: "head.dense".to_owned(),
                width: Some(shape.hidden_size),
                bias: shape.classifier_bias,
                activation: shape.classifier_activation,
                deviation: added,
            },
            HeadLayer::LayerNorm {
                scope: "head.norm".to_owned(),
                bias: shape.norm_bias,
                epsilon: shape.epsilon,
            },
        ];
        let classifier = [
            HeadLayer::Dropout { p: shape.classifier_dropout },
            HeadLayer::Linear {
                scope: "classifier".to_owned(),
                width: None,
                bias: true,
                activation: Activation::None,
                deviation: (shape.hidden_size as f64).powf(-0.5),
            },
        ];
        let scores = if shape.tied {
            let bias = shape.decoder_bias.then(|| "decoder".to_owned());
            HeadLayer::Words { words: format!("{WORDS}.weight"), bias }
        } else {
            HeadLayer::Linear {
                scope: "decoder".to_owned(),
                width: Some(shape.vocab_size),
                bias: shape.decoder_bias,
                activation: Activation::None,
                deviation: added,
            }
        };
        let pool = HeadLayer::Pool { by: shape.classifier_pooling };
        let task = |name: &str, class: &str, layers: &[&[HeadLayer]]| {
            let class = format!("ModernBertFor{class}");
            (name.to_owned(), Task { class, layers: layers.concat(), ..Task::default() })
        };
        [
            task(
                "sequence-classification",
                "SequenceClassification",
                &[&[pool], &transform, &classifier],
            ),
            task("token-classification", "TokenClassification", &[&transform, &classifier]),
            task("question-answering", "QuestionAnswering", &[&transform, &classifier]),
            task("masked-lm", "MaskedLM", &[&transform, &[scores]]),
        ]
    }

    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let (ids, starts) = (batch.get("ids")?, batch.get("starts")?);
        let positions = batch.get("positions")?;
        let embedded = self.norm.forward(&self.words.forward(&ids)?, None, 0.0, None)?;
        let mut x = nn::dropout(&embedded, self.shape.embedding_dropout, call.rng())?;
        let dtype = x.dtype();
        let (mut global, mut local) = (None, None);
        let hidden_states = call.wants(abi::ET_WANT_HIDDEN_STATES);
        for (index, layer) in self.layers.iter().enumerate() {
            if hidden_states {
                outputs.put(&format!("hidden_states/{index}"), &x)?;
            }
            let (known, rotary) = match layer.window {
                Some(_) => (&mut local, &self.local),
                None => (&mut global, &self.global),
            };
            let Angles { cos, sin, quarter } = match known {
                Some(angles) => Angles::clone(angles),
                None => known.insert(rotary.at(&positions, 2 * self.shape.heads, dtype)?).clone(),
            };
            let layer = layer.clone();
            let inputs = [&x, &starts, &cos, &sin];
            [x] = recomputed(&inputs, call.rng(), move |inputs, rng| match *inputs {
                [x, starts, cos, sin] => {
                    let (cos, sin, quarter) = (cos.clone(), sin.clone(), quarter.clone());
                    let angles = Angles { cos, sin, quarter };
                    Ok([layer.forward(x, starts, &angles, rng)?])
                }
                _ => Err(Error::invalid("a layer has four inputs")),
            })?;
        }
        let last: Tensor = self.final_norm.forward(&x, None, 0.0, None)?;
        if hidden_states {
            outputs.put(&format!("hidden_states/{}", self.layers.len()), &last)?;
        }
        outputs.put("last", &last)
    }
}
