//! The models of words (`zoo-word`): equal to twins in PyTorch, trained by text-classify from nothing but data.

use std::fs;
use std::path::Path;

use easytransfer::plugin::{Call, LoadedModel, Map, Params, Row, Tensor, abi, no_grad};
use easytransfer::{App, TrainConfig, TrainJob};
use easytransfer_conformance::{Line, Verdict, check_record};
use easytransfer_tests::face::is_step;
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, twins};
use serde_json::{Value, json};

const ENCODERS: [&str; 3] = ["text-cnn", "bilstm", "bigru-attention"];
const PAIRS: [&str; 4] = ["dam", "dam-plus", "bicnn", "hcnn"];

fn batch_of(rows: &[(Vec<i64>, Vec<i64>)]) -> Map {
    let rows: Vec<Row> = rows
        .iter()
        .map(|(first, second)| {
            let mut row = Row::new().unwrap();
            row.put_tokens("ids", &[&first[..], second].concat()).unwrap();
            let segments = [vec![0; first.len()], vec![1; second.len()]].concat();
            row.put_tokens("segments", &segments).unwrap();
            row
        })
        .collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn models_of_words_equal_their_twins() {
    let runtime = linked::runtime();
    let (mut worst_output, mut worst_gradient) = (0.0f64, 0.0f64);
    let cases = twins::cases("word.json", "ET_WORD_GOLDEN");
    for case in &cases {
        let (name, what) =
            (case["model"].as_str().unwrap(), format!("{} {}", case["model"], case["config"]));
        let component = runtime.components().find("et.model/1", name).unwrap();
        let mut params = Params::new(0).unwrap();
        let config = case["config"].to_string();
        let model = LoadedModel::create(&component, &config, &params.root().unwrap()).unwrap();
        twins::fill(&params);
        params.seal().unwrap();
        let rows: Vec<(Vec<i64>, Vec<i64>)> = serde_json::from_value(case["rows"].clone()).unwrap();
        let run = |model: &LoadedModel, rows: &[_]| {
            let mut outputs = Map::new().unwrap();
            let call = Call::inference(abi::ET_WANT_POOLED);
            model.forward(&call, &batch_of(rows), &mut outputs).unwrap();
            (outputs.get("last").unwrap(), outputs.get("pooled").unwrap())
        };
        let (last, pooled) = run(&model, &rows);
        let difference = twins::difference(&pooled, &case["pooled"]);
        assert!(difference < 1e-5, "{what}: pooled: {difference:.1e}");
        worst_output = worst_output.max(difference);
        let found = pooled.to_vec::<f32>().unwrap();
        let (sum, expected) =
            (twins::weighted(&last).to_scalar().unwrap(), case["last"].as_f64().unwrap());
        assert!(
            (sum - expected).abs() < 1e-5 * (last.len() as f64).max(1.0),
            "{what}: last: {sum}, {expected}"
        );
        // A row alone is answered as in a batch.
        let width = pooled.shape()[1];
        for (at, row) in rows.iter().enumerate() {
            let alone =
                no_grad(|| run(&model, std::slice::from_ref(row)).1).to_vec::<f32>().unwrap();
            for (alone, together) in alone.iter().zip(&found[at * width..]) {
                assert!(
                    (alone - together).abs() <= 2e-6 * (1.0 + together.abs()),
                    "{what}: row {at}"
                );
            }
        }
        twins::weighted(&pooled).add(&twins::weighted(&last)).unwrap().backward().unwrap();
        worst_gradient = worst_gradient.max(twins::gradients(&params, &case["gradients"], &what));
    }
    println!("{} cases: outputs {worst_output:.1e}, gradients {worst_gradient:.1e}", cases.len());
    assert!(cases.len() >= 28);
}

fn job(scratch: &Scratch, train: &Path, config: Value) -> TrainJob {
    TrainJob::new("", train, scratch.path().join("bundle"))
        .with_config(TrainConfig::from_value(config, "test").unwrap())
}

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

const THINGS: [&str; 10] =
    ["tea", "rain", "moon", "road", "bread", "glass", "river", "salt", "stone", "wood"];

/// Texts whose class lies in the order of two words, so that a bag of words does not know it.
fn texts(count: usize, draw: &mut Draw) -> Vec<(String, &'static str)> {
    (0..count)
        .map(|at| {
            let filler = |draw: &mut Draw, most: usize| -> String {
                (0..draw.below(most)).map(|_| format!("{} ", THINGS[draw.below(10)])).collect()
            };
            let (words, class) = [("Not good", "bad"), ("good not", "good")][at % 2];
            (format!("{}{words} {}.", filler(draw, 5), filler(draw, 5)), class)
        })
        .collect()
}

/// Pairs that belong together where both speak of the same thing.
fn pairs(count: usize, draw: &mut Draw) -> Vec<([String; 2], &'static str)> {
    (0..count)
        .map(|at| {
            let first = draw.below(10);
            let second = if at % 2 == 0 { first } else { (first + 1 + draw.below(9)) % 10 };
            let texts =
                [format!("is there {}", THINGS[first]), format!("the {} here", THINGS[second])];
            (texts, ["same", "other"][at % 2])
        })
        .collect()
}

fn write(path: &Path, header: &str, lines: impl IntoIterator<Item = String>) {
    fs::write(
        path,
        lines.into_iter().fold(format!("{header}\n"), |table, line| table + &line + "\n"),
    )
    .unwrap();
}

/// Share of right answers.
fn accuracy(app: &App, records: &[(Value, &str)]) -> f64 {
    let asked: Vec<_> =
        records.iter().map(|(record, _)| record.as_object().unwrap().clone()).collect();
    let answers = app.predict_records(&asked).unwrap();
    let right =
        answers.iter().zip(records).filter(|(a, (_, label))| a.label().as_deref() == Some(label));
    right.count() as f64 / records.len() as f64
}

fn small(model: &str) -> Value {
    let mut encoder = json!({"model_type": model, "embedding_size": 12});
    let own = match model {
        "text-cnn" => json!({"num_filters": 12, "filter_sizes": [1, 2, 3], "dropout": 0.1}),
        "bilstm" | "bigru-attention" => json!({"hidden_size": 12, "dropout": 0.1}),
        "hcnn" => {
            json!({"hidden_size": 24, "first_sequence_length": 28, "second_sequence_length": 28})
        }
        _ => json!({"hidden_size": 24}),
    };
    encoder.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    encoder
}

#[test]
fn encoders_learn_the_order_of_words() {
    let runtime = linked::runtime();
    for model in ENCODERS {
        let scratch = Scratch::new(&format!("word-{model}"));
        let train = scratch.path().join("train.tsv");
        write(
            &train,
            "text\tlabel",
            texts(240, &mut Draw(1)).iter().map(|(t, l)| format!("{t}\t{l}")),
        );
        let config = json!({"encoder": small(model), "lr": 0.02, "epochs": 12, "seed": 3});
        runtime.train(job(&scratch, &train, config)).unwrap();
        let app = runtime.app(&scratch.path().join("bundle")).unwrap();
        let asked: Vec<(Value, &str)> = texts(100, &mut Draw(2))
            .into_iter()
            .map(|(text, label)| (json!({"text": text}), label))
            .collect();
        let found = accuracy(&app, &asked);
        assert!(found > 0.97, "{model}: {found}");
        // The case of words does not count; texts without words and with one are answered.
        let answers = app.predict(&["NOT GOOD", "not good", "", "quark", "good", "the"]).unwrap();
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers.len(), 6);
        let copy =
            runtime.app(&scratch.path().join("bundle")).unwrap().predict(&["not good"]).unwrap();
        assert_eq!(copy[0].label(), answers[1].label());
    }
}

