//! Recurrent networks that read a text in both directions.

use super::options::{WordOptions, check_dropout, check_sizes, schema};
use super::runs::{Runs, with_zeros};
use super::text_cnn::put;
use super::words::Words;
use easytransfer_plugin::{
    Activation, Call, Init, Linear, LinearConfig, Map, Model, ModelInfo, Param, Pool, Result, Rng,
    Scope, Tensor, abi, nn, nn::Recurrent, out_of_range,
};
use serde::Deserialize;
use std::ffi::CStr;

/// The most layers. A number beyond is a mistake.
const MOST_LAYERS: usize = 64;

/// Options of [`BiLstm`] and [`BiGruAttention`].
#[derive(Deserialize)]
pub struct RecurrentConfig {
    #[serde(flatten)]
    words: WordOptions,
    #[serde(default = "hidden_size")]
    hidden_size: usize,
    #[serde(default = "one")]
    num_layers: usize,
    #[serde(default = "half")]
    dropout: f64,
}

fn hidden_size() -> usize {
    150
}

fn one() -> usize {
    1
}

fn half() -> f64 {
    0.5
}

macro_rules! recurrent_schema {
    () => {
        schema!(
            r#""hidden_size":{"type":"integer","minimum":1,"default":150,"description":"numbers of the state of one direction; a word's vector has twice as many"},"#,
            r#""num_layers":{"type":"integer","minimum":1,"maximum":64,"default":1},"#,
            r#""dropout":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.5,"description":"between layers and before the head"}"#,
        )
    };
}

/// Weights of one direction of a layer.
struct Direction {
    input_weight: Param,
    state_weight: Param,
    input_bias: Param,
    state_bias: Param,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru,
}

/// Layers of two directions each, by the names of PyTorch.
struct Stack {
    cell: Cell,
    layers: Vec<[Direction; 2]>,
    dropout: f64,
}

impl Direction {
    fn new(scope: &Scope, suffix: &str, gates: usize, [inputs, h]: [usize; 2]) -> Result<Self> {
        let bound = 1.0 / (h as f64).sqrt();
        let param = |name: &str, shape: &[usize]| {
            scope.param(&format!("{name}_{suffix}"), shape, Init::Uniform(-bound, bound))
        };
        Ok(Self {
            input_weight: param("weight_ih", &[gates * h, inputs])?,
            state_weight: param("weight_hh", &[gates * h, h])?,
            input_bias: param("bias_ih", &[gates * h])?,
            state_bias: param("bias_hh", &[gates * h])?,
        })
    }

    fn forward(&self, cell: Cell, x: &Tensor, starts: &Tensor, reverse: bool) -> Result<Tensor> {
        let weights = Recurrent {
            input_weight: &self.input_weight.tensor()?,
            state_weight: &self.state_weight.tensor()?,
            input_bias: &self.input_bias.tensor()?,
            state_bias: &self.state_bias.tensor()?,
        };
        match cell {
            Cell::Lstm => nn::lstm(x, weights, starts, reverse),
            Cell::Gru => nn::gru(x, weights, starts, reverse),
        }
    }
}

impl Stack {
    fn new(cell: Cell, config: &RecurrentConfig, scope: &Scope) -> Result<Self> {
        let h = config.hidden_size;
        check_sizes(&[("hidden_size", h), ("num_layers", config.num_layers)])?;
        check_dropout("dropout", config.dropout)?;
        if config.num_layers > MOST_LAYERS {
            let expected = format!("at most {MOST_LAYERS}");
            return Err(out_of_range("num_layers", &expected, config.num_layers));
        }
        let (name, gates) = if cell == Cell::Lstm { ("lstm", 4) } else { ("gru", 3) };
        let scope = scope.child(name)?;
        let mut layers = Vec::new();
        for layer in 0..config.num_layers {
            let sizes = [if layer == 0 { config.words.embedding_size } else { 2 * h }, h];
            layers.push([
                Direction::new(&scope, &format!("l{layer}"), gates, sizes)?,
                Direction::new(&scope, &format!("l{layer}_reverse"), gates, sizes)?,
            ]);
        }
        Ok(Self { cell, layers, dropout: config.dropout })
    }

