//! `cargo run --release -p easytransfer-bench --bin prediction -- PYTHON DIR [--model minilm|bert-base] [--lines N]
//! [--rounds N] [--sets sst-2,mrpc,squad] [--precisions f32,bf16,int8] [--orders sorted,arrival] [--latency N]`:
//! texts to vectors, ours and ONNX Runtime's in turn, two threads each, tokenizers included; medians over the rounds.
//!
//! PYTHON is the interpreter of a venv with `tests/parity/requirements.txt`, `onnx` and `onnxruntime`; DIR holds what
//! `PYTHON tests/bench/peer_predict.py prepare DIR` made. Their time is that of the better of two graphs: as
//! exported, and fused for Transformers. Their f32 stands beside our f32 and bf16, their dynamic quantisation beside
//! our int8.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use easytransfer::{EmbedOptions, Embedder, LayerPrecision, Runtime};
use easytransfer_bench::median;
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

/// Between two sides of a latency comparison: threads of the other side that still look for work with open eyes fall
/// asleep.
const PAUSE: Duration = Duration::from_millis(50);

/// Rows of a batch of theirs.
const ROWS: usize = 32;

struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(python: &str, folder: &Path, model: &str) -> Peer {
        let mut child = Command::new(python)
            .arg(places::root().join("tests/bench/peer_predict.py"))
            .arg("serve")
            .arg(folder)
            .args(["--model", model, "--threads", "2"])
            .env("ET_SHARED", places::shared())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let requests = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut peer = Peer { child, requests, answers };
        eprintln!("ONNX Runtime {}", peer.answer()["ready"]);
        peer
    }

    fn answer(&mut self) -> Value {
        let line = self.answers.next().expect("an answer").expect("text");
        serde_json::from_str(&line).expect("JSON")
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").expect("the peer listens");
        self.answer()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has nothing to lose, and whether it was still there is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn texts_of(set: &str, lines: usize) -> Vec<String> {
    let data = places::shared().join("data");
    let read = |path: &str| std::fs::read_to_string(data.join(path)).expect(path);
    let columns = |text: String, picked: &[usize]| -> Vec<String> {
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            picked.iter().map(|&column| cells[column]).collect::<Vec<_>>().join(" ")
        };
        text.lines().skip(1).take(lines).map(row).collect()
    };
    match set {
        "sst-2" => columns(read("sst-2/dev.tsv"), &[1]),
        "mrpc" => columns(read("mrpc/msr-para-test.tsv"), &[3, 4]),
        "squad" => {
            let all: Value = serde_json::from_str(&read("squad-v1.1/dev-v1.1.json")).expect("JSON");
            let articles = all["data"].as_array().into_iter().flatten();
            let paragraphs = articles.flat_map(|article| article["paragraphs"].as_array());
            let texts = paragraphs.flatten().filter_map(|paragraph| paragraph["context"].as_str());
            texts.take(lines).map(str::to_owned).collect()
        }
        other => panic!("--sets: expected sst-2, mrpc or squad, found {other}"),
    }
}

fn timed<R>(f: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let answer = f();
    (start.elapsed().as_secs_f64(), answer)
}

/// "f32" or "int8": their graphs that stand beside our precision.
fn peers_of(precision: LayerPrecision) -> &'static str {
    if precision == LayerPrecision::Int8 { "int8" } else { "f32" }
}

struct Bench {
    encoder: PathBuf,
    runtime: Runtime,
    peer: Peer,
    rounds: usize,
}

impl Bench {
    fn embedder(&self, precision: LayerPrecision) -> Embedder {
        let options = EmbedOptions {
            precision,
            max_length: Some(256),
            pooling: Some("mean".to_owned()),
            normalize: Some(true),
            ..EmbedOptions::default()
        };
        self.runtime.embedder(&self.encoder, options).expect("the encoder")
    }

