//! Encoder and decoder over one word embedding, and the head.

use super::config::Shape;
use super::family::Family;
use super::layer::{Block, Memory};
use easytransfer_plugin::{
    Activation, Cache, Call, DType, Embedding, Error, Init, Linear, LinearConfig, Map, ModelInfo,
    Result, RmsNorm, Scope, Tensor, abi, nn, recomputed,
};
use std::sync::Arc;

/// Positions have no end: distances beyond the greatest share its bucket. Longer texts than this are a mistake.
const MOST_POSITIONS: usize = 1 << 20;

/// Blocks with a norm above them.
struct Stack {
    blocks: Vec<Arc<Block>>,
    norm: RmsNorm,
    dropout: f64,
}

impl Stack {
    fn new(shape: &Shape, scope: &Scope, layers: usize, decoder: bool) -> Result<Self> {
        let mut blocks: Vec<Arc<Block>> = Vec::with_capacity(layers);
        for index in 0..layers {
            let bias = blocks.first().map(|first| first.bias());
            let scope = scope.child(&format!("block.{index}"))?;
            blocks.push(Arc::new(Block::new(shape, &scope, index, decoder, bias)?));
        }
        let norm = RmsNorm::new(&scope.child("final_layer_norm")?, shape.d_model, shape.epsilon)?;
        Ok(Self { blocks, norm, dropout: shape.dropout })
    }

    /// Runs the blocks on embedded tokens; hidden states go to `outputs` under `space`.
    fn forward(
        &self,
        call: &Call<'_>,
        x: &Tensor,
        starts: &Tensor,
        memory: Option<Memory<'_>>,
        outputs: &mut Map,
        space: &str,
    ) -> Result<Tensor> {
        let (rng, cache) = (call.rng(), call.cache());
        let wanted = call.wants(abi::ET_WANT_HIDDEN_STATES);
        let mut keep = |index: usize, x: &Tensor| {
            if wanted { outputs.put(&format!("{space}hidden_states/{index}"), x) } else { Ok(()) }
        };
        let mut x = nn::dropout(x, self.dropout, rng)?;
        for (index, block) in self.blocks.iter().enumerate() {
            keep(index, &x)?;
            if cache.is_some() {
                // Nothing is recorded while the host generates.
                x = block.forward(&x, starts, memory, cache, rng)?;
                continue;
            }
            let block = block.clone();
            let mut inputs = vec![&x, starts];
            inputs.extend(memory.into_iter().flat_map(|(last, starts)| [last, starts]));
            [x] = recomputed(&inputs, rng, move |inputs, rng| {
                let (x, starts, memory) = match *inputs {
                    [x, starts] => (x, starts, None),
                    [x, starts, last, last_starts] => (x, starts, Some((last, last_starts))),
                    _ => return Err(Error::invalid("a layer has two inputs, or four")),
                };
                Ok([block.forward(x, starts, memory, None, rng)?])
            })?;
        }
        let x = nn::dropout(&self.norm.forward(&x)?, self.dropout, rng)?;
        keep(self.blocks.len(), &x)?;
        Ok(x)
    }
}

/// T5: an encoder, and unless it stands alone a decoder with a head over the vocabulary.
pub struct EncoderDecoder {
    shape: Shape,
    family: Family,
    words: Embedding,
    encoder: Stack,
    decoder: Option<Stack>,
    /// Nothing where the head is the word embedding.
    head: Option<Linear>,
}

impl EncoderDecoder {
    pub fn new(shape: Shape, family: Family, scope: &Scope) -> Result<Self> {
        let init = Init::Normal(0.0, shape.init_factor);
        let words = Embedding::new(&scope.child("shared")?, shape.vocab_size, shape.d_model, init)?;
        let encoder = Stack::new(&shape, &scope.child("encoder")?, shape.layers, false)?;
        let (mut decoder, mut head) = (None, None);
        if let Some(layers) = shape.decoder_layers {
            decoder = Some(Stack::new(&shape, &scope.child("decoder")?, layers, true)?);
            if !shape.tied {
                let linear = LinearConfig::new(shape.d_model, shape.vocab_size).with_init(init);
                let linear = LinearConfig { bias: false, ..linear };
                head = Some(linear.init(&scope.child("lm_head")?)?);
            }
        }
        Ok(Self { shape, family, words, encoder, decoder, head })
    }

