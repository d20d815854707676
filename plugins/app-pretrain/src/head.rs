//! The head of masked language modelling: a layer, and scores over the vocabulary by the words' own vectors (Devlin
//! et al. 2019).

use easytransfer_plugin::{Activation, Error, HeadLayer, ModelInfo, Result, Scope, TaskHead};

/// Names of a family's layers: dense layer, layer norm, bias of the scores.
struct Names {
    dense: &'static str,
    norm: &'static str,
    bias: &'static str,
    /// The activation where it is not that of the model.
    activation: Option<Activation>,
}

/// The names in Hugging Face's checkpoints.
fn names(form: &str) -> Result<Names> {
    Ok(match form {
        "bert" => Names {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
            bias: "cls.predictions",
            activation: None,
        },
        "roberta" => Names {
            dense: "lm_head.dense",
            norm: "lm_head.layer_norm",
            bias: "lm_head",
            activation: Some(Activation::Gelu),
        },
        "electra" => Names {
            dense: "generator_predictions.dense",
            norm: "generator_predictions.LayerNorm",
            bias: "generator_lm_head",
            activation: Some(Activation::Gelu),
        },
        "distilbert" => Names {
            dense: "vocab_transform",
            norm: "vocab_layer_norm",
            bias: "vocab_projector",
            activation: None,
        },
        "albert" => Names {
            dense: "predictions.dense",
            norm: "predictions.LayerNorm",
            bias: "predictions",
            activation: None,
        },
        other => {
            return Err(Error::bad_input(format!(
                "masked-lm: the model has a head of form {other:?}; known are bert, roberta, electra, distilbert and albert"
            )));
        }
    })
}

/// The parameter that the scores of these families are tied to.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// The layers of the model's head: as it tells them, or as its family has them.
fn layers(model: &ModelInfo) -> Result<Vec<HeadLayer>> {
    let task = model.tasks.get("masked-lm").ok_or_else(|| {
        Error::bad_input("masked-lm: this model has no head of masked language modelling")
    })?;
    if !task.layers.is_empty() {
        return Ok(task.layers.clone());
    }
    let names = names(&task.form)?;
    Ok(vec![
        HeadLayer::Linear {
            scope: names.dense.to_owned(),
            width: Some(model.embedding_size),
            bias: true,
            activation: names.activation.unwrap_or(model.activation),
            deviation: if model.initializer_range > 0.0 { model.initializer_range } else { 0.02 },
        },
        HeadLayer::LayerNorm {
            scope: names.norm.to_owned(),
            bias: true,
            epsilon: model.layer_norm_eps,
        },
        HeadLayer::Words { words: WORDS.to_owned(), bias: Some(names.bias.to_owned()) },
    ])
}

/// Declares the head under the names of the model's family.
pub fn new(scope: &Scope, model: &ModelInfo) -> Result<TaskHead> {
    let words = model.vocab_size;
    TaskHead::new(scope, &layers(model)?, model.hidden_size, words, words, None)
}
