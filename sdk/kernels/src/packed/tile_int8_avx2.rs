//! The int8 micro-kernel for AVX2. Its instruction for bytes (`vpmaddubsw`) saturates, so bytes are widened to 16
//! bits first, whose products and sums are exact.
#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use super::PANEL;
use super::tile::{Block, Output};

/// Rows whose sums fit the registers, for 8 outputs at a time.
const ROWS: usize = 4;

/// # Safety
/// As for [`super::tile::run`], with AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tile(block: &Block<'_>, row: usize, height: usize, output: &Output<'_>) {
    for first in (0..height).step_by(ROWS) {
        // SAFETY: the caller's promise.
        unsafe {
            match (height - first).min(ROWS) {
                1 => rows::<1>(block, row, first, output),
                2 => rows::<2>(block, row, first, output),
                3 => rows::<3>(block, row, first, output),
                _ => rows::<ROWS>(block, row, first, output),
            }
        }
    }
}

/// # Safety
/// As for [`tile`].
#[target_feature(enable = "avx2")]
unsafe fn rows<const R: usize>(block: &Block<'_>, row: usize, first: usize, output: &Output<'_>) {
    let groups = block.stride;
    let mut sums = [[0i32; PANEL]; R];
    for column in (0..PANEL).step_by(8) {
        // SAFETY: the block has R rows from `row + first` on with `groups` groups each, and a panel as many groups of
        // 48.
        let exact = unsafe {
            let panel = output.weight.panel(output.panel).as_ptr().cast::<u32>().add(column);
            let x = block.groups.as_ptr().add((row + first) * groups);
            products::<R>(x, panel, groups)
        };
        for r in 0..R {
            sums[r][column..column + 8].copy_from_slice(&exact[r]);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let at = row + first + r;
        // SAFETY: the caller's promise.
        unsafe { output.store_int8(first + r, sums, block.scales[at], block.zeros[at]) };
    }
}

/// Sums of R rows for 8 outputs.
///
/// # Safety
/// `x` has R rows of `groups` groups, `panel` `groups` rows of at least 8 groups, 48 apart; the processor has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn products<const R: usize>(
    x: *const u32,
    panel: *const u32,
    groups: usize,
) -> [[i32; 8]; R] {
    // Of each output two sums lie side by side: bytes 0 and 1 of its groups, bytes 2 and 3.
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for group in 0..groups {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe {
            let weights = panel.add(group * PANEL).cast::<__m128i>();
            (_mm_loadu_si128(weights), _mm_loadu_si128(weights.add(1)))
        };
        let weights = [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)];
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = unsafe { *x.add(r * groups + group) };
            let x = _mm256_cvtepu8_epi16(_mm_set1_epi32(x as i32));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, weights));
            }
        }
    }
    let mut exact = [[0i32; 8]; R];
    for (exact, sums) in exact.iter_mut().zip(sums) {
        for (exact, sum) in exact.chunks_exact_mut(4).zip(sums) {
            let mut lanes = [0i32; 8];
            // SAFETY: `lanes` has 32 bytes.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
            for (exact, pair) in exact.iter_mut().zip(lanes.chunks_exact(2)) {
                *exact = pair[0] + pair[1];
            }
        }
    }
    exact
}
