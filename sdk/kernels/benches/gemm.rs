//! `cargo bench -p easytransfer-kernels --bench gemm -- [--threads N] [--rows M,M,…] [--only KxN|attention]
//! [--precision f32|bf16]`: GFLOP/s of matrix products on BERT's shapes, one line per shape, in the columns that
//! `peer_gemm.py` prints for PyTorch. `peer_gemm.py --engine BINARY` runs both and prints ratios; the binary is the
//! one that `cargo bench … --no-run` names.

use std::time::Instant;

use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::gemm::{
    Epilogue, Matrices, Matrix, MatrixMut, gemm, gemm_batch, gemm_fused,
};

/// Inputs and outputs of BERT's linear layers: mini, MiniLM and base.
const LAYERS: [[usize; 2]; 9] = [
    [256, 256],
    [256, 1024],
    [1024, 256],
    [384, 384],
    [384, 1536],
    [1536, 384],
    [768, 768],
    [768, 3072],
    [3072, 768],
];
/// Attention's products: count, m, k, n.
const ATTENTION: [[usize; 4]; 5] = [
    [384, 128, 32, 128],
    [384, 128, 64, 128],
    [384, 128, 128, 64],
    [384, 20, 32, 20],
    [384, 20, 20, 32],
];

/// Values in [-0.5, 0.5).
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// GFLOP/s at the lower quartile of the times of some calls.
fn rate(flop: usize, mut f: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    let once = time();
    let mut all: Vec<f64> = (0..((0.03 / once) as usize).clamp(3, 2000)).map(|_| time()).collect();
    all.sort_by(f64::total_cmp);
    1e-9 * flop as f64 / all[all.len() / 4]
}

fn layer(m: usize, [k, n]: [usize; 2], bf16: bool) {
    let (x, w, dy) = (values(m * k), values(n * k), values(m * n));
    let bias = values(n);
    let (mut y, mut dx, mut dw) = (vec![0f32; m * n], vec![0f32; m * k], vec![0f32; n * k]);
    let x = Matrix::new(&x, m, k).expect("x").in_bf16(bf16);
    let w = Matrix::new(&w, n, k).expect("w").in_bf16(bf16);
    let dy = Matrix::new(&dy, m, n).expect("dy").in_bf16(bf16);
    let flop = 2 * m * k * n;
    let epilogue = |activation| Epilogue { bias: Some(&bias), activation, keep: None };
    let mut forward = |f: &dyn Fn(&mut MatrixMut<'_, f32>)| {
        rate(flop, || f(&mut MatrixMut::new(&mut y, m, n).expect("y")))
    };
    let plain = forward(&|y| gemm(1.0, x, w.t(), 0.0, y).expect("shapes"));
    let gelu =
        forward(&|y| gemm_fused(x, w.t(), 0.0, y, epilogue(Activation::Gelu)).expect("shapes"));
    let bias_alone =
        forward(&|y| gemm_fused(x, w.t(), 0.0, y, epilogue(Activation::None)).expect("shapes"));
    let back_x = rate(flop, || {
        gemm(1.0, dy, w, 0.0, &mut MatrixMut::new(&mut dx, m, k).expect("dx")).expect("shapes");
    });
    let back_w = rate(flop, || {
        gemm(1.0, dy.t(), x, 0.0, &mut MatrixMut::new(&mut dw, n, k).expect("dw")).expect("shapes");
    });
    println!(
        "{m}x{k}x{n} y {plain:.0} dx {back_x:.0} dw {back_w:.0} y+gelu {gelu:.0} y+bias {bias_alone:.0}"
    );
}

fn attention([count, m, k, n]: [usize; 4]) {
    let (a, b) = (values(count * m * k), values(count * k * n));
    let mut c = vec![0f32; count * m * n];
    let starts = |len: usize| (0..count).map(|i| i * len).collect::<Vec<_>>();
    let (of_a, of_b) = (starts(m * k), starts(k * n));
    let left = Matrices { data: &a, starts: &of_a, shape: [m, k], strides: [k, 1] };
    let mut with = |strides| {
        let right = Matrices { data: &b, starts: &of_b, shape: [k, n], strides };
        rate(2 * count * m * k * n, || gemm_batch(left, right, &mut c).expect("shapes"))
    };
    let (plain, turned) = (with([n, 1]), with([1, k]));
    println!("{count}x{m}x{k}x{n} nn {plain:.0} nt {turned:.0}");
}

fn main() {
    let mut rows = vec![13, 32, 64, 128, 416, 1024, 4096];
    let mut only = String::new();
    let mut bf16 = false;
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match name.as_str() {
            // SAFETY: there is one thread so far.
            "--threads" => unsafe { std::env::set_var("RAYON_NUM_THREADS", &value) },
            "--rows" => rows = value.split(',').filter_map(|m| m.parse().ok()).collect(),
            "--only" => only = value,
            "--precision" => bf16 = value == "bf16",
            other => {
                eprintln!(
                    "{other}: expected --threads N, --rows M,M,…, --only KxN|attention or --precision f32|bf16"
                );
                std::process::exit(2);
            }
        }
    }
    let wanted = |name: &str| only.is_empty() || only == name;
    for sizes in LAYERS.into_iter().filter(|[k, n]| wanted(&format!("{k}x{n}"))) {
        for &m in &rows {
            layer(m, sizes, bf16);
        }
    }
    if wanted("attention") {
        ATTENTION.into_iter().for_each(attention);
    }
}
