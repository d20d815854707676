//! The decomposable attention model ("A Decomposable Attention Model for Natural Language Inference", Parikh et al.
//! 2016), and EasyTransfer's DAM+, which sets BiCNN beside it.

use super::bicnn::Filters;
use super::options::{WordOptions, check_dropout, check_sizes, schema};
use super::runs::{Runs, Side, sides};
use super::text_cnn::put;
use super::words::Words;
use easytransfer_plugin::{
    Activation, Call, Init, Linear, LinearConfig, Map, Model, ModelInfo, Pool, Result, Rng, Scope,
    Tensor, nn,
    nn::{Attention, AttentionTerms},
};
use serde::Deserialize;
use std::ffi::CStr;

/// Options of the networks over pairs but HCNN.
#[derive(Deserialize)]
pub struct PairConfig {
    #[serde(flatten)]
    pub words: WordOptions,
    #[serde(default = "hidden_size")]
    pub hidden_size: usize,
    #[serde(default = "dropout")]
    pub dropout: f64,
}

fn hidden_size() -> usize {
    200
}

fn dropout() -> f64 {
    0.2
}

macro_rules! pair_schema {
    ($width:literal) => {
        schema!(
            concat!(r#""hidden_size":{"type":"integer","minimum":"#, $width, r#","default":200},"#),
            r#""dropout":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.2,"description":"before the last layer"}"#,
        )
    };
}
pub(super) use pair_schema;

impl PairConfig {
    /// Refuses sizes and probabilities out of range.
    pub fn check(&self) -> Result<()> {
        check_sizes(&[("hidden_size", self.hidden_size)])?;
        check_dropout("dropout", self.dropout)
    }
}

/// Each query's mean of the values of its own run by softmax(query · key): query [Tq, d] in `queries`, key and value
/// [Tk, d] in `keys` -> [Tq, d]; zeros where there are no keys.
pub fn attend(
    query: &Tensor,
    queries: &Runs,
    [key, value]: [&Tensor; 2],
    keys: &Runs,
) -> Result<Tensor> {
    let options = Attention { heads: 1, scale: Some(1.0), dropout: 0.0, causal: false };
    let terms = AttentionTerms { key_starts: Some(&keys.starts), ..AttentionTerms::default() };
    nn::attention_with(query, [key, value], &queries.starts, options, &terms, None)
}

/// What all networks over pairs end with: relu(dense(dropout(features))).
pub struct Last {
    dense: Linear,
    dropout: f64,
}

impl Last {
    /// Declares the layer in `scope`.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, dropout: f64) -> Result<Self> {
        Ok(Self { dense: LinearConfig::new(inputs, outputs).init(scope)?, dropout })
    }

    /// features [B, inputs] -> [B, outputs].
    pub fn forward(&self, features: &Tensor, rng: Option<&Rng>) -> Result<Tensor> {
        self.dense.forward(&nn::dropout(features, self.dropout, rng)?, Activation::Relu)
    }
}

/// Writes the vectors of the pairs [B, h]: "pooled", and as "last" at each word of a pair the pair's own, so that
/// every way of pooling answers the same.
pub fn put_pairs(call: &Call<'_>, batch: &Map, outputs: &mut Map, pairs: &Tensor) -> Result<()> {
    put(call, outputs, &Runs::of(batch)?.spread(pairs)?, pairs)
}

/// Projection, attention and comparison of DAM.
struct Compare {
    projection: Linear,
    attend: Linear,
    compare: Linear,
}

/// Dropout of what is attended to and of what is compared, as the original has it.
const ATTEND_DROPOUT: f64 = 0.1;
const COMPARE_DROPOUT: f64 = 0.2;

impl Compare {
    /// Declares the layers in `scope`.
    fn new(scope: &Scope, words: usize, h: usize) -> Result<Self> {
        let linear = |name: &str, inputs: usize| {
            LinearConfig::new(inputs, h).with_init(Init::XavierUniform).init(&scope.child(name)?)
        };
        Ok(Self {
            projection: linear("projection", words)?,
            attend: linear("attend", h)?,
            compare: linear("compare", 2 * h)?,
        })
    }

