//! What `transformers` puts above the encoder for each task.

use super::config::Shape;
use easytransfer_plugin::{Activation, HeadLayer, HeadPool, Task};
use std::collections::BTreeMap;

/// The heads by task.
pub fn tasks(shape: &Shape) -> BTreeMap<String, Task> {
    let deviation = shape.initializer_range;
    let linear = |scope: &str, width: Option<usize>, activation: Activation| HeadLayer::Linear {
        scope: scope.to_owned(),
        width,
        bias: true,
        activation,
        deviation,
    };
    let outputs = |scope: &str| linear(scope, None, Activation::None);
    let mut tasks = vec![
        (
            "sequence-classification",
            "SequenceClassification",
            vec![
                HeadLayer::Pool { by: HeadPool::First },
                HeadLayer::Dropout { p: shape.pooler_dropout },
                linear("pooler.dense", Some(shape.hidden_size), shape.pooler_activation),
                HeadLayer::Dropout { p: shape.classifier_dropout },
                outputs("classifier"),
            ],
        ),
        (
            "token-classification",
            "TokenClassification",
            vec![HeadLayer::Dropout { p: shape.dropout }, outputs("classifier")],
        ),
        ("question-answering", "QuestionAnswering", vec![outputs("qa_outputs")]),
    ];
    if let Some(layers) = masked_lm(shape) {
        tasks.push(("masked-lm", "MaskedLM", layers));
    }
    let task = |(name, class, layers): (&str, &str, Vec<HeadLayer>)| {
        let class = format!("DebertaV2For{class}");
        (name.to_owned(), Task { class, layers, ..Task::default() })
    };
    tasks.into_iter().map(task).collect()
}

/// The head of masked language modelling, `cls.predictions` or the one that the authors have, `lm_predictions`. The
/// latter multiplies with the words' vectors whatever the configuration says of ties, so there is none where they are
/// of another width.
fn masked_lm(shape: &Shape) -> Option<Vec<HeadLayer>> {
    let (scope, width) = if shape.legacy {
        ("cls.predictions", shape.embedding_size)
    } else {
        ("lm_predictions.lm_head", shape.hidden_size)
    };
    if width != shape.embedding_size {
        return None;
    }
    let transform = if shape.legacy { format!("{scope}.transform") } else { scope.to_owned() };
    let linear = |scope: String, width: usize, activation: Activation| HeadLayer::Linear {
        scope,
        width: Some(width),
        bias: true,
        activation,
        deviation: shape.initializer_range,
    };
    let scores = if shape.legacy && !shape.tied {
        linear(format!("{scope}.decoder"), shape.vocab_size, Activation::None)
    } else {
        let words = "embeddings.word_embeddings.weight".to_owned();
        HeadLayer::Words { words, bias: Some(scope.to_owned()) }
    };
    Some(vec![
        linear(format!("{transform}.dense"), width, shape.activation),
        HeadLayer::LayerNorm {
            scope: format!("{transform}.LayerNorm"),
            bias: true,
            epsilon: shape.epsilon,
        },
        scores,
    ])
}
