//! HCNN, the hybrid of two kinds of convolution ("Transfer Learning for Context-Aware Question Matching in
//! Information-seeking Conversation Systems", Qiu et al. 2018): one over the words of each text, and one over the
//! table of products of their words (MatchPyramid, Pang et al. 2016).

use super::conv::{Conv, xavier_normal};
use super::dam::{Last, put_pairs};
use super::options::{WordOptions, check_dropout, check_sizes, schema};
use super::runs::{Runs, Side, contrast, sides};
use super::words::Words;
use easytransfer_plugin::{
    Activation, Call, Init, Map, Model, ModelInfo, Param, Pool, Result, Scope, Tensor, nn,
    out_of_range,
};
use serde::Deserialize;
use std::ffi::CStr;

/// Options of [`Hcnn`].
#[derive(Deserialize)]
pub struct HcnnConfig {
    #[serde(flatten)]
    words: WordOptions,
    #[serde(default = "hidden_size")]
    hidden_size: usize,
    #[serde(default = "filter_size")]
    filter_size: usize,
    #[serde(default = "sequence_length")]
    first_sequence_length: usize,
    #[serde(default = "sequence_length")]
    second_sequence_length: usize,
    #[serde(default = "dropout")]
    dropout: f64,
}

fn hidden_size() -> usize {
    200
}

fn filter_size() -> usize {
    4
}

fn sequence_length() -> usize {
    64
}

fn dropout() -> f64 {
    0.2
}

/// Filters of the first and of the second convolution over the table, and their sizes in both directions.
const FILTERS: [usize; 2] = [8, 16];
const SIZES: [usize; 2] = [6, 4];
/// Sizes of the maxima after them, and the stride of the second convolution.
const POOLS: [usize; 2] = [4, 2];
const STRIDE: usize = 3;
/// Fewest and most words for which the pyramid has a top.
const SHORTEST: usize = 28;
const LONGEST: usize = 4096;

/// Convolutions over a table of [first, second] products: 6x6, maxima of 4x4, 4x4 in steps of 3, maxima of 2x2.
struct Pyramid {
    weights: [Param; 2],
    biases: [Param; 2],
    lens: [usize; 2],
}

impl Pyramid {
    fn new(scope: &Scope, lens: [usize; 2]) -> Result<Self> {
        let conv = |index: usize, inputs: usize| -> Result<(Param, Param)> {
            let scope = scope.child(&format!("convs.{index}"))?;
            let (filters, size) = (FILTERS[index], SIZES[index]);
            let init = xavier_normal(size * size, inputs, filters);
            let bias = scope.param("bias", &[filters], Init::Constant(1e-4))?;
            Ok((scope.param("weight", &[filters, inputs, size, size], init)?, bias))
        };
        let ((first, first_bias), (second, second_bias)) = (conv(0, 1)?, conv(1, FILTERS[0])?);
        Ok(Self { weights: [first, second], biases: [first_bias, second_bias], lens })
    }

    /// Rows and columns of the second convolution.
    fn second(&self) -> [usize; 2] {
        self.lens.map(|len| (len / POOLS[0] - SIZES[1]) / STRIDE + 1)
    }

    /// Numbers of the top.
    fn width(&self) -> usize {
        self.second().iter().map(|len| len / POOLS[1]).product::<usize>() * FILTERS[1]
    }

    /// Products of words [B, first, second] -> [B, width].
    fn forward(&self, table: &Tensor) -> Result<Tensor> {
        let batch = table.extent(0)?;
        let [rows, columns] = self.lens;
        // A row with its neighbours is a run of vectors, so the convolution over the table is one over runs.
        let size = SIZES[0];
        let before = (size - 1) / 2;
        let zeros = |rows: usize| Tensor::zeros(table.dtype(), &[batch, rows, columns]);
        let padded = Tensor::concat(&[&zeros(before)?, table, &zeros(size - 1 - before)?], 1)?;
        let mut neighbours = Vec::new();
        for row in 0..size {
            let shifted = padded.narrow(1, row, rows)?;
            neighbours.push(shifted.reshape(&[batch * rows * columns, 1])?);
        }
        let x = Tensor::concat(&neighbours.iter().collect::<Vec<_>>(), 1)?;
        let runs = Runs::new(vec![columns; batch * rows])?;
        let weight = self.weights[0].tensor()?.reshape(&[FILTERS[0], size, size])?;
        let x = nn::conv1d(&x, &weight, Some(&self.biases[0].tensor()?), &runs.starts, 1)?;
        let x = maxima(&x.tanh()?, [batch, rows, columns, FILTERS[0]], POOLS[0])?;

        let [rows, columns] = [rows, columns].map(|len| len / POOLS[0]);
        let [down, across] = self.second();
        let size = SIZES[1];
        let mut places = Vec::new();
        for (top, left) in (0..down).flat_map(|top| (0..across).map(move |left| (top, left))) {
            for row in top * STRIDE..top * STRIDE + size {
                let first = row * columns + left * STRIDE;
                places.extend((first..first + size).map(|place| place as i64));
            }
        }
        let x = x.reshape(&[batch, rows * columns, FILTERS[0]])?;
        let patches = x.index_select(1, &Tensor::from_slice(&places, &[places.len()])?)?;
        let width = size * size * FILTERS[0];
        let patches = patches.reshape(&[batch * down * across, width])?;
        let weight = self.weights[1].tensor()?.permute(&[0, 2, 3, 1])?.contiguous()?;
        let weight = weight.reshape(&[FILTERS[1], width])?;
        let bias = self.biases[1].tensor()?;
        let x = nn::linear(&patches, &weight, Some(&bias), Activation::Tanh)?;
        maxima(&x, [batch, down, across, FILTERS[1]], POOLS[1])?.reshape(&[batch, self.width()])
    }
}