    /// The states of both directions of the last layer, [T, h] each.
    fn forward(&self, x: &Tensor, starts: &Tensor, rng: Option<&Rng>) -> Result<[Tensor; 2]> {
        let mut x = x.clone();
        let mut states = [x.clone(), x.clone()];
        for (index, [ahead, back]) in self.layers.iter().enumerate() {
            if index > 0 {
                x = nn::dropout(&Tensor::concat(&[&states[0], &states[1]], 1)?, self.dropout, rng)?;
            }
            states = [
                ahead.forward(self.cell, &x, starts, false)?,
                back.forward(self.cell, &x, starts, true)?,
            ];
        }
        Ok(states)
    }
}

/// A bidirectional LSTM (Graves and Schmidhuber 2005). "last" [T, 2 h] has the states of both directions at each word;
/// "pooled" [B, 2 h] those with which they end, at the last word and at the first.
pub struct BiLstm {
    words: Words,
    stack: Stack,
    info: ModelInfo,
}

impl Model for BiLstm {
    const NAME: &'static CStr = c"bilstm";
    const SCHEMA: &'static CStr = recurrent_schema!();
    type Config = RecurrentConfig;

    fn new(config: RecurrentConfig, scope: &Scope) -> Result<Self> {
        let words = Words::new(&config.words, scope)?;
        let stack = Stack::new(Cell::Lstm, &config, scope)?;
        let info = config.words.info(2 * config.hidden_size, config.dropout, &["lstm"]);
        Ok(Self { words, stack, info })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let runs = Runs::of(batch)?;
        let x = self.words.forward(&batch.get("ids")?)?;
        let [ahead, back] = self.stack.forward(&x, &runs.starts, call.rng())?;
        let mut end = 0;
        let nothing = runs.tokens_len() as i64;
        let ends = runs.lens.iter().map(|len| {
            end += *len as i64;
            if *len == 0 { nothing } else { end - 1 }
        });
        let ends: Vec<i64> = ends.collect();
        let at_end =
            with_zeros(&ahead)?.index_select(0, &Tensor::from_slice(&ends, &[ends.len()])?)?;
        let pooled = Tensor::concat(&[&at_end, &nn::pool(&back, &runs.starts, Pool::First)?], 1)?;
        put(call, outputs, &Tensor::concat(&[&ahead, &back], 1)?, &pooled)
    }
}

/// A bidirectional GRU with attention over the words (the lower level of "Hierarchical Attention Networks", Yang et
/// al. 2016). "last" [T, 2 h] has the states of both directions at each word; "pooled" [B, 2 h] is their mean by the
/// weights softmax(u · tanh(W state + b)).
pub struct BiGruAttention {
    words: Words,
    stack: Stack,
    attention: Linear,
    /// What every text is asked, [2 h].
    context: Param,
    info: ModelInfo,
}

/// Scope of the parameters that only "pooled" needs.
const ATTENTION: &str = "attention";

impl Model for BiGruAttention {
    const NAME: &'static CStr = c"bigru-attention";
    const SCHEMA: &'static CStr = recurrent_schema!();
    type Config = RecurrentConfig;

    fn new(config: RecurrentConfig, scope: &Scope) -> Result<Self> {
        let words = Words::new(&config.words, scope)?;
        let stack = Stack::new(Cell::Gru, &config, scope)?;
        let width = 2 * config.hidden_size;
        let attention = scope.child(ATTENTION)?;
        let dense = LinearConfig::new(width, width).with_init(Init::XavierUniform);
        let mut info = config.words.info(width, config.dropout, &["gru", ATTENTION]);
        ATTENTION.clone_into(&mut info.pooler);
        Ok(Self {
            words,
            stack,
            context: attention.param("context", &[width], Init::Normal(0.0, 0.1))?,
            attention: dense.init(&attention.child("dense")?)?,
            info,
        })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let runs = Runs::of(batch)?;
        let x = self.words.forward(&batch.get("ids")?)?;
        let [ahead, back] = self.stack.forward(&x, &runs.starts, call.rng())?;
        let last = Tensor::concat(&[&ahead, &back], 1)?;
        if call.wants(abi::ET_WANT_HIDDEN_STATES) {
            outputs.put("hidden_states/0", &last)?;
        }
        if call.wants(abi::ET_WANT_POOLED) {
            // Attention of one query for each text.
            let texts = runs.lens.len();
            let query = self.context.tensor()?.broadcast_to(&[texts, 2 * ahead.extent(1)?])?;
            let keys = self.attention.forward(&last, Activation::Tanh)?;
            let one = Runs::new(vec![1; texts])?;
            outputs.put("pooled", &super::dam::attend(&query, &one, [&keys, &last], &runs)?)?;
        }
        outputs.put("last", &last)
    }
}
