//! `train_step --python PYTHON [--models mini,minilm,base] [--shapes 32x64,32x128] [--modes eager,sdpa,compile,bf16]
//! [--precisions f32,bf16] [--rounds 5]`: a training step of fixed shape, ours and PyTorch's in turn: forward, cross
//! entropy, backward, clipping, AdamW, dropout 0.1, two threads each. Weights are random, by the configuration.
//!
//! Our side is the trainer itself with the staged plugins, on texts of which every one has the wanted number of
//! tokens.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use easytransfer::{Event, Runtime, RuntimeOptions, Start, StepInfo, TrainConfig, TrainJob};
use easytransfer_bench::peer::{self, Peer, Spread, flag, number, shown};
use easytransfer_tests::places;
use serde_json::{Value, json};

/// Steps before anything is measured.
const WARM: u64 = 3;

/// config.json of a model by its short name.
fn config(model: &str) -> Value {
    let bert = |layers: usize, hidden: usize, heads: usize| {
        json!({
            "model_type": "bert", "vocab_size": 30522, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": 4 * hidden, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
            "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        })
    };
    match model {
        "mini" => bert(4, 256, 4),
        "minilm" => bert(6, 384, 12),
        "base" => bert(12, 768, 12),
        other => panic!("--models: expected mini, minilm or base, found {other}"),
    }
}

/// Rows and tokens of a shape such as 32x128.
fn extents(shape: &str) -> (usize, usize) {
    let (rows, tokens) = shape.split_once('x').expect("a shape such as 32x128");
    (rows.parse().expect("rows"), tokens.parse().expect("tokens"))
}

/// Writes the folder of a model without weights and a training file whose rows have `tokens` tokens each.
fn prepare(folder: &Path, model: &str, rows: usize, tokens: usize) {
    let source = places::shared().join("models/tokenizer-bert-base-uncased");
    std::fs::create_dir_all(folder).expect("a folder");
    let vocabulary = std::fs::read_to_string(source.join("vocab.txt")).expect("a vocabulary");
    std::fs::copy(source.join("tokenizer.json"), folder.join("tokenizer.json")).expect("a copy");
    std::fs::write(folder.join("vocab.txt"), &vocabulary).expect("the vocabulary");
    std::fs::write(folder.join("config.json"), config(model).to_string()).expect("the config");
    // Words of the vocabulary that are one token wherever they stand.
    let words: Vec<&str> = vocabulary
        .lines()
        .filter(|word| word.len() > 2 && word.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    let mut text = String::from("label\ttext\n");
    let mut state = 1u64;
    for row in 0..rows * 100 {
        write!(text, "{}\t", ["a", "b"][row % 2]).expect("a string");
        // [CLS] and [SEP] are two of the tokens.
        for _ in 0..tokens - 2 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            write!(text, "{} ", words[(state >> 33) as usize % words.len()]).expect("a string");
        }
        text.push('\n');
    }
    std::fs::write(folder.join("train.tsv"), text).expect("the training file");
}

/// Our side: trains without end and stops after every round to wait for the next request.
fn ours(folder: PathBuf, rows: usize, tokens: usize) {
    let precision = peer::begin_own();
    let options = RuntimeOptions { precision, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).expect("a runtime");
    let options = json!({
        "epochs": 100_000, "batch": {"rows": rows, "tokens": rows * tokens}, "checkpoint_every": 1_000_000_000,
        "schedule": {"name": "constant", "warmup": 0}, "lr": 1e-5, "app": {"max_length": tokens},
    });
    let (mut left, mut began) = (0, Instant::now());
    let mut on_step = move |info: &StepInfo| {
        if info.step < WARM {
            return true;
        }
        if info.step == WARM {
            peer::say(&json!({"ready": {"loss": info.loss}}));
        } else {
            left -= 1;
            if left > 0 {
                return true;
            }
            peer::say(&json!({"seconds": began.elapsed().as_secs_f64(), "loss": info.loss}));
        }
        match peer::request() {
            Some(request) => left = peer::units(&request),
            // Nothing of this run is worth a checkpoint.
            None => std::process::exit(0),
        }
        began = Instant::now();
        true
    };
    // A directory takes one run at a time, and the sides of a comparison run in turn but live together.
    let output = folder.join(format!("bundle-{}", std::process::id()));
    let job = TrainJob::new(&folder, folder.join("train.tsv"), output)
        .with_start(Start::Scratch)
        .with_config(TrainConfig::from_value(options, "bench").expect("options"))
        .on_event(move |event| match event {
            Event::Step(info) => on_step(info),
            _ => true,
        });
    if let Err(error) = runtime.train(job) {
        peer::say(&json!({ "error": error.to_string() }));
    }
}

/// Our side in each precision, then every mode of the peer that runs on this machine.
fn sides(folder: &Path, shape: &str, precisions: &str, modes: &str) -> Vec<Peer> {
    let (rows, tokens) = extents(shape);
    let mut sides = peer::own_sides(precisions, |command, _| {
        command.args(["--ours", shape, "--folder"]).arg(folder);
    });
    for mode in modes.split(',') {
        let mut command = Command::new(peer::python());
        command
            .arg(places::root().join("tests/bench/peer_train_step.py"))
            .args(["--mode", mode, "--threads", "2", "--config"])
            .arg(folder.join("config.json"))
            .args(["--rows", &rows.to_string(), "--tokens", &tokens.to_string()]);
        match Peer::start(&format!("PyTorch {mode}"), &mut command) {
            Ok(side) => sides.push(side),
            Err(error) => println!("left out: {error}\n"),
        }
    }
    sides
}

fn main() {
    if let Some(shape) = flag("--ours") {
        let (rows, tokens) = extents(&shape);
        return ours(flag("--folder").expect("--folder").into(), rows, tokens);
    }
    let models = flag("--models").unwrap_or_else(|| "mini,minilm,base".to_owned());
    let modes = flag("--modes").unwrap_or_else(|| "eager,sdpa,compile,bf16".to_owned());
    let precisions = flag("--precisions").unwrap_or_else(|| "f32,bf16".to_owned());
    let own = precisions.split(',').count();
    let (rounds, seconds) = (number("--rounds", 5), number("--round-seconds", 3));
    let folder = std::env::temp_dir().join(format!("et-train-step-{}", std::process::id()));
    println!(
        "Milliseconds of a training step, median (least..most) of {rounds} alternated rounds; the ratio is to the best mode of PyTorch.\n"
    );
    println!("| model | shape | side | ms | tokens/s | peak MiB | PyTorch's best over ours |");
    println!("|---|---|---|---|---|---|---|");
    for model in models.split(',') {
        let default = if model == "base" { "8x128" } else { "32x64,32x128" };
        let shapes = flag("--shapes").unwrap_or_else(|| default.to_owned());
        for shape in shapes.split(',') {
            let (rows, tokens) = extents(shape);
            let folder = folder.join(format!("{model}-{shape}"));
            prepare(&folder, model, rows, tokens);
            let mut sides = sides(&folder, shape, &precisions, &modes);
            let mut steps = 1;
            let mut times: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
            // Round 0 sets the length of the others and is not counted.
            for round in 0..=rounds {
                let mut slowest = 0.0f64;
                for (side, times) in sides.iter_mut().zip(&mut times) {
                    let answer = side.round(steps).expect("a round");
                    let each = answer["seconds"].as_f64().unwrap_or(f64::NAN) / steps as f64;
                    slowest = slowest.max(each);
                    if round > 0 {
                        times.push(each);
                    }
                }
                if round == 0 {
                    steps = (seconds as f64 / slowest).ceil() as usize;
                }
            }
            let best = (own..sides.len()).min_by(|&a, &b| {
                Spread::of(&times[a]).median.total_cmp(&Spread::of(&times[b]).median)
            });
            for (index, side) in sides.iter().enumerate() {
                let spread = Spread::of(&times[index].iter().map(|t| t * 1e3).collect::<Vec<_>>());
                let rate = (rows * tokens) as f64 / spread.median * 1e3;
                let ratio = match best {
                    Some(best) if index < own => {
                        format!(
                            "**{}** ({})",
                            shown(Spread::ratio(&times[best], &times[index]), 2),
                            sides[best].name
                        )
                    }
                    _ => String::new(),
                };
                let (name, spread, peak) = (&side.name, shown(spread, 1), side.peak_mib());
                println!(
                    "| {model} | {shape} | {name} | {spread} | {rate:.0} | {peak:.0} | {ratio} |"
                );
            }
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}
