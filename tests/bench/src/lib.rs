//! What the benches share: medians over alternated runs.

pub mod machine;
pub mod peer;
pub mod sets;

use std::time::Instant;

/// Median of some numbers.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds per call of each of two functions, in rounds that alternate between them: medians over the rounds.
pub fn alternate(
    rounds: usize,
    calls: usize,
    mut a: impl FnMut(),
    mut b: impl FnMut(),
) -> (f64, f64) {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..calls {
            f();
        }
        start.elapsed().as_secs_f64() / calls as f64
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        first.push(time(&mut a));
        second.push(time(&mut b));
    }
    (median(first), median(second))
}
