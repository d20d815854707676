//! The optimizers that most tasks need: one fused pass of the engine over the parameter arena each.
#![forbid(unsafe_code)]

use easytransfer_plugin::{Map, Optimizer, Params, Result, Stream, abi, nn, out_of_range};
use serde::Deserialize;
use std::ffi::CStr;
use std::ops::Range;

/// Numbers shared by all kinds; each kind reads those that its schema lists.
#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    momentum: f64,
    nesterov: bool,
    decay_rate: f64,
    clip_threshold: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weight_decay: f64::NAN,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: f64::NAN,
            momentum: 0.0,
            nesterov: false,
            decay_rate: -0.8,
            clip_threshold: 1.0,
        }
    }
}

/// State and numbers of one optimizer.
struct Fused {
    kind: i32,
    options: Options,
    state: Map,
}

impl Fused {
    fn new(
        kind: i32,
        mut options: Options,
        weight_decay: f64,
        epsilon: f64,
        params: &Params,
    ) -> Result<Self> {
        if options.weight_decay.is_nan() {
            options.weight_decay = weight_decay;
        }
        if options.epsilon.is_nan() {
            options.epsilon = epsilon;
        }
        for (name, beta) in [("beta1", options.beta1), ("beta2", options.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(out_of_range(name, "0 <= beta < 1", beta));
            }
        }
        if options.weight_decay < 0.0 {
            return Err(out_of_range("weight_decay", "0 or more", options.weight_decay));
        }
        if options.epsilon <= 0.0 {
            return Err(out_of_range("epsilon", "more than 0", options.epsilon));
        }
        Ok(Self { kind, options, state: nn::optim_state(params, kind)? })
    }

    /// Changes the elements of `part` of the arena; an end of 0 is the end of the arena.
    fn step(&mut self, params: &mut Params, lr: f64, step: u64, part: Range<usize>) -> Result<()> {
        let adafactor = self.kind == abi::ET_OPTIM_ADAFACTOR;
        let o = self.options;
        nn::optim_step(
            params,
            &mut self.state,
            &abi::et_optim_step {
                struct_size: size_of::<abi::et_optim_step>(),
                kind: self.kind,
                nesterov: i32::from(o.nesterov),
                lr,
                weight_decay: o.weight_decay,
                beta1: o.beta1,
                beta2: if adafactor { o.decay_rate } else { o.beta2 },
                epsilon: o.epsilon,
                momentum: if adafactor { o.clip_threshold } else { o.momentum },
                step,
                begin: part.start,
                end: part.end,
            },
        )
    }
}

macro_rules! optimizers {
    ($($(#[$meta:meta])* $name:ident = $text:literal, $kind:ident, decay $decay:literal, epsilon $epsilon:literal, schema $schema:literal;)*) => {$(
        $(#[$meta])*
        pub struct $name(Fused);

        impl Optimizer for $name {
            const NAME: &'static CStr = $text;
            const SCHEMA: &'static CStr = $schema;
            const PARTS: bool = true;
            type Options = Options;

            fn new(options: Options, params: &Params) -> Result<Self> {
                Ok(Self(Fused::new(abi::$kind, options, $decay, $epsilon, params)?))
            }

            fn step(&mut self, params: &mut Params, lr: f64, step: u64) -> Result<()> {
                self.0.step(params, lr, step, 0..0)
            }

            fn step_part(
                &mut self,
                params: &mut Params,
                lr: f64,
                step: u64,
                part: Range<usize>,
            ) -> Result<()> {
                if part.start == part.end {
                    return Ok(());
                }
                self.0.step(params, lr, step, part)
            }

            fn save(&self, stream: &mut Stream) -> Result<()> {
                stream.write_map(&self.0.state)
            }

            fn load(&mut self, stream: &mut Stream) -> Result<()> {
                stream.read_map(&mut self.0.state)
            }
        }
    )*};
}

optimizers! {
    /// AdamW, decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`. The default for
    /// fine-tuning.
    AdamW = c"adamw", ET_OPTIM_ADAMW, decay 0.01, epsilon 1e-8, schema cr#"{"type":"object","default_lr":5e-5,"additionalProperties":false,"properties":{
"weight_decay":{"type":"number","minimum":0,"default":0.01},
"beta1":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.9},
"beta2":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.999},
"epsilon":{"type":"number","exclusiveMinimum":0,"default":1e-8}}}"#;
    /// Adam (Kingma and Ba 2015), weight decay as L2 in the gradient, as `torch.optim.Adam`.
    Adam = c"adam", ET_OPTIM_ADAM, decay 0.0, epsilon 1e-8, schema cr#"{"type":"object","default_lr":5e-5,"additionalProperties":false,"properties":{
"weight_decay":{"type":"number","minimum":0,"default":0},
"beta1":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.9},
"beta2":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.999},
"epsilon":{"type":"number","exclusiveMinimum":0,"default":1e-8}}}"#;
    /// Stochastic gradient descent with optional (Nesterov) momentum, as `torch.optim.SGD`.
    Sgd = c"sgd", ET_OPTIM_SGD, decay 0.0, epsilon 1e-8, schema cr#"{"type":"object","default_lr":0.02,"additionalProperties":false,"properties":{
"weight_decay":{"type":"number","minimum":0,"default":0},
"momentum":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0},
"nesterov":{"type":"boolean","default":false}}}"#;
    /// LAMB, one trust ratio per parameter (You et al. 2020): for large batches.
    Lamb = c"lamb", ET_OPTIM_LAMB, decay 0.01, epsilon 1e-6, schema cr#"{"type":"object","default_lr":1e-3,"additionalProperties":false,"properties":{
"weight_decay":{"type":"number","minimum":0,"default":0.01},
"beta1":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.9},
"beta2":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.999},
"epsilon":{"type":"number","exclusiveMinimum":0,"default":1e-6}}}"#;
    /// Adafactor, factored second moments (Shazeer and Stern 2018), with the run's learning rate: for little memory.
    Adafactor = c"adafactor", ET_OPTIM_ADAFACTOR, decay 0.0, epsilon 1e-30, schema cr#"{"type":"object","default_lr":5e-5,"additionalProperties":false,"properties":{
"weight_decay":{"type":"number","minimum":0,"default":0},
"decay_rate":{"type":"number","default":-0.8,"description":"exponent of the second moment's decay"},
"clip_threshold":{"type":"number","exclusiveMinimum":0,"default":1},
"epsilon":{"type":"number","exclusiveMinimum":0,"default":1e-30}}}"#;
}

easytransfer_plugin::export! {
    id: "optim-basic",
    optimizers: [AdamW, Adam, Sgd, Lamb, Adafactor],
}
