//! What `transformers` puts above the network for each task.

use super::config::Shape;
use easytransfer_plugin::{Activation, HeadLayer, Task};
use std::collections::BTreeMap;

/// Name of the table of words.
pub const WORDS: &str = "word_embedding";

/// The heads by task. "permutation-lm" stands above "target/last".
pub fn tasks(shape: &Shape) -> BTreeMap<String, Task> {
    let linear = |scope: &str, width: Option<usize>| HeadLayer::Linear {
        scope: scope.to_owned(),
        width,
        bias: true,
        activation: Activation::None,
        deviation: shape.initializer_range,
    };
    let mut summary = vec![
        HeadLayer::Pool { by: shape.summary },
        HeadLayer::Dropout { p: shape.summary_first_dropout },
    ];
    if shape.summary_projects {
        summary.push(linear("sequence_summary.summary", Some(shape.d_model)));
    }
    summary.push(HeadLayer::Activation { activation: shape.summary_activation });
    summary.push(HeadLayer::Dropout { p: shape.summary_last_dropout });
    summary.push(linear("logits_proj", None));
    let scores = if shape.tied {
        HeadLayer::Words { words: format!("{WORDS}.weight"), bias: Some("lm_loss".to_owned()) }
    } else {
        linear("lm_loss", Some(shape.vocab_size))
    };
    let task = |(name, class, layers): (&str, &str, Vec<HeadLayer>)| {
        (name.to_owned(), Task { class: class.to_owned(), layers, ..Task::default() })
    };
    [
        ("sequence-classification", "XLNetForSequenceClassification", summary),
        ("token-classification", "XLNetForTokenClassification", vec![linear("classifier", None)]),
        ("question-answering", "XLNetForQuestionAnsweringSimple", vec![linear("qa_outputs", None)]),
        ("permutation-lm", "XLNetLMHeadModel", vec![scores]),
    ]
    .map(task)
    .into()
}
