//! Arithmetic of the operations, from their shapes.
//!
//! Products count two operations per multiplication and addition. What is no product counts nominal operations per
//! element, so that its rate can be compared with itself, not with the machine's peak. What a backward pass computes
//! again is not counted.

/// Splits shapes that lie one after the other, each as its number of axes and its extents.
pub fn shapes(mut dims: &[u32]) -> Vec<&[u32]> {
    let mut all = Vec::new();
    while let Some((&rank, rest)) = dims.split_first() {
        let (shape, rest) = rest.split_at((rank as usize).min(rest.len()));
        all.push(shape);
        dims = rest;
    }
    all
}

fn len(shape: &[u32]) -> f64 {
    shape.iter().map(|&n| f64::from(n)).product()
}

/// Operations of the forward computation; 0 for what only moves data or is not known.
pub fn forward(op: &str, shapes: &[&[u32]]) -> f64 {
    let last = |shape: &[u32]| shape.last().map_or(0.0, |&n| f64::from(n));
    match (op, shapes) {
        ("linear", [x, weight, ..]) => 2.0 * len(x) * weight.first().map_or(0.0, |&n| f64::from(n)),
        ("matmul", [a, b]) => {
            // Leading axes broadcast, so the side with more rows says how many products there are.
            let inner = last(a).max(1.0);
            let batch = (len(b) / (inner * last(b)).max(1.0)).max(1.0);
            let rows = len(a) / inner;
            2.0 * last(b) * inner * rows.max(batch)
        }
        ("conv1d", [x, weight, ..]) => 2.0 * len(x) * len(weight) / last(x).max(1.0),
        // x, w_ih, w_hh: both products for each token.
        ("lstm" | "gru", [x, w_ih, w_hh, ..]) => {
            2.0 * len(x) / last(x).max(1.0) * (len(w_ih) + len(w_hh))
        }
        ("layer_norm", [x, ..]) => 8.0 * len(x),
        ("rms_norm" | "cross_entropy" | "binary_cross_entropy", [x, ..]) => 5.0 * len(x),
        ("softmax" | "log_softmax", [x, ..]) => 4.0 * len(x),
        ("unary" | "affine" | "power" | "clamp" | "reduce" | "dropout" | "pool", [x, ..]) => len(x),
        ("binary", [a, b]) => len(a).max(len(b)),
        _ => 0.0,
    }
}

/// Operations of the backward computation of one whose forward computation has `forward`; products only where a
/// gradient is wanted.
pub fn backward(op: &str, forward: f64, first: bool, second: bool) -> f64 {
    match op {
        "linear" | "matmul" => forward * f64::from(u8::from(first) + u8::from(second)),
        _ => 2.0 * forward,
    }
}

/// The shape that tells apart what a summary should not add up: a weight's.
pub fn detail(op: &str, shapes: &[&[u32]]) -> Vec<u32> {
    match (op, shapes) {
        ("linear" | "conv1d" | "lstm" | "gru", [_, weight, ..]) => weight.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_count_two_operations_per_multiplication() {
        let dims = [2, 10, 4, 2, 3, 4, 1, 3];
        let all = shapes(&dims);
        assert_eq!(all, [&[10, 4][..], &[3, 4], &[3]]);
        assert_eq!(forward("linear", &all), 2.0 * 10.0 * 4.0 * 3.0);
        assert_eq!(detail("linear", &all), [3, 4]);
        assert_eq!(backward("linear", 240.0, false, true), 240.0);
        assert_eq!(backward("linear", 240.0, true, true), 480.0);
        // [5, 2, 4] x [4, 3] and [2, 4] x [5, 4, 3].
        assert_eq!(forward("matmul", &[&[5, 2, 4], &[4, 3]]), 2.0 * 5.0 * 2.0 * 4.0 * 3.0);
        assert_eq!(forward("layer_norm", &[&[7, 4], &[4], &[4]]), 8.0 * 28.0);
        assert_eq!(forward("reshape", &[&[7, 4]]), 0.0);
        assert_eq!(forward("linear", &[]), 0.0);
    }

    #[test]
    fn broken_dims_end_the_list_instead_of_panicking() {
        assert_eq!(shapes(&[5, 1]), [&[1][..]]);
        assert!(shapes(&[]).is_empty());
    }
}
