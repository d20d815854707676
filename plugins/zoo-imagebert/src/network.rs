//! The network: words and patches side by side, the layers, and the heads.

use super::config::ImageBertConfig;
use super::images::{self, ImageEmbeddings, Patches};
use super::layer::Layer;
use easytransfer_plugin::{
    Activation, Call, Embedding, Error, Init, LayerNorm, Linear, LinearConfig, Map, ModelInfo,
    Pool, Result, Rng, Scope, Task, Tensor, abi, nn, recomputed,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Scopes of the heads and of what stands before them.
const POOLER: &str = "pooler.dense";
const IMAGES: &str = "image_embeddings";
const PATCH_HEAD: &str = "cls.img_predictions";
const ALIGNMENT_HEAD: &str = "cls.seq_relationship";

/// Embeddings of both kinds, layers, pooler and heads.
pub struct Network {
    config: ImageBertConfig,
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: LayerNorm,
    images: ImageEmbeddings,
    layers: Vec<Arc<Layer>>,
    pooler: Linear,
    patch_head: Linear,
    alignment_head: Linear,
}

/// A batch whose words and patches lie in one run for each row.
struct Joined {
    x: Tensor,
    starts: Tensor,
    /// Rows of `x` that are words and patches, in the order in which they came; nothing where all are words.
    parts: Option<[Tensor; 2]>,
}

fn indices(values: &[i64]) -> Result<Tensor> {
    Tensor::from_slice(values, &[values.len()])
}

impl Network {
    /// Declares the parameters in `scope`.
    pub fn new(config: ImageBertConfig, scope: &Scope) -> Result<Self> {
        let (h, init) = (config.hidden_size, Init::TruncatedNormal(0.0, config.initializer_range));
        let embeddings = scope.child("embeddings")?;
        let table =
            |name: &str, rows: usize| Embedding::new(&embeddings.child(name)?, rows, h, init);
        let linear = |name: &str, outputs: usize, bias: bool| {
            let linear = LinearConfig { bias, ..LinearConfig::new(h, outputs) };
            linear.with_init(init).init(&scope.child(name)?)
        };
        let words = table("word_embeddings", config.vocab_size)?;
        let positions = table("position_embeddings", config.max_position_embeddings)?;
        let segments = table("token_type_embeddings", config.type_vocab_size)?;
        let norm = LayerNorm::new(&embeddings.child("LayerNorm")?, h, config.layer_norm_eps)?;
        let images = ImageEmbeddings::new(&config, &scope.child(IMAGES)?)?;
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let scope = scope.child(&format!("encoder.layer.{layer}"))?;
            Ok(Arc::new(Layer::new(&config, &scope)?))
        });
        Ok(Self {
            words,
            positions,
            segments,
            norm,
            images,
            layers: layers.collect::<Result<_>>()?,
            pooler: linear(POOLER, h, true)?,
            patch_head: linear(PATCH_HEAD, config.patch_feature_size, false)?,
            alignment_head: linear(ALIGNMENT_HEAD, 2, true)?,
            config,
        })
    }

    /// What others must know.
    pub fn info(&self) -> ModelInfo {
        let config = &self.config;
        let layers = config.num_hidden_layers;
        let scopes = (0..layers).map(|layer| format!("encoder.layer.{layer}"));
        let patches = config.patches_of_pixels().unwrap_or(config.max_patch_position_embeddings);
        let numbers = patches * config.patch_feature_size;
        let image = if config.image_size.is_some() { "pixels" } else { "patches" };
        let form =
            |task: &str| (task.to_owned(), Task { class: String::new(), form: "bert".to_owned() });
        ModelInfo {
            hidden_size: config.hidden_size,
            layers,
            vocab_size: config.vocab_size,
            embedding_size: config.hidden_size,
            activation: config.hidden_act,
            layer_norm_eps: config.layer_norm_eps,
            max_positions: config.max_position_embeddings,
            tasks: [
                "sequence-classification",
                "masked-lm",
                "question-answering",
                "token-classification",
            ]
            .map(form)
            .into(),
            classifier_dropout: config.hidden_dropout_prob,
            initializer_range: config.initializer_range,
            pooled: true,
            pooler: POOLER.to_owned(),
            ignore: vec!["embeddings.position_ids".to_owned(), "cls.predictions.".to_owned()],
            depth: std::iter::once("embeddings".to_owned()).chain(scopes).collect(),
            beside: [
                (IMAGES, 0),
                (POOLER, layers + 1),
                (PATCH_HEAD, layers + 1),
                (ALIGNMENT_HEAD, layers + 1),
            ]
            .map(|(scope, depth)| (scope.to_owned(), depth))
            .into(),
            inputs: BTreeMap::from([
                (image.to_owned(), numbers),
                ("patch_mask".to_owned(), patches),
                ("masked_patches".to_owned(), patches),
            ]),
            outputs: ["patch_last", "patch_logits", "alignment_logits"].map(str::to_owned).into(),
            ..ModelInfo::default()
        }
    }

    /// See [`super::ImageBert`].
    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let starts = batch.get("starts")?.to_vec::<i64>()?;
        let rows = starts.len().saturating_sub(1);
        let patches = images::read(&self.config, batch, rows)?;
        let text = self.embed(call.rng(), batch)?;
        let Joined { mut x, starts, parts } = match &patches {
            Some(patches) => self.join(&text, &starts, patches, call.rng())?,
            None => Joined { x: text, starts: batch.get("starts")?, parts: None },
        };
        let words = |x: &Tensor| match &parts {
            Some([words, _]) => x.index_select(0, words),
            None => Ok(x.clone()),
        };
        let hidden_states = call.wants(abi::ET_WANT_HIDDEN_STATES);
        for (index, layer) in self.layers.iter().enumerate() {
            if hidden_states {
                outputs.put(&format!("hidden_states/{index}"), &words(&x)?)?;
            }
            let layer = layer.clone();
            [x] = recomputed(&[&x, &starts], call.rng(), move |inputs, rng| match inputs {
                [x, starts] => Ok([layer.forward(x, starts, rng)?]),
                _ => Err(Error::invalid("a layer has two inputs")),
            })?;
        }
        let last = words(&x)?;
        if hidden_states {
            outputs.put(&format!("hidden_states/{}", self.layers.len()), &last)?;
        }
        if call.wants(abi::ET_WANT_POOLED) {
            let first = nn::pool(&x, &starts, Pool::First)?;
            let pooled = self.pooler.forward(&first, Activation::Tanh)?;
            if patches.is_some() {
                let logits = self.alignment_head.forward(&pooled, Activation::None)?;
                outputs.put("alignment_logits", &logits)?;
            }
            outputs.put("pooled", &pooled)?;
        }
        if let (Some(patches), Some([_, places])) = (&patches, &parts) {
            self.put_patches(patches, &x.index_select(0, places)?, outputs)?;
        }
        outputs.put("last", &last)
    }

    /// "patch_last" [P, h] with "patch_starts" [B + 1]; of the M hidden patches what the head says, "patch_logits"
    /// [M, f], and what they were, "patch_targets" [M, f].
    fn put_patches(&self, patches: &Patches, last: &Tensor, outputs: &mut Map) -> Result<()> {
        let mut starts = vec![0i64];
        for len in &patches.lens {
            starts.push(starts[starts.len() - 1] + *len as i64);
        }
        outputs.put("patch_last", last)?;
        outputs.put("patch_starts", &indices(&starts)?)?;
        let hidden = indices(&patches.hidden)?;
        let logits = self.patch_head.forward(&last.index_select(0, &hidden)?, Activation::None)?;
        let targets = patches.values.index_select(0, &hidden)?.cast(logits.dtype())?;
        outputs.put("patch_logits", &logits)?;
        outputs.put("patch_targets", &targets)
    }

    /// BERT's embeddings of the words, [T, h].
    fn embed(&self, rng: Option<&Rng>, batch: &Map) -> Result<Tensor> {
        let (ids, positions) = (batch.get("ids")?, batch.get("positions")?);
        let segments = match batch.find("segments")? {
            Some(segments) if self.config.type_vocab_size > 1 => segments,
            _ => ids.affine(0.0, 0.0)?,
        };
        let tables = [
            self.words.weight.tensor()?,
            self.positions.weight.tensor()?,
            self.segments.weight.tensor()?,
        ];
        let sum = nn::embedding_sum(&[
            (&tables[0], &ids),
            (&tables[1], &positions),
            (&tables[2], &segments),
        ])?;
        nn::dropout(
            &self.norm.forward(&sum, None, 0.0, None)?,
            self.config.hidden_dropout_prob,
            rng,
        )
    }

    /// The words of each row and behind them its patches, in one run.
    fn join(
        &self,
        text: &Tensor,
        text_starts: &[i64],
        patches: &Patches,
        rng: Option<&Rng>,
    ) -> Result<Joined> {
        let vectors = self.images.forward(patches, rng)?;
        let both = Tensor::concat(&[text, &vectors], 0)?;
        let mut patch = text.extent(0)? as i64;
        let (mut order, mut starts) = (Vec::new(), vec![0i64]);
        let (mut words, mut places) = (Vec::new(), Vec::new());
        for (run, len) in text_starts.windows(2).zip(&patches.lens) {
            for word in run[0]..run[1] {
                words.push(order.len() as i64);
                order.push(word);
            }
            for _ in 0..*len {
                places.push(order.len() as i64);
                order.push(patch);
                patch += 1;
            }
            starts.push(order.len() as i64);
        }
        Ok(Joined {
            x: both.index_select(0, &indices(&order)?)?,
            starts: indices(&starts)?,
            parts: Some([indices(&words)?, indices(&places)?]),
        })
    }
}