    /// Words of both texts [T, embedding_size] -> [B, 4 h]: sums, then maxima, of both sides.
    fn forward(&self, x: [&Tensor; 2], texts: &[Side; 2], rng: Option<&Rng>) -> Result<Tensor> {
        let project = |x: &Tensor| self.projection.forward(x, Activation::Relu);
        let projected = [project(x[0])?, project(x[1])?];
        let key = |x: &Tensor| {
            self.attend.forward(&nn::dropout(x, ATTEND_DROPOUT, rng)?, Activation::Relu)
        };
        let keys = [key(&projected[0])?, key(&projected[1])?];
        let (mut sums, mut maxima) = (Vec::new(), Vec::new());
        for (own, other) in [(0, 1), (1, 0)] {
            let runs = &texts[own].runs;
            let met = [&keys[other], &projected[other]];
            let aligned = attend(&keys[own], runs, met, &texts[other].runs)?;
            let both = Tensor::concat(&[&projected[own], &aligned], 1)?;
            let both = nn::dropout(&both, COMPARE_DROPOUT, rng)?;
            let compared = self.compare.forward(&both, Activation::Relu)?;
            sums.push(runs.sum(&compared)?);
            maxima.push(nn::pool(&compared, &runs.starts, Pool::Max)?);
        }
        Tensor::concat(&[&sums[0], &sums[1], &maxima[0], &maxima[1]], 1)
    }
}

/// Soft alignment of the words of two texts. "pooled" [B, h] is the vector of a pair.
pub struct Dam {
    words: Words,
    compare: Compare,
    last: Last,
    info: ModelInfo,
}

impl Model for Dam {
    const NAME: &'static CStr = c"dam";
    const SCHEMA: &'static CStr = pair_schema!("1");
    type Config = PairConfig;

    fn new(config: PairConfig, scope: &Scope) -> Result<Self> {
        config.check()?;
        let h = config.hidden_size;
        Ok(Self {
            words: Words::new(&config.words, scope)?,
            compare: Compare::new(&scope.child("dam")?, config.words.embedding_size, h)?,
            last: Last::new(&scope.child("dam.output")?, 4 * h, h, config.dropout)?,
            info: config.words.info(h, 0.0, &["dam"]),
        })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let texts = sides(call, batch)?;
        let x = [self.words.forward(&texts[0].ids)?, self.words.forward(&texts[1].ids)?];
        let features = self.compare.forward([&x[0], &x[1]], &texts, call.rng())?;
        put_pairs(call, batch, outputs, &self.last.forward(&features, call.rng())?)
    }
}

/// DAM and a BiCNN of half as many filters side by side. "pooled" [B, 2 h] is the vector of a pair.
pub struct DamPlus {
    words: Words,
    compare: Compare,
    filters: Filters,
    dam: Last,
    bicnn: Last,
    info: ModelInfo,
}

impl Model for DamPlus {
    const NAME: &'static CStr = c"dam-plus";
    const SCHEMA: &'static CStr = pair_schema!("2");
    type Config = PairConfig;

    fn new(config: PairConfig, scope: &Scope) -> Result<Self> {
        config.check()?;
        let (h, words) = (config.hidden_size, config.words.embedding_size);
        check_sizes(&[("hidden_size / 2", h / 2)])?;
        let filters = Filters::new(&scope.child("bicnn")?, words, h / 2)?;
        Ok(Self {
            words: Words::new(&config.words, scope)?,
            compare: Compare::new(&scope.child("dam")?, words, h)?,
            dam: Last::new(&scope.child("dam.output")?, 4 * h, h, config.dropout)?,
            bicnn: Last::new(
                &scope.child("bicnn.output")?,
                4 * filters.width(),
                h,
                config.dropout,
            )?,
            filters,
            info: config.words.info(2 * h, 0.0, &["dam", "bicnn"]),
        })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let texts = sides(call, batch)?;
        let x = [self.words.forward(&texts[0].ids)?, self.words.forward(&texts[1].ids)?];
        let compared = self.compare.forward([&x[0], &x[1]], &texts, call.rng())?;
        let filtered = self.filters.forward([&x[0], &x[1]], &texts)?;
        let pairs = Tensor::concat(
            &[
                &self.dam.forward(&compared, call.rng())?,
                &self.bicnn.forward(&filtered, call.rng())?,
            ],
            1,
        )?;
        put_pairs(call, batch, outputs, &pairs)
    }
}
