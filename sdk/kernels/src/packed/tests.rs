use super::*;
use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

const SHAPES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [3, 5, 7],
    [8, 48, 64],
    [9, 49, 30],
    [17, 100, 33],
    [70, 96, 385],
    [1, 200, 513],
    [40, 3, 2],
];

/// Those that this processor can run.
fn all_instructions(precision: LayerPrecision) -> Vec<Instructions> {
    let mut all = vec![Instructions::Plain];
    let best = Instructions::best(precision);
    if best != Instructions::Plain {
        all.push(best);
    }
    if precision == LayerPrecision::Int8
        && crate::machine::simd::level() >= crate::machine::simd::Level::Avx2
    {
        all.push(Instructions::Avx2);
    }
    all
}

fn product(x: &[f64], w: &[f64], bias: &[f32], [rows, outputs, inputs]: [usize; 3]) -> Vec<f64> {
    let mut y = Vec::new();
    for (r, o) in (0..rows).flat_map(|r| (0..outputs).map(move |o| (r, o))) {
        let sum: f64 = (0..inputs).map(|i| x[r * inputs + i] * w[o * inputs + i]).sum();
        y.push(sum + f64::from(bias[o]));
    }
    y
}

fn run(
    instructions: Instructions,
    precision: LayerPrecision,
    [rows, outputs, inputs]: [usize; 3],
    x: &[f32],
    w: &[f32],
    bias: &[f32],
) -> Vec<f32> {
    let packed = PackedWeight::new(precision, w, outputs, inputs).unwrap();
    let mut y = vec![f32::NAN; rows * outputs];
    linear_packed_with(instructions, x, &packed, Some(bias), Activation::None, &mut y).unwrap();
    y
}

fn operands([rows, outputs, inputs]: [usize; 3]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    (random(rows * inputs, 1), random(outputs * inputs, 2), random(outputs, 3))
}

#[test]
fn f32_matches_plain_sums() {
    for shape in SHAPES {
        let (x, w, b) = operands(shape);
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let expected = product(&wide(&x), &wide(&w), &b, shape);
        for instructions in all_instructions(LayerPrecision::F32) {
            assert_close(
                &run(instructions, LayerPrecision::F32, shape, &x, &w, &b),
                &expected,
                1e-5,
            );
        }
    }
}

#[test]
fn bf16_is_the_product_of_rounded_operands() {
    for shape in SHAPES {
        let (x, w, b) = operands(shape);
        let rounded =
            |v: &[f32]| v.iter().map(|&v| f64::from(bf16_value(bf16_bits(v)))).collect::<Vec<_>>();
        let expected = product(&rounded(&x), &rounded(&w), &b, shape);
        for instructions in all_instructions(LayerPrecision::Bf16) {
            assert_close(
                &run(instructions, LayerPrecision::Bf16, shape, &x, &w, &b),
                &expected,
                3e-6,
            );
        }
    }
}

/// A reference that shares nothing with the kernels: 8-bit numbers in i32, sums in i64.
fn int8_reference(
    x: &[f32],
    w: &[f32],
    bias: &[f32],
    [rows, outputs, inputs]: [usize; 3],
) -> Vec<f32> {
    let mut y = Vec::new();
    for r in 0..rows {
        let x = &x[r * inputs..][..inputs];
        let low = x.iter().fold(0f32, |a, &b| a.min(b));
        let high = x.iter().fold(0f32, |a, &b| a.max(b));
        let scale = (high - low) / 255.0;
        let inverse = 1.0 / scale;
        let zero = (-low * inverse + 0.5).floor();
        let q: Vec<i64> =
            x.iter().map(|v| (v * inverse + (zero + 0.5)).clamp(0.0, 255.0) as i64).collect();
        for o in 0..outputs {
            let w = &w[o * inputs..][..inputs];
            let weight_scale = w.iter().fold(0f32, |a, &b| a.max(b.abs())) / 127.0;
            let inverse = 1.0 / weight_scale;
            let weights = w.iter().map(|v| (v * inverse).round_ties_even() as i64);
            let sum: i64 = weights.zip(&q).map(|(w, q)| w * (q - zero as i64)).sum();
            y.push(sum as f32 * (scale * weight_scale) + bias[o]);
        }
    }
    y
}

#[test]
fn int8_equals_the_exact_reference_on_every_path() {
    for shape in SHAPES {
        let (x, w, b) = operands(shape);
        let expected = int8_reference(&x, &w, &b, shape);
        for instructions in all_instructions(LayerPrecision::Int8) {
            assert_same_bits(
                &run(instructions, LayerPrecision::Int8, shape, &x, &w, &b),
                &expected,
            );
        }
    }
}

