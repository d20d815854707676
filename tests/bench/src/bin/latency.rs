//! `cargo run --release -p easytransfer-bench --bin latency [-- --tokens 8] [--count 200] [--precision f32|bf16|int8]
//! [--turn 30]`: one text after the other to vectors by all-MiniLM-L6-v2, ours alone. The process does nothing else
//! after the first text, so counters see the path of one text: `valgrind --tool=callgrind` of two runs with other
//! counts differ by that many texts. With `--turn N` it pauses before every N texts, so that the first of a turn
//! finds cold caches.

use std::time::{Duration, Instant};

use easytransfer::{EmbedOptions, LayerPrecision};
use easytransfer_bench::median;
use easytransfer_tests::{linked, places};

/// Before a turn.
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str, default: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_else(|| default.to_owned())
    };
    let number =
        |flag: &str, default: &str| value(flag, default).parse::<usize>().expect("a number");
    let (tokens, count) = (number("--tokens", "8"), number("--count", "200"));
    let turn = number("--turn", "0");
    let name = value("--precision", "f32");
    let precision = [LayerPrecision::F32, LayerPrecision::Bf16, LayerPrecision::Int8]
        .into_iter()
        .find(|precision| precision.name() == name)
        .expect("f32, bf16 or int8");
    let runtime = linked::runtime();
    let options = EmbedOptions { precision, ..EmbedOptions::default() };
    let embedder = runtime
        .embedder(&places::shared().join("models/all-MiniLM-L6-v2"), options)
        .expect("the encoder");
    // Two of the tokens are special.
    let text = vec!["good"; tokens.max(2) - 2].join(" ");
    embedder.embed(&[&text]).expect("a vector");
    let mut times: Vec<f64> = (0..count)
        .map(|index: usize| {
            if turn > 0 && index.is_multiple_of(turn) {
                std::thread::sleep(PAUSE);
            }
            let begin = Instant::now();
            embedder.embed(&[&text]).expect("a vector");
            begin.elapsed().as_secs_f64()
        })
        .collect();
    if turn > 0 && count > 0 {
        let firsts = times.iter().copied().step_by(turn).collect();
        println!("the first of a turn of {turn}: p50 {:.0} us", 1e6 * median(firsts));
    }
    times.sort_by(f64::total_cmp);
    let percentile = |part: f64| match times.len() {
        0 => f64::NAN,
        len => 1e6 * times[((len - 1) as f64 * part) as usize],
    };
    println!(
        "{tokens} tokens, {name}: p50 {:.0} us, p99 {:.0} us over {count} texts",
        percentile(0.5),
        percentile(0.99)
    );
}
