//! The innermost products: a tile of the result held in registers while k runs.
//!
//! A tile reads A through two strides, one broadcast element at a time, so A needs no packing where
//! its rows fit the first-level cache. B is read a row of up to [`Kernel::cols`] neighbours at a
//! time. Every element of the result is one sum over k in ascending order, whatever the tile's size,
//! so results depend neither on how a product is cut into tiles nor on the number of threads.
//!
//! Products in bfloat16 round while they pack. Where the processor multiplies pairs of bfloat16 (AVX512_BF16), a word
//! of packed lines is two steps of k, and a tile then takes both at once; elsewhere it is a rounded element.

use std::any::TypeId;

use crate::Float;
use crate::machine::simd::{self, Level};

/// C = alpha A B + beta C + bias for one tile.
#[derive(Clone, Copy)]
pub(super) struct Tile<F> {
    /// Length of the sums in words.
    pub k: usize,
    /// A's element (0, 0), the distance of its rows and that of its steps in k.
    pub a: *const F,
    pub a_row: usize,
    pub a_k: usize,
    /// B's element (0, 0) and the distance of its steps in k; columns are neighbours.
    pub b: *const F,
    pub b_k: usize,
    /// C's element (0, 0) and the distance of its rows; columns are neighbours.
    pub c: *mut F,
    pub c_row: usize,
    /// 1 to [`Kernel::rows`].
    pub rows: usize,
    /// 1 to [`Kernel::cols`]. Nothing beyond is read or written.
    pub cols: usize,
    pub alpha: F,
    /// With zero, C is not read.
    pub beta: F,
    /// One element per column, or null.
    pub bias: *const F,
}

/// What a word of packed lines holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// An element. Lines need not be packed.
    Elements,
    /// An element rounded to bfloat16.
    Rounded,
    /// Two steps of k as bfloat16, the first in the low half.
    Pairs,
}

impl Words {
    /// Steps of k in a word.
    pub(super) fn steps(self) -> usize {
        if self == Self::Pairs { 2 } else { 1 }
    }
}

/// The kernel of one instruction set and element type.
pub(super) struct Kernel<F> {
    /// Most rows of a tile.
    pub rows: usize,
    /// Most columns of a tile: the width of a packed panel of B.
    pub cols: usize,
    /// Distance between steps in k of packed A: at least `rows`.
    pub a_step: usize,
    /// True if panels may be packed with AVX-512.
    pub wide: bool,
    /// What it reads.
    pub words: Words,
    /// Computes a tile.
    ///
    /// # Safety
    /// The processor has the kernel's instruction set; all elements that the tile names can be read
    /// (A, B, bias) and written (C); C overlaps nothing.
    pub tile: unsafe fn(&Tile<F>),
}

#[cfg(test)]
thread_local! {
    /// The level that tests on this thread force.
    pub(crate) static FORCED: std::cell::Cell<Option<Level>> = const { std::cell::Cell::new(None) };
}

/// The level of this processor, or the one that a test forces.
pub(crate) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = FORCED.get() {
        return level.min(simd::level());
    }
    simd::level()
}

impl<F: Float> Kernel<F> {
    /// The best kernel of this processor.
    #[inline]
    pub(super) fn best() -> &'static Self {
        Self::best_for(false)
    }

    /// The best kernel of this processor; with `bf16`, one for operands of f32 that are rounded to bfloat16.
    #[inline]
    pub(super) fn best_for(bf16: bool) -> &'static Self {
        if TypeId::of::<F>() == TypeId::of::<f32>() {
            let found = if bf16 { rounding() } else { exact() };
            // SAFETY: `F` is `f32`, so both types are the same.
            return unsafe { &*std::ptr::from_ref(found).cast::<Self>() };
        }
        &Self::PORTABLE
    }

    const PORTABLE: Self = Self {
        rows: 4,
        cols: 8,
        a_step: 4,
        wide: false,
        words: Words::Elements,
        tile: portable_tile::<F>,
    };
}

#[inline]
fn exact() -> &'static Kernel<f32> {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &x86::AVX512,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &x86::AVX2,
        _ => &Kernel::<f32>::PORTABLE,
    }
}

fn rounding() -> &'static Kernel<f32> {
    const ROUNDED: Kernel<f32> = Kernel { words: Words::Rounded, ..Kernel::<f32>::PORTABLE };
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if x86::has_pairs() => &x86::AVX512_PAIRS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &x86::AVX512_ROUNDED,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &x86::AVX2_ROUNDED,
        _ => &ROUNDED,
    }
}

/// Plain loops that LLVM vectorises.
///
/// # Safety
/// As [`Kernel::tile`].
unsafe fn portable_tile<F: Float>(t: &Tile<F>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match t.rows {
            4 => portable_rows::<F, 4>(t),
            3 => portable_rows::<F, 3>(t),
            2 => portable_rows::<F, 2>(t),
            _ => portable_rows::<F, 1>(t),
        }
    }
}

