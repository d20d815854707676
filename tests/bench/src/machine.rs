//! What the machine can do, measured: the most multiplications and additions, and the memory's bandwidth.

use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use crate::median;

/// Threads that the measurements use: those that the engine would.
pub fn threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    asked
        .filter(|&n| n > 0)
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Seconds of the slowest of some threads that begin together.
fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let times: Vec<f64> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(index);
                    start.elapsed().as_secs_f64()
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    times.into_iter().fold(0.0, f64::max)
}

/// The most single precision operations per second on so many threads, in GFLOP/s: fused multiply-adds on registers,
/// with the widest vectors that the processor has; `None` for processors without AVX2.
pub fn peak_gflops(threads: usize) -> Option<f64> {
    const ROUNDS: usize = 4_000_000;
    let (kernel, lanes) = widest()?;
    let rates: Vec<f64> = (0..5)
        .map(|_| {
            let seconds = together(threads, |_| {
                // SAFETY: `widest` chose a kernel for the features that this processor has.
                black_box(unsafe { kernel(ROUNDS, black_box(1.0)) });
            });
            // Ten chains, a multiplication and an addition per lane.
            (threads * ROUNDS * 10 * lanes * 2) as f64 / seconds / 1e9
        })
        .collect();
    Some(median(rates))
}

type Kernel = unsafe fn(usize, f32) -> f32;

#[cfg(target_arch = "x86_64")]
fn widest() -> Option<(Kernel, usize)> {
    if is_x86_feature_detected!("avx512f") {
        Some((fma_512 as Kernel, 16))
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Some((fma_256 as Kernel, 8))
    } else {
        None
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn widest() -> Option<(Kernel, usize)> {
    None
}

/// Ten independent chains of fused multiply-adds: more than latency times width of any processor of this kind.
///
/// # Safety
/// The processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn fma_512(rounds: usize, x: f32) -> f32 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(0.999 * x), _mm512_set1_ps(0.001));
    let mut sums = [_mm512_set1_ps(x); 10];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
}

/// As [`fma_512`].
///
/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn fma_256(rounds: usize, x: f32) -> f32 {
    use std::arch::x86_64::{_mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(0.999 * x), _mm256_set1_ps(0.001));
    let mut sums = [_mm256_set1_ps(x); 10];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
}

/// Bytes per second that so many threads move between memory and processor, in GB/s: the better of `a[i] = s a[i]` (a
/// read and a write) and `a[i] = b[i] + s c[i]` (two reads and a write) over arrays that no cache holds.
pub fn memory_gbps(threads: usize) -> f64 {
    const LEN: usize = 1 << 24;
    let array = || vec![1.0f32; LEN];
    let arrays: Vec<Mutex<[Vec<f32>; 3]>> =
        (0..threads).map(|_| Mutex::new([array(), array(), array()])).collect();
    let rate = |values: usize, pass: fn(&mut [Vec<f32>; 3])| {
        let rates: Vec<f64> = (0..5)
            .map(|_| {
                let seconds = together(threads, |index| {
                    pass(black_box(&mut *arrays[index].lock().expect("no panic")));
                });
                (threads * LEN * values * 4) as f64 / seconds / 1e9
            })
            .collect();
        median(rates)
    };
    let scale = rate(2, |[a, _, _]| a.iter_mut().for_each(|a| *a *= 0.999));
    let triad = rate(3, |[a, b, c]| {
        for ((a, b), c) in a.iter_mut().zip(&*b).zip(&*c) {
            *a = b + 0.5 * c;
        }
    });
    scale.max(triad)
}