#[test]
fn networks_over_pairs_learn_which_belong_together() {
    let runtime = linked::runtime();
    for model in PAIRS {
        let scratch = Scratch::new(&format!("word-{model}"));
        let train = scratch.path().join("train.tsv");
        let lines = pairs(400, &mut Draw(5));
        write(
            &train,
            "text\ttext_b\tlabel",
            lines.iter().map(|([a, b], l)| format!("{a}\t{b}\t{l}")),
        );
        let config = json!({"encoder": small(model), "lr": 0.01, "epochs": 30, "seed": 4, "batch": {"rows": 32}});
        runtime.train(job(&scratch, &train, config)).unwrap();
        let app = runtime.app(&scratch.path().join("bundle")).unwrap();
        let asked: Vec<(Value, &str)> = pairs(200, &mut Draw(6))
            .into_iter()
            .map(|([text, pair], label)| (json!({"text": text, "text_pair": pair}), label))
            .collect();
        let found = accuracy(&app, &asked);
        assert!(found > 0.95, "{model}: {found}");
    }
}

/// A file of vectors for the words of [`texts`] in one of the formats.
fn vectors(path: &Path, format: &str) -> Vec<(&'static str, [f32; 3])> {
    let words = ["Tea", "rain", "good", "not"];
    let vectors: Vec<_> =
        (0..4u8).map(|at| (words[usize::from(at)], [f32::from(at), -1.5, 0.25])).collect();
    let mut bytes = Vec::new();
    if format != "glove.txt" {
        bytes.extend_from_slice(b"5 3\n");
    }
    for (word, vector) in vectors.iter().chain(&[("nobody's", [9.0; 3])]) {
        bytes.extend_from_slice(format!("{word} ").as_bytes());
        match format {
            "google.bin" => bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes())),
            _ => {
                let blank = if format == "fasttext.vec" { " " } else { "" };
                bytes.extend_from_slice(
                    format!("{} {} {}{blank}\n", vector[0], vector[1], vector[2]).as_bytes(),
                );
            }
        }
    }
    fs::write(path, bytes).unwrap();
    vectors
}