    fn throughput(&mut self, set: &str, order: &str, lines: usize, precisions: &[LayerPrecision]) {
        let texts = texts_of(set, lines);
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        for &precision in precisions {
            let embedder = self.embedder(precision);
            let mut ours = Vec::new();
            let mut theirs = [Vec::new(), Vec::new()];
            let mut cosine = 0.0;
            // One round more than counted: the first packs weights and fills pools on both sides.
            for round in 0..=self.rounds {
                let (seconds, vectors) = timed(|| embedder.embed(&borrowed).expect("vectors"));
                let mut times = vec![seconds];
                for graph in ["", "-fused"] {
                    let graph = format!("{}{graph}", peers_of(precision));
                    let answer = self.peer.ask(&json!({
                        "graph": graph, "texts": texts, "order": order, "rows": ROWS
                    }));
                    times.push(answer["seconds"].as_f64().expect("seconds"));
                    let first = answer["first"].as_array().expect("a vector").iter();
                    cosine = first
                        .zip(&vectors)
                        .map(|(a, b)| a.as_f64().unwrap_or(0.0) * f64::from(*b))
                        .sum();
                }
                if round > 0 {
                    ours.push(times[0]);
                    theirs[0].push(times[1]);
                    theirs[1].push(times[2]);
                }
            }
            let best = usize::from(median(theirs[1].clone()) < median(theirs[0].clone()));
            let mut ratios: Vec<f64> = theirs[best].iter().zip(&ours).map(|(b, a)| b / a).collect();
            ratios.sort_by(f64::total_cmp);
            println!(
                "| {set}, {} lines, {order} | {} | {:.3} | {:.3} ({}) | {:.2} ({:.2} to {:.2}) | {cosine:.4} |",
                texts.len(),
                precision.name(),
                median(ours),
                median(theirs[best].clone()),
                ["exported", "fused"][best],
                median(ratios.clone()),
                ratios[0],
                ratios[ratios.len() - 1],
            );
        }
    }

    fn latency(&mut self, tokens: usize, count: usize, precisions: &[LayerPrecision]) {
        // Two of the tokens are special.
        let text = vec!["good"; tokens - 2].join(" ");
        for &precision in precisions {
            let embedder = self.embedder(precision);
            let mut ours = Vec::new();
            let mut theirs = [Vec::new(), Vec::new()];
            for round in 0..=self.rounds {
                std::thread::sleep(PAUSE);
                let times: Vec<f64> = (0..count)
                    .map(|_| timed(|| embedder.embed(&[&text]).expect("a vector")).0)
                    .collect();
                if round > 0 {
                    ours.extend(times);
                }
                for (graph, all) in ["", "-fused"].into_iter().zip(&mut theirs) {
                    let graph = format!("{}{graph}", peers_of(precision));
                    std::thread::sleep(PAUSE);
                    let request = json!({"graph": graph, "latency": text, "count": count});
                    let answer = self.peer.ask(&request);
                    let times = answer["times"].as_array().expect("times").iter();
                    if round > 0 {
                        all.extend(times.filter_map(Value::as_f64));
                    }
                }
            }
            let best = usize::from(median(theirs[1].clone()) < median(theirs[0].clone()));
            let percentile = |times: &[f64], part: f64| {
                let mut times = times.to_vec();
                times.sort_by(f64::total_cmp);
                1e3 * times[((times.len() - 1) as f64 * part) as usize]
            };
            let (a, b) = (ours.as_slice(), theirs[best].as_slice());
            println!(
                "| {tokens} | {} | {:.2} | {:.2} | {:.2} | {:.2} ({}) | {:.2} |",
                precision.name(),
                percentile(a, 0.5),
                percentile(a, 0.99),
                percentile(b, 0.5),
                percentile(b, 0.99),
                ["exported", "fused"][best],
                percentile(a, 0.5) / percentile(b, 0.5),
            );
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [python, folder] =
        arguments.first_chunk::<2>().expect("usage: prediction PYTHON DIR [options]");
    let value = |flag: &str, default: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_else(|| default.to_owned())
    };
    let number =
        |flag: &str, default: &str| value(flag, default).parse::<usize>().expect("a number");
    let model = value("--model", "minilm");
    let precisions: Vec<LayerPrecision> = value("--precisions", "f32,bf16,int8")
        .split(',')
        .map(|name| LayerPrecision::from_name(name).expect("f32, bf16 or int8"))
        .collect();
    let folder = PathBuf::from(folder);
    let encoder = match model.as_str() {
        "bert-base" => folder.join("bert-base-weights"),
        _ => places::shared().join("models/all-MiniLM-L6-v2"),
    };
    let runtime = linked::runtime();
    let peer = Peer::start(python, &folder, &model);
    let mut bench = Bench { encoder, runtime, peer, rounds: number("--rounds", "5") };
    let lines = number("--lines", "256");
    println!(
        "| {model}, texts | precision | ours s | ONNX Runtime s | their time over ours | cosine |"
    );
    println!("|---|---|---|---|---|---|");
    for set in value("--sets", "sst-2,mrpc,squad").split(',').filter(|set| *set != "none") {
        for order in value("--orders", "sorted,arrival").split(',') {
            bench.throughput(set, order, lines, &precisions);
        }
    }
    let count = number("--latency", "100");
    if count > 0 {
        println!(
            "\n| {model}, tokens | precision | p50 ms | p99 ms | ONNX Runtime p50 | p99 | ours over theirs |"
        );
        println!("|---|---|---|---|---|---|---|");
        for tokens in [8, 32, 128] {
            bench.latency(tokens, count, &precisions);
        }
    }
}
