//! Micro-kernels for AVX-512, and the choice among all of them.

use super::{Instructions, LayerPrecision, PANEL, PackedWeight};
use crate::runs::SharedRows;

/// Rows of x as groups.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// [rows, stride]
    pub(super) groups: &'a [u32],
    /// Groups of a row.
    pub(super) stride: usize,
    /// int8: the scale of each row.
    pub(super) scales: &'a [f32],
    /// int8: the zero point of each row.
    pub(super) zeros: &'a [u32],
}

/// Where a tile goes.
pub(super) struct Output<'a> {
    pub(super) weight: &'a PackedWeight,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) panel: usize,
    pub(super) y: &'a SharedRows<'a, f32>,
    /// Row of y that belongs to the first row of the tile.
    pub(super) row: usize,
}

impl Output<'_> {
    /// First output of the panel and how many there are.
    pub(super) fn columns(&self) -> (usize, usize) {
        let first = self.panel * PANEL;
        (first, (self.weight.outputs() - first).min(PANEL))
    }

    /// Adds the bias to finished sums of one row and stores them.
    ///
    /// # Safety
    /// Nobody else writes this panel of this row.
    pub(super) unsafe fn store(&self, row: usize, sums: &[f32; PANEL]) {
        let (first, len) = self.columns();
        // SAFETY: the caller's promise.
        let y = unsafe { self.y.segment(self.row + row, first..first + len) };
        match self.bias {
            Some(bias) => {
                for ((y, sum), bias) in y.iter_mut().zip(sums).zip(&bias[first..first + len]) {
                    *y = sum + bias;
                }
            }
            None => y.copy_from_slice(&sums[..len]),
        }
    }

    /// Scales exact sums of one int8 row and stores them. All paths end here or compute the same.
    ///
    /// # Safety
    /// As for [`Self::store`].
    pub(super) unsafe fn store_int8(&self, row: usize, sums: &[i32; PANEL], scale: f32, zero: u32) {
        let (scales, columns) = self.weight.corrections(self.panel);
        let mut scaled = [0f32; PANEL];
        for c in 0..PANEL {
            scaled[c] = (sums[c] - zero as i32 * columns[c]) as f32 * (scale * scales[c]);
        }
        // SAFETY: the caller's promise.
        unsafe { self.store(row, &scaled) }
    }
}

/// Heights of tiles.
pub(super) struct Rows8;

impl Rows8 {
    /// Rows of the next tile when `left` are left: 8, but even halves of what is too much for one and too little for
    /// two.
    pub(super) fn height(left: usize) -> usize {
        match left {
            0..=8 => left,
            9..16 => left.div_ceil(2),
            _ => 8,
        }
    }
}