#[test]
fn int8_extremes_do_not_saturate() {
    // Every product has the largest magnitude there is; 16-bit sums of two would overflow.
    let shape = [2, 48, 4096];
    let x: Vec<f32> =
        (0..shape[0] * shape[2]).map(|i| if i % 4096 == 7 { 0.0 } else { 2.0 }).collect();
    for sign in [1.0, -1.0] {
        let w = vec![sign * 3.0; shape[1] * shape[2]];
        let expected = vec![f64::from(sign) * 6.0 * 4095.0; shape[0] * shape[1]];
        for instructions in all_instructions(LayerPrecision::Int8) {
            assert_close(
                &run(instructions, LayerPrecision::Int8, shape, &x, &w, &[0.0; 48]),
                &expected,
                1e-6,
            );
        }
    }
}

#[test]
fn int8_errors_stay_within_half_a_step() {
    let shape = [5, 60, 256];
    let (x, w, b) = operands(shape);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let expected = product(&wide(&x), &wide(&w), &b, shape);
    let y = run(Instructions::best(LayerPrecision::Int8), LayerPrecision::Int8, shape, &x, &w, &b);
    // Values lie in (-1, 1): an activation is off by at most 1/255, a weight by at most 1/254, so a product by less
    // than their sum plus their product, in each of 256 places.
    let bound = 256.0 * (1.0 / 255.0 + 1.0 / 254.0 + 1.0 / (255.0 * 254.0));
    let mut worst = 0f64;
    let mut square = 0f64;
    for (y, expected) in y.iter().zip(&expected) {
        worst = worst.max((f64::from(*y) - expected).abs());
        square += (f64::from(*y) - expected).powi(2) / y64(&expected.abs());
    }
    assert!(worst < bound, "{worst}");
    // Rounding errors are independent, so they grow with the root: about sqrt(256 / 3 / 3) steps of 1/255.
    assert!(worst < 6.0 * (256f64 / 9.0).sqrt() * std::f64::consts::SQRT_2 / 255.0, "{worst}");
    assert!(worst > 0.0 && square.is_finite());
}

fn y64(value: &f64) -> f64 {
    value.max(1.0)
}

#[test]
fn activations_match_the_unpacked_layer() {
    use crate::linear::{LinearShape, linear_forward};
    let [rows, outputs, inputs] = [21, 130, 40];
    let (x, w, b) = operands([rows, outputs, inputs]);
    let packed = PackedWeight::new(LayerPrecision::F32, &w, outputs, inputs).unwrap();
    for activation in [Activation::Gelu, Activation::Tanh, Activation::Relu] {
        let (mut y, mut expected) = (vec![0f32; rows * outputs], vec![0f32; rows * outputs]);
        linear_packed(&x, &packed, Some(&b), activation, &mut y).unwrap();
        let shape = LinearShape { rows, inputs, outputs, bf16: false };
        linear_forward(shape, &x, &w, Some(&b), activation, &mut expected, None).unwrap();
        let expected: Vec<f64> = expected.iter().map(|&v| f64::from(v)).collect();
        assert_close(&y, &expected, 3e-6);
    }
}

#[test]
fn a_row_depends_on_itself_only() {
    let [rows, outputs, inputs] = [300, 144, 200];
    let (x, w, b) = operands([rows, outputs, inputs]);
    for precision in LayerPrecision::ALL {
        let packed = PackedWeight::new(precision, &w, outputs, inputs).unwrap();
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0f32; rows * outputs];
            linear_packed(&x, &packed, Some(&b), Activation::Gelu, &mut y).unwrap();
            y
        });
        assert_same_bits(&one, &three);
        for (first, len) in [(0, 1), (5, 1), (11, 13), (100, 8), (299, 1)] {
            let mut y = vec![0f32; len * outputs];
            let x = &x[first * inputs..(first + len) * inputs];
            linear_packed(x, &packed, Some(&b), Activation::Gelu, &mut y).unwrap();
            assert_same_bits(&y, &one[first * outputs..(first + len) * outputs]);
        }
    }
}

#[test]
fn few_rows_by_many_outputs_use_panels_and_give_the_same() {
    let [rows, outputs, inputs] = [4, 3000, 1100];
    let (x, w, b) = operands([rows, outputs, inputs]);
    for precision in LayerPrecision::ALL {
        let packed = PackedWeight::new(precision, &w, outputs, inputs).unwrap();
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0f32; rows * outputs];
            linear_packed(&x, &packed, Some(&b), Activation::Relu, &mut y).unwrap();
            y
        });
        assert_same_bits(&one, &three);
    }
}

