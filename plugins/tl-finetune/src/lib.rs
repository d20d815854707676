//! Fine-tuning: freezing by pattern, layer-wise learning rates and LoRA.
#![forbid(unsafe_code)]

mod pattern;

use easytransfer_plugin::{
    Error, Init, MODEL, ModelInfo, Phases, Result, Session, Strategy, out_of_range,
};
use pattern::Pattern;
use serde::Deserialize;
use std::ffi::CStr;

/// Options of [`Finetune`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    freeze: Vec<String>,
    unfreeze: Vec<String>,
    freeze_layers: usize,
    layer_decay: f64,
    head_lr_scale: f64,
    lora_rank: usize,
    lora_alpha: f64,
    lora_targets: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            freeze: Vec::new(),
            unfreeze: Vec::new(),
            freeze_layers: 0,
            layer_decay: 1.0,
            head_lr_scale: 1.0,
            lora_rank: 0,
            lora_alpha: 16.0,
            lora_targets: Vec::new(),
        }
    }
}

/// Trains all parameters, or those that the options leave.
///
/// - `freeze`, `unfreeze`: patterns over parameter names; `*` matches any text, and a pattern without `*` matches a
///   name that starts with
///   it. `unfreeze` wins.
/// - `freeze_layers = n`: the embeddings and the lowest n layers do not train.
/// - `layer_decay = d`: layer k of N learns at rate d^(N - k), the embeddings at d^(N + 1) (ULMFiT, Howard and Ruder
///   2018).
/// - Parameters that several layers share, as in ALBERT, count to the highest of these layers.
/// - `lora_rank = r`: target weights become W + (alpha / r) B A with only A and B trained (Hu et al. 2021). The
///   bundle holds the merged weights.
///   Everything else of the encoder is frozen; the head trains.
pub struct Finetune {
    options: Options,
}

impl Strategy for Finetune {
    const NAME: &'static CStr = c"finetune";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"freeze":{"type":"array","items":{"type":"string"},"default":[],"description":"patterns of parameters that do not train"},
"unfreeze":{"type":"array","items":{"type":"string"},"default":[],"description":"patterns of parameters that train all the same"},
"freeze_layers":{"type":"integer","minimum":0,"default":0,"description":"embeddings and this many lowest layers do not train"},
"layer_decay":{"type":"number","exclusiveMinimum":0,"maximum":1,"default":1,"description":"rate of a layer relative to the one above"},
"head_lr_scale":{"type":"number","exclusiveMinimum":0,"default":1,"description":"rate of the head relative to the encoder's top"},
"lora_rank":{"type":"integer","minimum":0,"default":0,"description":"rank of low-rank updates, 0 for none"},
"lora_alpha":{"type":"number","exclusiveMinimum":0,"default":16},
"lora_targets":{"type":"array","items":{"type":"string"},"default":[],"description":"patterns of weights; by default all query and value projections"}}}"#;
    type Options = Options;

    fn new(options: Options) -> Result<Self> {
        if !(options.layer_decay > 0.0 && options.layer_decay <= 1.0) {
            return Err(out_of_range("layer_decay", "0 < d <= 1", options.layer_decay));
        }
        if options.head_lr_scale <= 0.0 {
            return Err(out_of_range("head_lr_scale", "more than 0", options.head_lr_scale));
        }
        Ok(Self { options })
    }

    fn phases(&self) -> Phases {
        Phases::SETUP
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        let description = session.describe(MODEL)?;
        let info: ModelInfo = serde_json::from_value(description["model"].clone())?;
        if self.options.freeze_layers > info.layers {
            return Err(out_of_range(
                "freeze_layers",
                &format!("at most the model's {} layers", info.layers),
                self.options.freeze_layers,
            ));
        }
        let params = session.params(MODEL)?;
        if self.options.lora_rank > 0 {
            self.add_low_rank(&params, &info)?;
        }
        let freeze = matched(&params, &self.options.freeze, "freeze")?;
        let unfreeze = matched(&params, &self.options.unfreeze, "unfreeze")?;
        for param in params.iter() {
            let name = param.name();
            let depth = info.depth_of(&name);
            let below = depth.is_some_and(|d| d <= self.options.freeze_layers)
                && self.options.freeze_layers > 0;
            let frozen = below || freeze.iter().any(|p| p.matches(&name));
            if unfreeze.iter().any(|p| p.matches(&name)) {
                param.set_trainable(true)?;
            } else if frozen {
                param.set_trainable(false)?;
            }
            let scale = match depth {
                Some(depth) => {
                    self.options.layer_decay.powi((info.layers + 1).saturating_sub(depth) as i32)
                }
                None => self.options.head_lr_scale,
            };
            param.set_lr_scale(scale)?;
        }
        if params.iter().all(|p| !p.is_trainable()) {
            return Err(Error::invalid(
                "finetune: freeze leaves nothing to train; freeze less, or name what trains with unfreeze",
            ));
        }
        Ok(())
    }
}

impl Finetune {
    fn add_low_rank(&self, params: &easytransfer_plugin::Params, info: &ModelInfo) -> Result<()> {
        let rank = self.options.lora_rank;
        let defaults = ["*.query.weight", "*.value.weight", "*.q_lin.weight", "*.v_lin.weight"];
        let targets: Vec<Pattern> = if self.options.lora_targets.is_empty() {
            defaults.iter().map(|text| Pattern::new(text)).collect()
        } else {
            matched(params, &self.options.lora_targets, "lora_targets")?
        };
        let root = params.root()?;
        let mut count = 0;
        for param in params.iter().collect::<Vec<_>>() {
            let name = param.name();
            if info.depth_of(&name).is_some() {
                param.set_trainable(false)?;
            }
            if !targets.iter().any(|p| p.matches(&name)) {
                continue;
            }
            let &[d_output, d_input] = param.shape() else {
                return Err(Error::invalid(format!(
                    "lora_targets: {name} has shape {:?}, expected a matrix",
                    param.shape()
                )));
            };
            let scope = root.child(&format!("lora.{name}"))?;
            let a = scope.param("a", &[rank, d_input], Init::KaimingUniform)?;
            let b = scope.param("b", &[d_output, rank], Init::Zeros)?;
            param.set_low_rank(&a, &b, self.options.lora_alpha / rank as f64)?;
            count += 1;
        }
        if count == 0 {
            return Err(Error::invalid(
                "lora_targets: no weight of this model matches; name patterns of its parameters",
            ));
        }
        Ok(())
    }
}

/// Patterns, each of which must match something: a typing error would otherwise train what should be frozen.
fn matched(
    params: &easytransfer_plugin::Params,
    texts: &[String],
    option: &str,
) -> Result<Vec<Pattern>> {
    texts
        .iter()
        .map(|text| {
            let pattern = Pattern::new(text);
            if params.iter().any(|p| pattern.matches(&p.name())) {
                return Ok(pattern);
            }
            let example = params.iter().next().map(|p| p.name()).unwrap_or_default();
            Err(Error::invalid(format!(
                "{option}: no parameter matches {text:?}; names look like {example:?}"
            )))
        })
        .collect()
}

easytransfer_plugin::export! {
    id: "tl-finetune",
    strategies: [Finetune],
}
