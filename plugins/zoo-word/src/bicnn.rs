//! BiCNN: filters over windows of both texts, and what their maxima say of each other.

use super::conv::{Conv, xavier_normal};
use super::dam::{Last, PairConfig, pair_schema, put_pairs};
use super::options::schema;
use super::runs::{Side, contrast, sides};
use super::words::Words;
use easytransfer_plugin::{Call, Init, Map, Model, ModelInfo, Pool, Result, Scope, Tensor, nn};
use std::ffi::CStr;

/// Words of a window, for each kind of filters.
const WIDTHS: [usize; 3] = [2, 3, 4];

/// The convolutions, which both texts share.
pub struct Filters {
    convs: Vec<Conv>,
    width: usize,
}

impl Filters {
    /// Declares them in `scope`, `filters` of each width over words of `words` numbers.
    pub fn new(scope: &Scope, words: usize, filters: usize) -> Result<Self> {
        let mut convs = Vec::new();
        for (index, width) in WIDTHS.into_iter().enumerate() {
            let scope = scope.child(&format!("convs.{index}"))?;
            let init = xavier_normal(width, words, filters);
            convs.push(Conv::new(&scope, [filters, words, width], init, Init::Zeros)?);
        }
        Ok(Self { convs, width: WIDTHS.len() * filters + words })
    }

    /// Numbers of the vector of a text.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Words of both texts [T, words] -> [B, 4 width].
    pub fn forward(&self, x: [&Tensor; 2], texts: &[Side; 2]) -> Result<Tensor> {
        let text = |side: usize| -> Result<Tensor> {
            let (x, runs) = (x[side], &texts[side].runs);
            let mut parts = Vec::new();
            for conv in &self.convs {
                let windows = conv.windows(x, runs, 0, Tensor::relu)?;
                parts.push(nn::pool(&windows.values, &windows.runs.starts, Pool::Max)?);
            }
            parts.push(nn::pool(x, &runs.starts, Pool::Mean)?);
            Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)
        };
        contrast(&text(0)?, &text(1)?)
    }
}

/// Two texts through the same filters. "pooled" [B, h] is the vector of a pair.
pub struct BiCnn {
    words: Words,
    filters: Filters,
    last: Last,
    info: ModelInfo,
}

impl Model for BiCnn {
    const NAME: &'static CStr = c"bicnn";
    const SCHEMA: &'static CStr = pair_schema!("1");
    type Config = PairConfig;

    fn new(config: PairConfig, scope: &Scope) -> Result<Self> {
        config.check()?;
        let h = config.hidden_size;
        let filters = Filters::new(&scope.child("bicnn")?, config.words.embedding_size, h)?;
        let output = scope.child("bicnn.output")?;
        Ok(Self {
            words: Words::new(&config.words, scope)?,
            last: Last::new(&output, 4 * filters.width(), h, config.dropout)?,
            filters,
            info: config.words.info(h, 0.0, &["bicnn"]),
        })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let texts = sides(call, batch)?;
        let x = [self.words.forward(&texts[0].ids)?, self.words.forward(&texts[1].ids)?];
        let features = self.filters.forward([&x[0], &x[1]], &texts)?;
        put_pairs(call, batch, outputs, &self.last.forward(&features, call.rng())?)
    }
}
