//! Classification heads: as Hugging Face's sequence classification has them for each family, or over a pooled vector.

use easytransfer_plugin::{
    Activation, Call, Error, Init, Linear, LinearConfig, Map, ModelInfo, Pool, Result, Scope,
    TaskHead, Tensor, nn,
};
use serde::Deserialize;

/// The vector of a text that the head sees.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// That of the model's family: a pooler, or the first token.
    Model,
    /// Mean over the text's tokens.
    Mean,
    /// The first token.
    Cls,
    /// Elementwise maximum over the text's tokens.
    Max,
}

enum Form {
    /// dropout(pooled) -> classifier
    Bert { classifier: Linear },
    /// dropout(first) -> classifier.dense -> activation -> dropout -> classifier.out_proj
    Dense { dense: Linear, activation: Activation, classifier: Linear },
    /// first -> pre_classifier -> relu -> dropout -> classifier
    DistilBert { dense: Linear, classifier: Linear },
    /// dropout(pool(last)) -> classifier
    Pool { pool: Pool, classifier: Linear },
    /// As the model tells it.
    Told(TaskHead),
}

/// A head: from the model's outputs to logits.
pub struct Head {
    form: Form,
    dropout: f64,
}

impl Head {
    /// Declares the parameters of the head in the root scope.
    pub fn new(
        scope: &Scope,
        model: &ModelInfo,
        pooling: Pooling,
        outputs: usize,
        dropout: Option<f64>,
    ) -> Result<Self> {
        let h = model.hidden_size;
        let deviation = if model.initializer_range > 0.0 { model.initializer_range } else { 0.02 };
        let linear = |name: &str, d_output: usize| -> Result<Linear> {
            LinearConfig::new(h, d_output)
                .with_init(Init::Normal(0.0, deviation))
                .init(&scope.child(name)?)
        };
        let dense = |activation| -> Result<Form> {
            Ok(Form::Dense {
                dense: linear("classifier.dense", h)?,
                activation,
                classifier: linear("classifier.out_proj", outputs)?,
            })
        };
        let pool = |pool| -> Result<Form> {
            Ok(Form::Pool { pool, classifier: linear("classifier", outputs)? })
        };
        let task = model.tasks.get("sequence-classification");
        let form = match task.map_or("", |task| task.form.as_str()) {
            _ if pooling == Pooling::Mean => pool(Pool::Mean)?,
            _ if pooling == Pooling::Cls => pool(Pool::First)?,
            _ if pooling == Pooling::Max => pool(Pool::Max)?,
            _ if task.is_some_and(|task| !task.layers.is_empty()) => {
                let layers = task.map_or(&[][..], |task| &task.layers);
                let words = model.vocab_size;
                Form::Told(TaskHead::new(scope, layers, h, outputs, words, dropout)?)
            }
            "roberta" => dense(Activation::Tanh)?,
            "electra" => dense(Activation::Gelu)?,
            "distilbert" => Form::DistilBert {
                dense: linear("pre_classifier", h)?,
                classifier: linear("classifier", outputs)?,
            },
            "bert" | "albert" | "" if model.pooled => {
                Form::Bert { classifier: linear("classifier", outputs)? }
            }
            "" => dense(Activation::Tanh)?,
            other => {
                return Err(Error::bad_input(format!(
                    "text-classify: the model wants a head of form {other:?}; known are bert and albert (with a pooler), roberta, electra, distilbert"
                )));
            }
        };
        Ok(Self { form, dropout: dropout.unwrap_or(model.classifier_dropout) })
    }

    /// Logits [B, outputs].
    pub fn forward(&self, call: &Call<'_>, batch: &Map, outputs: &Map) -> Result<Tensor> {
        let drop = |x: &Tensor| nn::dropout(x, self.dropout, call.rng());
        let pool = |pool| nn::pool(&outputs.get("last")?, &batch.get("starts")?, pool);
        let first = || pool(Pool::First);
        match &self.form {
            Form::Bert { classifier } => {
                classifier.forward(&drop(&outputs.get("pooled")?)?, Activation::None)
            }
            Form::Dense { dense, activation, classifier } => {
                let x = dense.forward(&drop(&first()?)?, *activation)?;
                classifier.forward(&drop(&x)?, Activation::None)
            }
            Form::DistilBert { dense, classifier } => {
                let x = dense.forward(&first()?, Activation::Relu)?;
                classifier.forward(&drop(&x)?, Activation::None)
            }
            Form::Pool { pool: kind, classifier } => {
                classifier.forward(&drop(&pool(*kind)?)?, Activation::None)
            }
            Form::Told(head) => head.forward(call, &outputs.get("last")?, batch, &mut |name| {
                Err(Error::bad_input(format!("text-classify: a head over {name} has no classes")))
            }),
        }
    }
}