    pub fn info(&self) -> ModelInfo {
        let Shape { layers, .. } = self.shape;
        let above = layers + 1;
        let mut depth = vec!["shared".to_owned()];
        depth.extend((0..layers).map(|index| format!("encoder.block.{index}")));
        let class =
            if self.decoder.is_some() { "ForConditionalGeneration" } else { "EncoderModel" };
        // Copies of the word embedding, and a table that no layer reads, of the first checkpoints.
        let mut ignore = vec![
            "encoder.embed_tokens.",
            "decoder.embed_tokens.",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.",
        ];
        if self.decoder.is_none() {
            ignore.push("decoder.");
        }
        if self.head.is_none() {
            ignore.push("lm_head.");
        }
        let beside = ["encoder.final_layer_norm", "decoder", "lm_head"];
        ModelInfo {
            hidden_size: self.shape.d_model,
            layers,
            vocab_size: self.shape.vocab_size,
            embedding_size: self.shape.d_model,
            activation: self.shape.activation,
            layer_norm_eps: self.shape.epsilon,
            max_positions: MOST_POSITIONS,
            class: format!("{}{class}", self.family.class),
            initializer_range: 0.02,
            ignore: ignore.into_iter().map(str::to_owned).collect(),
            depth,
            beside: beside.map(|scope| (scope.to_owned(), above)).to_vec(),
            decoder_start: self.shape.decoder_start.filter(|_| self.decoder.is_some()),
            eos: self.shape.eos.clone(),
            ..ModelInfo::default()
        }
    }

    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let mut memory = None;
        if call.cache().is_none_or(Cache::is_empty) {
            let (ids, starts) = (batch.get("ids")?, batch.get("starts")?);
            let x = self.words.forward(&ids)?;
            let last = self.encoder.forward(
                // The encoder reads its runs once, and keeps nothing.
                &call.also(0),
                &x,
                &starts,
                None,
                outputs,
                "",
            )?;
            outputs.put("last", &last)?;
            memory = Some((last, starts));
        }
        match &self.decoder {
            Some(decoder) if batch.has("decoder/ids") => {
                let memory = memory.as_ref().map(|(last, starts)| (last, starts));
                self.decode(decoder, call, batch, memory, outputs)
            }
            _ => Ok(()),
        }
    }

    fn decode(
        &self,
        decoder: &Stack,
        call: &Call<'_>,
        batch: &Map,
        memory: Option<Memory<'_>>,
        outputs: &mut Map,
    ) -> Result<()> {
        let (ids, starts) = (batch.get("decoder/ids")?, batch.get("decoder/starts")?);
        let x = self.words.forward(&ids)?;
        let mut last = decoder.forward(call, &x, &starts, memory, outputs, "decoder/")?;
        outputs.put("decoder/last", &last)?;
        if !call.wants(abi::ET_WANT_LOGITS) {
            return Ok(());
        }
        if call.cache().is_some() {
            let ends = starts.narrow(0, 1, starts.len().saturating_sub(1))?;
            last = last.index_select(0, &ends.affine(1.0, -1.0)?.cast(DType::I64)?)?;
        }
        if self.shape.scaled {
            last = last.affine((self.shape.d_model as f64).powf(-0.5), 0.0)?;
        }
        let logits = match &self.head {
            Some(head) => head.forward(&last, Activation::None)?,
            None => nn::linear(&last, &self.words.weight.tensor()?, None, Activation::None)?,
        };
        outputs.put("logits", &logits)
    }
}