/// # Safety
/// As [`Kernel::tile`], `t.rows` being `ROWS`.
#[inline(always)]
unsafe fn portable_rows<F: Float, const ROWS: usize>(t: &Tile<F>) {
    const COLS: usize = 8;
    let mut sums = [[F::ZERO; COLS]; ROWS];
    for p in 0..t.k {
        let mut b = [F::ZERO; COLS];
        // SAFETY: row `p` of B has `cols` elements that can be read.
        unsafe {
            let row = t.b.add(p * t.b_k);
            if t.cols == COLS {
                b = row.cast::<[F; COLS]>().read();
            } else {
                (0..t.cols).for_each(|j| b[j] = row.add(j).read());
            }
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: A has `rows` rows and `k` steps that can be read.
            let a = unsafe { t.a.add(i * t.a_row + p * t.a_k).read() };
            for j in 0..COLS {
                sums[j] += a * b[j];
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate().take(t.cols) {
            // SAFETY: C has `rows` rows of `cols` elements that can be read and written, and so many
            // elements has the bias if it is not null.
            unsafe {
                let place = t.c.add(i * t.c_row + j);
                let mut value = t.alpha * sum;
                if t.beta != F::ZERO {
                    value += t.beta * place.read();
                }
                if !t.bias.is_null() {
                    value += t.bias.add(j).read();
                }
                place.write(value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Kernel, Tile, Words};

    /// 14 x 32: 28 sums, two vectors of B and one broadcast element of A fill the 32 registers.
    pub(super) const AVX512: Kernel<f32> = Kernel {
        rows: 14,
        cols: 32,
        a_step: 16,
        wide: true,
        words: Words::Elements,
        tile: avx512_tile,
    };
    pub(super) const AVX512_ROUNDED: Kernel<f32> = Kernel { words: Words::Rounded, ..AVX512 };
    pub(super) const AVX512_PAIRS: Kernel<f32> =
        Kernel { words: Words::Pairs, tile: pairs_tile, ..AVX512 };
    /// 6 x 16: 12 sums, two vectors of B and one broadcast element of A of 16 registers.
    pub(super) const AVX2: Kernel<f32> = Kernel {
        rows: 6,
        cols: 16,
        a_step: 8,
        wide: false,
        words: Words::Elements,
        tile: avx2_tile,
    };
    pub(super) const AVX2_ROUNDED: Kernel<f32> = Kernel { words: Words::Rounded, ..AVX2 };

    /// Whether the processor multiplies pairs of bfloat16.
    pub(super) fn has_pairs() -> bool {
        std::is_x86_feature_detected!("avx512bf16")
    }

    /// Steps of k by which B is fetched ahead: rows of a B that is not packed lie on pages of their
    /// own, which the processor does not foresee.
    const AHEAD: usize = 12;

    /// Calls `$function::<rows, vectors>` with constants.
    macro_rules! by_rows {
        ($function:ident, $t:ident, $vectors:literal, $($rows:literal)+) => {
            match $t.rows {
                $($rows => $function::<$rows, $vectors>($t),)+
                _ => unreachable!("a tile has at most as many rows as the kernel says"),
            }
        };
    }

    /// Defines the kernel of a tile and those of its row counts. `$step` adds the product of two vectors of words to
    /// sums.
    macro_rules! wide_tile {
        ($tile:ident, $rows:ident, $features:literal, $step:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $tile(t: &Tile<f32>) {
            // SAFETY: the caller's promise is passed on.
            unsafe {
                if t.cols > 16 {
                    by_rows!($rows, t, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                } else {
                    by_rows!($rows, t, 1, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                }
            }
        }

        /// # Safety
        /// As [`Kernel::tile`], `t.rows` being `ROWS` and `t.cols` fitting `VECTORS`.
        #[allow(clippy::needless_range_loop, reason = "constant indices keep the sums in registers")]
        #[target_feature(enable = $features)]
        unsafe fn $rows<const ROWS: usize, const VECTORS: usize>(t: &Tile<f32>) {
            let mask: __mmask16 = 0xffff >> (16 * VECTORS - t.cols);
            let masks: [__mmask16; VECTORS] =
                std::array::from_fn(|v| if v + 1 == VECTORS { mask } else { 0xffff });
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            for i in 0..ROWS {
                // The tile of C is wanted when the sums are done.
                _mm_prefetch::<_MM_HINT_ET0>(t.c.wrapping_add(i * t.c_row).cast());
                _mm_prefetch::<_MM_HINT_ET0>(t.c.wrapping_add(i * t.c_row + t.cols - 1).cast());
            }
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.k {
                let mut row = [_mm512_setzero_ps(); VECTORS];
                for v in 0..VECTORS {
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * t.b_k + 16 * v).cast());
                    // SAFETY: row `p` of B has `cols` elements that can be read; the mask hides others.
                    row[v] = unsafe { _mm512_maskz_loadu_ps(masks[v], b.add(16 * v)) };
                }
                for i in 0..ROWS {
                    // SAFETY: A has `rows` rows and `k` steps that can be read.
                    let x = _mm512_set1_ps(unsafe { *a.add(i * t.a_row) });
                    for v in 0..VECTORS {
                        sums[i][v] = $step(sums[i][v], x, row[v]);
                    }
                }
                // Wrapping, because the last step leaves the matrices.
                a = a.wrapping_add(t.a_k);
                b = b.wrapping_add(t.b_k);
            }
            let (alpha, beta) = (_mm512_set1_ps(t.alpha), _mm512_set1_ps(t.beta));
            let mut bias = [_mm512_setzero_ps(); VECTORS];
            if !t.bias.is_null() {
                for v in 0..VECTORS {
                    // SAFETY: a bias that is not null has `cols` elements; the mask hides others.
                    bias[v] = unsafe { _mm512_maskz_loadu_ps(masks[v], t.bias.add(16 * v)) };
                }
            }
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    // SAFETY: C has `rows` rows of `cols` elements; the mask hides others.
                    unsafe {
                        let place = t.c.add(i * t.c_row + 16 * v);
                        let mut value = _mm512_mul_ps(alpha, sums[i][v]);
                        if t.beta != 0.0 {
                            let old = _mm512_maskz_loadu_ps(masks[v], place);
                            value = _mm512_fmadd_ps(beta, old, value);
                        }
                        if !t.bias.is_null() {
                            value = _mm512_add_ps(value, bias[v]);
                        }
                        _mm512_mask_storeu_ps(place, masks[v], value);
                    }
                }
            }
        }
        };
    }

    wide_tile!(avx512_tile, avx512_rows, "avx512f", |sum, x, row| _mm512_fmadd_ps(x, row, sum));
    wide_tile!(pairs_tile, pairs_rows, "avx512f,avx512bf16", |sum, x, row| {
        // SAFETY: these are names for the same 512 bits.
        let [x, row] = [x, row].map(|words| unsafe { transmute::<__m512, __m512bh>(words) });
        _mm512_dpbf16_ps(sum, x, row)
    });

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_tile(t: &Tile<f32>) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if t.cols > 8 {
                by_rows!(avx2_rows, t, 2, 1 2 3 4 5 6);
            } else {
                by_rows!(avx2_rows, t, 1, 1 2 3 4 5 6);
            }
        }
    }

    /// # Safety
    /// As [`Kernel::tile`], `t.rows` being `ROWS` and `t.cols` fitting `VECTORS`.
    #[allow(clippy::needless_range_loop, reason = "constant indices keep the sums in registers")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_rows<const ROWS: usize, const VECTORS: usize>(t: &Tile<f32>) {
        let last = (t.cols - 8 * (VECTORS - 1)) as i32;
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lanes);
        let masks: [__m256i; VECTORS] =
            std::array::from_fn(|v| if v + 1 == VECTORS { mask } else { _mm256_set1_epi32(-1) });
        let whole = last == 8;
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.k {
            let mut row = [_mm256_setzero_ps(); VECTORS];
            for v in 0..VECTORS {
                // SAFETY: row `p` of B has `cols` elements that can be read; the mask hides others.
                row[v] = unsafe {
                    if whole || v + 1 < VECTORS {
                        _mm256_loadu_ps(b.add(8 * v))
                    } else {
                        _mm256_maskload_ps(b.add(8 * v), masks[v])
                    }
                };
            }
            for i in 0..ROWS {
                // SAFETY: A has `rows` rows and `k` steps that can be read.
                let x = _mm256_set1_ps(unsafe { *a.add(i * t.a_row) });
                for v in 0..VECTORS {
                    sums[i][v] = _mm256_fmadd_ps(x, row[v], sums[i][v]);
                }
            }
            // Wrapping, because the last step leaves the matrices.
            a = a.wrapping_add(t.a_k);
            b = b.wrapping_add(t.b_k);
        }
        let (alpha, beta) = (_mm256_set1_ps(t.alpha), _mm256_set1_ps(t.beta));
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // SAFETY: C has `rows` rows of `cols` elements and so many has a bias that is not
                // null; the mask hides others.
                unsafe {
                    let place = t.c.add(i * t.c_row + 8 * v);
                    let mut value = _mm256_mul_ps(alpha, sums[i][v]);
                    if t.beta != 0.0 {
                        let old = _mm256_maskload_ps(place, masks[v]);
                        value = _mm256_fmadd_ps(beta, old, value);
                    }
                    if !t.bias.is_null() {
                        value =
                            _mm256_add_ps(value, _mm256_maskload_ps(t.bias.add(8 * v), masks[v]));
                    }
                    _mm256_maskstore_ps(place, masks[v], value);
                }
            }
        }
    }
}
