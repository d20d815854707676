//! Rounding to 8 and to 16 bits.

use crate::machine::simd::multiversion;

/// The bits of the bfloat16 nearest to `value` (ties to even); a NaN stays one.
#[inline(always)]
pub fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    // A quiet bit keeps the fraction of a NaN from being cut to nothing.
    if bits & 0x7fff_ffff > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// The value of a bfloat16.
#[inline(always)]
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Quantises the weights of one output: q = round(w / scale), scale = max |w| / 127. Returns the scale and the sum of
/// all q. Four successive q make a group, the first in the lowest byte.
pub(super) fn weight_row_int8(weights: &[f32], groups: &mut [u32]) -> (f32, i32) {
    let largest = weights.iter().fold(0f32, |most, w| most.max(w.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut sum = 0;
    for (group, part) in groups.iter_mut().zip(weights.chunks(4)) {
        *group = 0;
        for (byte, &w) in part.iter().enumerate() {
            // A scale so small that its inverse overflows belongs to weights that are as good as zero.
            let q = if inverse.is_finite() { (w * inverse).round_ties_even() as i32 } else { 0 };
            let q = q.clamp(-127, 127);
            sum += q;
            *group |= u32::from(q as i8 as u8) << (8 * byte);
        }
    }
    (scale, sum)
}

multiversion! {
    /// Smallest and largest of 0 and the values, and 0 if all are finite, else NaN.
    fn extent(x: &[f32]) -> (f32, f32, f32) {
        let (mut low, mut high, mut poison) = ([0f32; 32], [0f32; 32], [0f32; 32]);
        let (chunks, rest) = x.as_chunks::<32>();
        for chunk in chunks {
            for lane in 0..32 {
                let value = chunk[lane];
                low[lane] = if value < low[lane] { value } else { low[lane] };
                high[lane] = if value > high[lane] { value } else { high[lane] };
                poison[lane] += value * 0.0;
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            low[lane] = if value < low[lane] { value } else { low[lane] };
            high[lane] = if value > high[lane] { value } else { high[lane] };
            poison[lane] += value * 0.0;
        }
        let mut answer = (0f32, 0f32, 0f32);
        for lane in 0..32 {
            answer.0 = if low[lane] < answer.0 { low[lane] } else { answer.0 };
            answer.1 = if high[lane] > answer.1 { high[lane] } else { answer.1 };
            answer.2 += poison[lane];
        }
        answer
    }

    /// bytes = x * inverse + offset, cut off; all results lie within 0..256.
    fn to_bytes(x: &[f32], inverse: f32, offset: f32, bytes: &mut [u8]) {
        for (byte, &value) in bytes.iter_mut().zip(x) {
            let q = value * inverse + offset;
            // A NaN fails the comparison, so the conversion is always in range.
            let q = if q < 255.0 { q } else { 255.0 };
            let q = if q > 0.0 { q } else { 0.0 };
            // SAFETY: 0 <= q <= 255.
            *byte = unsafe { q.to_int_unchecked::<i32>() } as u8;
        }
    }

    fn to_bf16(x: &[f32], halves: &mut [u16]) {
        for (half, &value) in halves.iter_mut().zip(x) {
            *half = bf16_bits(value);
        }
    }
}

/// Quantises a row of activations: x = scale * (q - zero), q in 0..=255, such that 0 is exact. Returns scale and
/// zero. If a value is not finite, the scale is NaN, and so will be the whole row of the result.
pub(super) fn row_int8(x: &[f32], groups: &mut [u32]) -> (f32, u32) {
    let (low, high, poison) = extent(x);
    let scale = (high - low) / 255.0;
    let inverse = 1.0 / scale;
    if !(scale > 0.0 && inverse.is_finite() && poison == 0.0) {
        groups.fill(0);
        return (if poison == 0.0 { 0.0 } else { f32::NAN }, 0);
    }
    let zero = (-low * inverse + 0.5).floor();
    if let Some(last) = groups.last_mut() {
        *last = 0;
    }
    // SAFETY: bytes have no alignment and no invalid patterns, and the groups are exclusively borrowed.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(groups.as_mut_ptr().cast::<u8>(), 4 * groups.len())
    };
    to_bytes(x, inverse, zero + 0.5, bytes);
    (scale, zero as u32)
}

/// Rounds a row of activations to bfloat16, two to a group.
pub(super) fn row_bf16(x: &[f32], groups: &mut [u32]) {
    if let Some(last) = groups.last_mut() {
        *last = 0;
    }
    // SAFETY: 16-bit values need less alignment than groups and have no invalid patterns; the groups are exclusively
    // borrowed.
    let halves = unsafe {
        std::slice::from_raw_parts_mut(groups.as_mut_ptr().cast::<u16>(), 2 * groups.len())
    };
    to_bf16(x, halves);
}
