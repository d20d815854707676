//! The head of masked language modelling: a layer, and scores over the vocabulary by the words' own vectors (Devlin
//! et al. 2019).

use easytransfer_plugin::{
    Activation, Error, Init, LayerNorm, Linear, LinearConfig, ModelInfo, Param, Result, Scope,
    Tensor, nn,
};

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

/// The parameter that the scores are tied to.
pub const WORDS: &str = "embeddings.word_embeddings.weight";

/// The head.
pub struct Head {
    dense: Linear,
    norm: LayerNorm,
    bias: Param,
    activation: Activation,
}

impl Head {
    /// Declares the parameters under the names of the model's family.
    pub fn new(scope: &Scope, model: &ModelInfo) -> Result<Self> {
        let task = model.tasks.get("masked-lm").ok_or_else(|| {
            Error::bad_input("masked-lm: this model has no head of masked language modelling")
        })?;
        let names = names(&task.form)?;
        let deviation = if model.initializer_range > 0.0 { model.initializer_range } else { 0.02 };
        Ok(Self {
            dense: LinearConfig::new(model.hidden_size, model.embedding_size)
                .with_init(Init::Normal(0.0, deviation))
                .init(&scope.child(names.dense)?)?,
            norm: LayerNorm::new(
                &scope.child(names.norm)?,
                model.embedding_size,
                model.layer_norm_eps,
            )?,
            bias: scope.child(names.bias)?.param("bias", &[model.vocab_size], Init::Zeros)?,
            activation: names.activation.unwrap_or(model.activation),
        })
    }

    /// Scores [M, vocabulary] of M token vectors; `words` are the words' vectors.
    pub fn forward(&self, x: &Tensor, words: &Tensor) -> Result<Tensor> {
        let x = self.dense.forward(x, self.activation)?;
        let x = self.norm.forward(&x, None, 0.0, None)?;
        nn::linear(&x, words, Some(&self.bias.tensor()?), Activation::None)
    }
}