/// Maxima over squares of `size` of x [batch * rows * columns, filters]; what is left at the ends is dropped.
fn maxima(x: &Tensor, shape: [usize; 4], size: usize) -> Result<Tensor> {
    let [batch, rows, columns, filters] = shape;
    let (down, across) = (rows / size, columns / size);
    x.reshape(&shape)?
        .narrow(1, 0, down * size)?
        .narrow(2, 0, across * size)?
        .contiguous()?
        .reshape(&[batch, down, size, across, size, filters])?
        .max(&[2, 4], false)
}

/// Convolutions over the words of two texts and over the products of their words. "pooled" [B, h] is the vector of a
/// pair.
pub struct Hcnn {
    words: Words,
    conv: Conv,
    pyramid: Pyramid,
    last: Last,
    around: usize,
    info: ModelInfo,
}

impl Model for Hcnn {
    const NAME: &'static CStr = c"hcnn";
    const SCHEMA: &'static CStr = schema!(
        r#""hidden_size":{"type":"integer","minimum":1,"default":200,"description":"filters over the words, and numbers of the last layer"},"#,
        r#""filter_size":{"type":"integer","minimum":1,"default":4,"description":"words of a window"},"#,
        r#""first_sequence_length":{"type":"integer","minimum":28,"maximum":4096,"default":64,"description":"words of the first text that meet those of the second"},"#,
        r#""second_sequence_length":{"type":"integer","minimum":28,"maximum":4096,"default":64,"description":"words of the second text that meet those of the first"},"#,
        r#""dropout":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.2,"description":"before the last layer"}"#,
    );
    type Config = HcnnConfig;

    fn new(config: HcnnConfig, scope: &Scope) -> Result<Self> {
        let (h, width) = (config.hidden_size, config.words.embedding_size);
        check_sizes(&[("hidden_size", h), ("filter_size", config.filter_size)])?;
        check_dropout("dropout", config.dropout)?;
        let lens = [config.first_sequence_length, config.second_sequence_length];
        for (name, len) in ["first_sequence_length", "second_sequence_length"].iter().zip(lens) {
            if !(SHORTEST..=LONGEST).contains(&len) {
                let expected =
                    format!("from {SHORTEST}, below which nothing is left, to {LONGEST}");
                return Err(out_of_range(name, &expected, len));
            }
        }
        let words = Words::new(&config.words, scope)?;
        let shape = [h, width, config.filter_size];
        let init = xavier_normal(config.filter_size, width, h);
        let conv = Conv::new(&scope.child("hcnn.conv")?, shape, init, Init::Constant(1e-4))?;
        let pyramid = Pyramid::new(&scope.child("hcnn.pyramid")?, lens)?;
        let features = pyramid.width() + 4 * h;
        Ok(Self {
            words,
            conv,
            pyramid,
            last: Last::new(&scope.child("hcnn.output")?, features, h, config.dropout)?,
            around: config.filter_size - 1,
            info: config.words.info(h, 0.0, &["hcnn"]),
        })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let texts = sides(call, batch)?;
        let x = [self.words.forward(&texts[0].ids)?, self.words.forward(&texts[1].ids)?];
        let text = |x: &Tensor, side: &Side| -> Result<Tensor> {
            let windows = self.conv.windows(x, &side.runs, self.around, Tensor::tanh)?;
            nn::pool(&windows.values, &windows.runs.starts, Pool::Max)
        };
        let by_words = contrast(&text(&x[0], &texts[0])?, &text(&x[1], &texts[1])?)?;
        let [first, second] = self.pyramid.lens;
        let first = nn::to_padded(&x[0], &texts[0].runs.starts, first)?;
        let second = nn::to_padded(&x[1], &texts[1].runs.starts, second)?;
        let top = self.pyramid.forward(&first.matmul(&second.transpose()?)?)?;
        let features = Tensor::concat(&[&top, &by_words], 1)?;
        put_pairs(call, batch, outputs, &self.last.forward(&features, call.rng())?)
    }
}