#[test]
fn constant_rows_and_zero_weights_are_exact() {
    let inputs = 20;
    let w: Vec<f32> = (0..3 * inputs).map(|i| if i < inputs { 0.0 } else { 0.5 }).collect();
    for value in [0.0f32, 3.0, -3.0, 1e-30, f32::MIN_POSITIVE / 8.0] {
        let x = vec![value; inputs];
        for instructions in all_instructions(LayerPrecision::Int8) {
            let y =
                run(instructions, LayerPrecision::Int8, [1, 3, inputs], &x, &w, &[1.0, 0.0, 0.0]);
            let expected = f64::from(value) * 0.5 * inputs as f64;
            assert_close(&y, &[1.0, expected, expected], 1e-6);
        }
    }
}

#[test]
fn values_that_are_not_finite_spoil_their_row_only() {
    let (_, w, b) = operands([3, 50, 40]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x: Vec<f32> = random(120, 1);
        x[45] = bad;
        for precision in LayerPrecision::ALL {
            for instructions in all_instructions(precision) {
                let y = run(instructions, precision, [3, 50, 40], &x, &w, &b);
                assert!(y[50..100].iter().all(|v| !v.is_finite()), "{precision:?} {bad}");
                assert!(y[..50].iter().chain(&y[100..]).all(|v| v.is_finite()));
            }
        }
    }
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_nan() {
    let bits = |value: f32| bf16_bits(value);
    assert_eq!(bits(1.0), 0x3f80);
    assert_eq!(bits(f32::from_bits(0x3f80_8000)), 0x3f80);
    assert_eq!(bits(f32::from_bits(0x3f81_8000)), 0x3f82);
    assert_eq!(bits(f32::from_bits(0x3f80_8001)), 0x3f81);
    assert!(bf16_value(bits(f32::from_bits(0x7f80_0001))).is_nan());
    assert_eq!(bf16_value(bits(f32::MAX)), f32::INFINITY);
}

#[test]
fn wrong_lengths_and_weights_are_refused() {
    let packed = PackedWeight::new(LayerPrecision::F32, &[0.0; 6], 2, 3).unwrap();
    let text = linear_packed(&[0.0; 4], &packed, None, Activation::None, &mut [0.0; 2]);
    assert_eq!(text.unwrap_err().to_string(), "linear_packed: x must have 3 elements, found 4");
    linear_packed(&[], &packed, None, Activation::Gelu, &mut []).unwrap();
    assert!(PackedWeight::new(LayerPrecision::F32, &[0.0; 5], 2, 3).is_err());
    let text =
        PackedWeight::new(LayerPrecision::Int8, &[1.0, f32::NAN], 1, 2).unwrap_err().to_string();
    assert_eq!(text, "packed weight: weight must be finite for int8, found NaN");
    assert!(PackedWeight::new(LayerPrecision::Int8, &vec![0.0; 70_000], 1, 70_000).is_err());
}

#[test]
fn halves_of_memory() {
    let w: Vec<f32> = random(96 * 400, 1);
    let size = |precision| PackedWeight::new(precision, &w, 96, 400).unwrap().size();
    assert_eq!(size(LayerPrecision::F32), 4 * w.len());
    assert_eq!(size(LayerPrecision::Bf16), 2 * w.len());
    assert_eq!(size(LayerPrecision::Int8), w.len() + 8 * 96);
}

/// Prints rates on BERT's shapes: `cargo test --release -- --ignored --nocapture packed_rate`.
#[test]
#[ignore = "a measurement, not a check"]
fn packed_rate() {
    for [rows, inputs, outputs] in
        [[8, 384, 1536], [128, 384, 384], [1024, 384, 1536], [4096, 1536, 384], [1024, 768, 3072]]
    {
        let (x, w, b) = operands([rows, outputs, inputs]);
        let mut y = vec![0f32; rows * outputs];
        for precision in LayerPrecision::ALL {
            let packed = PackedWeight::new(precision, &w, outputs, inputs).unwrap();
            for activation in [Activation::None, Activation::Gelu] {
                let mut best = f64::INFINITY;
                for _ in 0..40 {
                    let start = std::time::Instant::now();
                    linear_packed(&x, &packed, Some(&b), activation, &mut y).unwrap();
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let rate = 2e-9 * (rows * inputs * outputs) as f64 / best;
                let name = (precision.name(), activation.name());
                println!(
                    "{rows} x {inputs} x {outputs} {name:?}: {rate:.0} GFLOP/s, {:.0} us",
                    best * 1e6
                );
            }
        }
    }
}
