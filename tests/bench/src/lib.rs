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

/// Seconds per call of two functions.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Median of the first.
    pub first: f64,
    /// Median of the second.
    pub second: f64,
    /// Median of the differences within a round, second less first: what slows both down for a while is not in it.
    pub difference: f64,
}

/// Runs `f` further down the stack, by `n` frames of some 50 bytes.
#[inline(never)]
fn deeper<R>(n: usize, f: &mut dyn FnMut() -> R) -> R {
    let frame = std::hint::black_box([0u8; 16]);
    let result = if n == 0 { f() } else { deeper(n - 1, f) };
    std::hint::black_box(frame);
    result
}

/// Times two functions in rounds of `calls` calls each; the one that begins changes from round to round. So does the
/// place of the stack: where its lines fall against those of the data is worth some nanoseconds a call, and a program
/// that is started once sees one place.
pub fn alternate(rounds: usize, calls: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> Pair {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..calls {
            f();
        }
        start.elapsed().as_secs_f64() / calls as f64
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Scattered over more than a page.
        let depth = (round.wrapping_mul(0x9e37_79b9) >> 7) & 127;
        let time = |f: &mut dyn FnMut()| deeper(depth, &mut || time(f));
        if round % 2 == 0 {
            first.push(time(&mut a));
            second.push(time(&mut b));
        } else {
            second.push(time(&mut b));
            first.push(time(&mut a));
        }
    }
    let differences = first.iter().zip(&second).map(|(a, b)| b - a).collect();
    Pair { first: median(first), second: median(second), difference: median(differences) }
}