#[test]
fn words_begin_with_the_vectors_of_a_file() {
    let runtime = linked::runtime();
    let scratch = Scratch::new("word-vectors");
    let train = scratch.path().join("train.tsv");
    write(&train, "text\tlabel", texts(40, &mut Draw(1)).iter().map(|(t, l)| format!("{t}\t{l}")));
    for format in ["glove.txt", "word2vec.txt", "fasttext.vec", "google.bin"] {
        let file = scratch.path().join(format);
        let expected = vectors(&file, format);
        let encoder = json!({
            "model_type": "text-cnn", "embedding_size": 3, "num_filters": 4, "freeze_words": true,
            "word_vectors": file,
        });
        let mut run =
            job(&scratch, &train, json!({"encoder": encoder, "lr": 0.05, "max_steps": 3}));
        run.output = scratch.path().join(format!("bundle-{format}"));
        let bundle = run.output.clone();
        runtime.train(run).unwrap();
        // The bundle needs the file no more, and speaks of it only where it tells how it was trained.
        fs::remove_file(&file).unwrap();
        let config = fs::read_to_string(bundle.join("config.json")).unwrap();
        assert!(!config.contains("word_vectors") && !config.contains("\"words\""), "{config}");
        let app = runtime.app(&bundle).unwrap();
        app.predict(&["not good"]).unwrap();
        let network = app.network();
        let table = network.params.find("embeddings.word_embeddings.weight").unwrap();
        let table = table.tensor().unwrap().to_vec::<f32>().unwrap();
        for (word, vector) in expected {
            let id = network.tokenizer.token_id(&word.to_lowercase()).unwrap() as usize;
            assert_eq!(table[3 * id..][..3], vector, "{format}: {word}");
        }
        // Words that the file lacks began near zero.
        let id = network.tokenizer.token_id("moon").unwrap() as usize;
        assert!(table[3 * id..][..3].iter().all(|value| *value != 0.0 && value.abs() < 0.1));
        // Training goes on from the bundle, without the file.
        let mut more = job(&scratch, &train, json!({"max_steps": 2, "lr": 0.05}));
        more.encoder = bundle;
        more.output = scratch.path().join(format!("more-{format}"));
        runtime.train(more).unwrap();
    }
}