/// Computes rows `row..row + height` of `block`, at most 8, by one panel, and stores them.
///
/// # Safety
/// The processor has the instructions; the block has these rows with as many groups as the weight; nobody else writes
/// to this panel of these rows of y.
pub(super) unsafe fn run(
    instructions: Instructions,
    block: &Block<'_>,
    row: usize,
    height: usize,
    output: &Output<'_>,
) {
    macro_rules! by_height {
        ($($path:tt)*) => {
            match height {
                1 => $($path)*::<1>(block, row, output),
                2 => $($path)*::<2>(block, row, output),
                3 => $($path)*::<3>(block, row, output),
                4 => $($path)*::<4>(block, row, output),
                5 => $($path)*::<5>(block, row, output),
                6 => $($path)*::<6>(block, row, output),
                7 => $($path)*::<7>(block, row, output),
                _ => $($path)*::<8>(block, row, output),
            }
        };
    }
    debug_assert!(height <= 8 && block.groups.len() >= (row + height) * block.stride);
    // SAFETY: the caller's promise.
    unsafe {
        match (instructions, output.weight.precision()) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, LayerPrecision::F32) => by_height!(avx512::f32_tile),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, LayerPrecision::Bf16) => by_height!(avx512::bf16_tile),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, LayerPrecision::Int8) => by_height!(avx512::int8_tile),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, LayerPrecision::Int8) => {
                super::tile_int8_avx2::tile(block, row, height, output);
            }
            _ => super::tile_plain::tile(block, row, height, output),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Block, Output, PANEL};

    /// Groups that are fetched ahead of their use. A short text reads its weights from memory, which takes as long as
    /// dozens of groups.
    const AHEAD: usize = 48;

    /// Lanes of each of the three vectors of a panel that are there.
    fn masks(len: usize) -> [__mmask16; 3] {
        let all = (1u64 << len) - 1;
        [all as u16, (all >> 16) as u16, (all >> 32) as u16]
    }

    /// Defines a kernel: R rows by 48 outputs, all sums in registers.
    macro_rules! tile {
        (
            $name:ident, $features:literal, $sum:ty, $zero:ident, $weights:expr, $activation:expr, $step:expr, $finish:ident
        ) => {
            /// # Safety
            /// As for [`super::run`], with the features of its attribute.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<const R: usize>(
                block: &Block<'_>,
                row: usize,
                output: &Output<'_>,
            ) {
                // SAFETY: the block has R rows from `row` on with `stride` groups each, and a panel as many groups of
                // 48; the panel's lines are aligned to 64 bytes. A prefetch may name any address.
                unsafe {
                    let panel = output.weight.panel(output.panel).as_ptr().cast::<u32>();
                    let groups = block.stride;
                    let x = block.groups.as_ptr().add(row * groups);
                    let mut sums: [[$sum; 3]; R] = [[$zero(); 3]; R];
                    for group in 0..groups {
                        let weights = panel.add(group * PANEL);
                        for line in 0..3 {
                            let ahead = weights.wrapping_add(AHEAD * PANEL + 16 * line);
                            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        }
                        let weights = [
                            $weights(weights),
                            $weights(weights.add(16)),
                            $weights(weights.add(32)),
                        ];
                        for r in 0..R {
                            let x = $activation(x.add(r * groups + group));
                            for c in 0..3 {
                                sums[r][c] = $step(sums[r][c], x, weights[c]);
                            }
                        }
                    }
                    $finish(sums, block, row, output);
                }
            }
        };
    }

    tile!(
        f32_tile,
        "avx512f",
        __m512,
        _mm512_setzero_ps,
        |p: *const u32| _mm512_load_ps(p.cast()),
        |p: *const u32| _mm512_set1_ps(f32::from_bits(*p)),
        |sum, x, w| _mm512_fmadd_ps(x, w, sum),
        finish_f32
    );
    tile!(
        bf16_tile,
        "avx512f,avx512bf16",
        __m512,
        _mm512_setzero_ps,
        |p: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(p.cast())),
        |p: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*p as i32)),
        |sum, x, w| _mm512_dpbf16_ps(sum, x, w),
        finish_f32
    );
    tile!(
        int8_tile,
        "avx512f,avx512vnni",
        __m512i,
        _mm512_setzero_si512,
        |p: *const u32| _mm512_load_si512(p.cast()),
        |p: *const u32| _mm512_set1_epi32(*p as i32),
        |sum, x, w| _mm512_dpbusd_epi32(sum, x, w),
        finish_int8
    );

    /// # Safety
    /// As for [`super::run`].
    #[target_feature(enable = "avx512f")]
    unsafe fn finish_f32<const R: usize>(
        sums: [[__m512; 3]; R],
        _block: &Block<'_>,
        _row: usize,
        output: &Output<'_>,
    ) {
        let (first, len) = output.columns();
        let masks = masks(len);
        // SAFETY: masked loads and stores touch only the `len` outputs that the panel has.
        unsafe {
            let mut bias = [_mm512_setzero_ps(); 3];
            if let Some(values) = output.bias {
                for c in 0..3 {
                    let from = values.as_ptr().wrapping_add(first + 16 * c);
                    bias[c] = _mm512_maskz_loadu_ps(masks[c], from);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let y = output.y.segment(output.row + r, first..first + len).as_mut_ptr();
                for c in 0..3 {
                    let sum = _mm512_add_ps(sums[c], bias[c]);
                    _mm512_mask_storeu_ps(y.wrapping_add(16 * c), masks[c], sum);
                }
            }
        }
    }

    /// # Safety
    /// As for [`super::run`].
    #[target_feature(enable = "avx512f")]
    unsafe fn finish_int8<const R: usize>(
        sums: [[__m512i; 3]; R],
        block: &Block<'_>,
        row: usize,
        output: &Output<'_>,
    ) {
        let (scales, columns) = output.weight.corrections(output.panel);
        let mut scaled = [[_mm512_setzero_ps(); 3]; R];
        for r in 0..R {
            let zero = _mm512_set1_epi32(block.zeros[row + r] as i32);
            let scale = _mm512_set1_ps(block.scales[row + r]);
            for c in 0..3 {
                // SAFETY: both slices have 48 values.
                let (column, weight) = unsafe {
                    (
                        _mm512_loadu_si512(columns.as_ptr().add(16 * c).cast()),
                        _mm512_loadu_ps(scales.as_ptr().add(16 * c)),
                    )
                };
                let exact = _mm512_sub_epi32(sums[r][c], _mm512_mullo_epi32(zero, column));
                scaled[r][c] =
                    _mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_mul_ps(scale, weight));
            }
        }
        // SAFETY: the caller's promise.
        unsafe { finish_f32(scaled, block, row, output) }
    }
}
