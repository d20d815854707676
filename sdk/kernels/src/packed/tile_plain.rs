//! Micro-kernels as plain loops, for processors without the instructions of the others.

use super::quantize::bf16_value;
use super::tile::{Block, Output};
use super::{LayerPrecision, PANEL};
use crate::machine::simd::multiversion;

multiversion! {
    fn sums_f32(x: &[u32], panel: &[u32], sums: &mut [f32; PANEL]) {
        for (x, weights) in x.iter().zip(panel.as_chunks::<PANEL>().0) {
            let x = f32::from_bits(*x);
            for c in 0..PANEL {
                sums[c] += x * f32::from_bits(weights[c]);
            }
        }
    }

    fn sums_bf16(x: &[u32], panel: &[u32], sums: &mut [f32; PANEL]) {
        for (x, weights) in x.iter().zip(panel.as_chunks::<PANEL>().0) {
            let (low, high) = (bf16_value(*x as u16), bf16_value((*x >> 16) as u16));
            for c in 0..PANEL {
                let w = weights[c];
                sums[c] += low * bf16_value(w as u16);
                sums[c] += high * bf16_value((w >> 16) as u16);
            }
        }
    }

    fn sums_int8(x: &[u32], panel: &[u32], sums: &mut [i32; PANEL]) {
        for (x, weights) in x.iter().zip(panel.as_chunks::<PANEL>().0) {
            for byte in 0..4 {
                let x = (*x >> (8 * byte) & 0xff) as i32;
                for c in 0..PANEL {
                    sums[c] += x * i32::from((weights[c] >> (8 * byte)) as u8 as i8);
                }
            }
        }
    }
}

/// # Safety
/// As for [`super::tile::run`]; needs no instructions.
pub(super) unsafe fn tile(block: &Block<'_>, row: usize, height: usize, output: &Output<'_>) {
    let lines = output.weight.panel(output.panel);
    // SAFETY: a line is 16 u32 without padding.
    let panel = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), 16 * lines.len()) };
    for r in 0..height {
        let x = &block.groups[(row + r) * block.stride..][..block.stride];
        let mut sums = [0f32; PANEL];
        match output.weight.precision() {
            LayerPrecision::F32 => sums_f32(x, panel, &mut sums),
            LayerPrecision::Bf16 => sums_bf16(x, panel, &mut sums),
            LayerPrecision::Int8 => {
                let mut sums = [0i32; PANEL];
                sums_int8(x, panel, &mut sums);
                let (scale, zero) = (block.scales[row + r], block.zeros[row + r]);
                // SAFETY: the caller's promise.
                unsafe { output.store_int8(r, &sums, scale, zero) };
                continue;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { output.store(r, &sums) };
    }
}