#[test]
fn what_is_wrong_with_vectors_and_options_is_said() {
    let runtime = linked::runtime();
    let scratch = Scratch::new("word-refused");
    let train = scratch.path().join("train.tsv");
    write(&train, "text\tlabel", texts(20, &mut Draw(1)).iter().map(|(t, l)| format!("{t}\t{l}")));
    let file = scratch.path().join("vectors.txt");
    let refusal = |encoder: Value, directory: &Path| {
        let mut run = job(&scratch, &train, json!({"encoder": encoder, "max_steps": 1}));
        run.encoder = directory.to_path_buf();
        let error = runtime.train(run).unwrap_err();
        assert!(error.is_user_error(), "{error}");
        error.to_string()
    };
    let none = Path::new("");
    let with = |size: usize| json!({"model_type": "dam", "embedding_size": size, "hidden_size": 4, "word_vectors": file});
    assert!(refusal(with(2), none).contains("vectors.txt"));
    for (content, expected) in [
        ("not 1 2\ngood 1\n", "line 2: expected a word and 2 numbers"),
        ("not 1 2 3\n", "--set encoder.embedding_size=3"),
        ("9 3\n", "--set encoder.embedding_size=3"),
        ("zebra 1 2\n", "0 of the 15 words"),
    ] {
        fs::write(&file, content).unwrap();
        let error = refusal(with(2), none);
        assert!(error.contains(expected) && error.contains("vectors.txt"), "{content:?}: {error}");
    }
    assert!(
        refusal(json!({"model_type": "dam", "word_vectors": scratch.path()}), none)
            .contains("expected a file")
    );
    // Options of each model, by name.
    for (encoder, expected) in [
        (json!({"model_type": "hcnn", "first_sequence_length": 20}), "first_sequence_length"),
        (json!({"model_type": "text-cnn", "num_filters": [3, 4]}), "num_filters"),
        (json!({"model_type": "text-cnn", "filter_sizes": []}), "filter_sizes"),
        (json!({"model_type": "bilstm", "num_layers": 0}), "num_layers"),
        (json!({"model_type": "dam-plus", "hidden_size": 1}), "hidden_size"),
        (json!({"model_type": "bicnn", "hiden_size": 3}), "hidden_size"),
        (json!({"model_type": "bigru-attention", "dropout": 1}), "dropout"),
    ] {
        let error = refusal(encoder, none);
        assert!(error.contains(expected), "{error}");
    }
    // A model with weights does not begin.
    let encoder = json!({"model_type": "dam", "embedding_size": 2, "hidden_size": 4});
    runtime.train(job(&scratch, &train, json!({"encoder": encoder, "max_steps": 1}))).unwrap();
    let bundle = scratch.path().join("bundle");
    let mut run =
        job(&scratch, &train, json!({"encoder": {"word_vectors": "x.txt"}, "max_steps": 1}));
    (run.encoder, run.output) = (bundle, scratch.path().join("other"));
    let error = runtime.train(run).unwrap_err().to_string();
    assert!(
        error.contains("encoder.word_vectors") && error.contains("from_scratch=true"),
        "{error}"
    );
}

#[test]
fn a_stopped_run_goes_on_to_the_same_weights() {
    let runtime = linked::runtime();
    for model in ["bigru-attention", "dam-plus"] {
        let scratch = Scratch::new(&format!("word-resume-{model}"));
        let train = scratch.path().join("train.tsv");
        let lines = pairs(60, &mut Draw(7));
        write(
            &train,
            "text\ttext_b\tlabel",
            lines.iter().map(|([a, b], l)| format!("{a}\t{b}\t{l}")),
        );
        let run = |output: &str| {
            let config = json!({"encoder": small(model), "max_steps": 9, "batch": {"rows": 16}});
            let mut run = job(&scratch, &train, config);
            run.output = scratch.path().join(output);
            run
        };
        runtime.train(run("whole")).unwrap();
        let first = run("stopped").on_event(|event| !is_step(event, 5));
        assert!(matches!(runtime.train(first), Err(easytransfer::Error::Cancelled)));
        let mut second = run("stopped");
        second.resume = true;
        runtime.train(second).unwrap();
        let weights =
            |output: &str| fs::read(scratch.path().join(output).join("model.safetensors")).unwrap();
        assert!(weights("whole") == weights("stopped"), "{model}");
    }
}

/// What `easytransfer plugin check` holds every plugin to.
#[test]
fn the_plugin_passes_every_check() {
    let report = check_record(linked::zoo_word::PluginRecord::get()).unwrap();
    assert!(report.is_good(), "{report}");
    for model in ENCODERS.iter().chain(&PAIRS) {
        let component = format!("model {model}");
        let slope = "gradient along a direction equals finite differences";
        let is_passed = |line: &Line| {
            line.component == component && line.check == slope && line.verdict == Verdict::Passed
        };
        assert!(report.lines.iter().any(is_passed), "{model}: {report}");
    }
}
