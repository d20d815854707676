//! The CUDA kernels without a card: their sources also compile for the host, where `cuda_emulator.hpp` runs their
//! threads as fibers.
//!
//! Two things are tested: the kernels against plain loops in double precision (`cuda_kernels.cpp`, `cuda_half.cpp`,
//! `cuda_attention.cpp`, `cuda_recurrent.cpp`), and their arithmetic against the CPU engine's. There random numbers
//! must agree to the last bit, elementary functions (CUDA's own on the card, the C library's here) to a few ulp.

use std::path::Path;
use std::process::Command;

use easytransfer_kernels::activation::{Activation, activation_backward, activation_forward};
use easytransfer_kernels::philox::{Counter, Dropout, fill_words};

/// False where the system moves addresses about so far that the AddressSanitizer of older compilers never starts.
fn sanitizers_start() -> bool {
    let bits = std::fs::read_to_string("/proc/sys/vm/mmap_rnd_bits").unwrap_or_default();
    bits.trim().parse::<u32>().is_ok_and(|bits| bits <= 28)
}

/// What `tests/NAME.cpp` prints, and whether it ended well; `None` without a C++ compiler.
fn run(name: &str) -> Option<(String, bool)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(format!("{name}.cpp"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let build = |more: &[&str]| {
        let mut command = Command::new(&compiler);
        command.args(["-std=c++17", "-O1", "-Wall", "-Wno-unknown-pragmas"]).args(more);
        command.args(["-x", "c++"]).arg(&source).arg("-o").arg(&program).output()
    };
    // A kernel that leaves an array ends the program, as under compute-sanitizer's memcheck.
    let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let output = match build(if sanitizers_start() { &sanitizers } else { &[] }) {
        Ok(output) if !output.status.success() => {
            println!("without sanitizers, which {compiler} may not have here");
            build(&[])
        }
        other => other,
    };
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("not run: {compiler}: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&program).env("ASAN_OPTIONS", "detect_leaks=0").output();
    let output = output.expect("it was just built");
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    Some((format!("{text}{errors}"), output.status.success()))
}

/// Equal up to `tolerance` times the larger one, or up to the smallest normal numbers.
fn assert_near(found: u32, expected: f32, tolerance: f32, what: &str) {
    let found = f32::from_bits(found);
    let bound = tolerance * found.abs().max(expected.abs()) + 1e-30;
    assert!((found - expected).abs() <= bound, "{what}: found {found}, expected {expected}");
}

#[test]
fn kernels_agree_with_plain_loops() {
    let Some((text, good)) = run("cuda_kernels") else { return };
    assert!(good && text.matches("ok    ").count() > 100, "{text}");
}

#[test]
fn kernels_of_narrow_values_agree_with_plain_loops() {
    let Some((text, good)) = run("cuda_half") else { return };
    assert!(good && text.matches("ok    ").count() > 200, "{text}");
}

#[test]
fn attention_agrees_with_plain_loops() {
    let Some((text, good)) = run("cuda_attention") else { return };
    assert!(good && text.matches("ok    ").count() > 70, "{text}");
}

#[test]
fn recurrent_layers_agree_with_plain_loops_and_their_slopes() {
    let Some((text, good)) = run("cuda_recurrent") else { return };
    assert!(good && text.matches("ok    ").count() == 10, "{text}");
}

/// Two runs give the same bytes because every sum has an order; an atomic addition has none.
#[test]
fn kernels_use_no_atomics() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut files = 0;
    for entry in std::fs::read_dir(kernels).expect("the kernels") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a kernel");
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            // PTX reduces with `red.`; `shared.` is a place.
            let reduces = code.replace("shared.", "").contains("red.");
            assert!(!code.contains("atomic") && !reduces, "{}: {line}", path.display());
        }
        files += 1;
    }
    assert!(files > 10);
}

#[test]
fn clipping_multiplies_what_is_above_the_limit_and_nothing_else() {
    let Some((text, good)) = run("cuda_clip") else { return };
    assert!(good && text.matches("ok    ").count() == 10, "{text}");
}

#[test]
fn kernels_compute_what_the_cpu_computes() {
    let Some((text, good)) = run("cuda_arithmetic") else { return };
    assert!(good, "{text}");
    let mut next = text.lines().map(|line| line.parse::<u32>().expect("a number"));
    let mut take = |what: &str| next.next().unwrap_or_else(|| panic!("{what}: nothing printed"));
    let (seed, stream) = (0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321);
    for offset in [0u64, 1, 2, 3, 4, 63, (1 << 34) - 2] {
        let mut words = [0u32; 12];
        fill_words(Counter::new(seed, stream, offset), &mut words);
        for (i, word) in words.into_iter().enumerate() {
            assert_eq!(take("words"), word, "offset {offset} word {i}");
        }
    }
    let mut factors = [0f32; 64];
    Dropout::new(0.1, Counter::new(7, 3, 10)).unwrap().write_factors(0, &mut factors);
    assert!(factors.contains(&0.0));
    for (i, factor) in factors.into_iter().enumerate() {
        assert_eq!(take("dropout"), factor.to_bits(), "factor {i}");
    }
    let all = [
        Activation::None,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Silu,
    ];
    for activation in all {
        for i in -160..=160 {
            let x = [0.05f32 * i as f32];
            let (mut y, mut dx) = ([0f32], [0f32]);
            activation_forward(activation, &x, &mut y).unwrap();
            activation_backward(activation, &x, &[1.0], &mut dx).unwrap();
            let what = format!("{} at {}", activation.name(), x[0]);
            // What is subtracted from 1 keeps the absolute, not the relative error of its parts.
            let found = f32::from_bits(take("value"));
            let bound = 2e-6 * y[0].abs() + f32::EPSILON * x[0].abs();
            assert!((found - y[0]).abs() <= bound, "{what}: found {found}, expected {}", y[0]);
            let (found, expected) = (f32::from_bits(take("derivative")), dx[0]);
            // The slope multiplies the absolute error of 1 - tanh^2 by x and by the inner slope.
            let bound = 1e-6 + f32::EPSILON * x[0] * x[0];
            assert!((found - expected).abs() <= bound, "slope of {what}: {found}, {expected}");
        }
    }
    let scores = (0..4).flat_map(|part| (0..9).map(move |i| (i * 37 + part * 11) % 23 - 11));
    let sum: f64 = scores.map(|score: i32| f64::from(score).exp()).sum();
    assert_near(take("softmax"), sum.ln() as f32, 1e-6, "log of the sum of exponentials");
    let (p, g) = (0.7f64, -0.3 * 0.5 + 0.01 * 0.7);
    let m = 0.1 + (g - 0.1) * 0.1;
    let v: f64 = 0.02 * 0.999 + g * g * 0.001;
    let p = p * 0.999 - 0.01 * (m / (v.sqrt() * 1.5 + 1e-8));
    for (expected, what) in [(p, "parameter"), (m, "first moment"), (v, "second moment")] {
        assert_near(take(what), expected as f32, 1e-6, what);
    }
    assert_eq!(next.next(), None, "more was printed than is compared");
}
