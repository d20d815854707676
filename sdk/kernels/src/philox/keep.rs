//! Dropout's decisions as bits, for attention's tiles: sixteen queries side by side, key after key.

use super::{Counter, Dropout, rounds};
use crate::gemm;
use crate::machine::simd::{Level, multiversion};

/// Queries whose decisions stand in one word.
pub(crate) const KEEP_LANES: usize = 16;

impl Dropout {
    /// Writes to bit `i` of `out[j]` whether element `start + i * stride + j` is kept, for `i` below [`KEEP_LANES`].
    /// Bits from `lanes` on are unspecified.
    ///
    /// # Panics
    /// If `stride` is no multiple of 4: the elements of a row must lie alike in their blocks.
    pub(crate) fn keep_bits(&self, start: u64, stride: u64, lanes: usize, out: &mut [u16]) {
        assert!(stride.is_multiple_of(4), "rows of decisions must begin alike in their blocks");
        let at = self.counter.skip(start);
        #[cfg(target_arch = "x86_64")]
        if gemm::level() == Level::Avx512 {
            // SAFETY: `level` found the instruction set on this processor.
            return unsafe {
                if lanes <= KEEP_LANES / 2 {
                    x86::keep::<true>(at, self.threshold, stride / 4, out);
                } else {
                    x86::keep::<false>(at, self.threshold, stride / 4, out);
                }
            };
        }
        let _ = lanes;
        keep_loops(at, self.threshold, stride / 4, out);
    }
}

/// Stores the decisions of the four words of block `block`, counted from that of the first element, which is word
/// `skip` of its block.
#[inline(always)]
fn store(bits: [u16; 4], block: usize, skip: usize, out: &mut [u16]) {
    let first = 4 * block;
    if first >= skip
        && let Some(place) = out.get_mut(first - skip..first - skip + 4)
    {
        place.copy_from_slice(&bits);
        return;
    }
    for (word, bits) in bits.into_iter().enumerate() {
        if let Some(place) = (first + word).checked_sub(skip).and_then(|j| out.get_mut(j)) {
            *place = bits;
        }
    }
}

multiversion! {
    /// `stride` in blocks.
    fn keep_loops(at: Counter, threshold: u32, stride: u64, out: &mut [u16]) {
        let skip = (at.offset % 4) as usize;
        let mut index = [0u64; KEEP_LANES];
        for (lane, index) in index.iter_mut().enumerate() {
            *index = (at.offset / 4).wrapping_add(lane as u64 * stride);
        }
        for block in 0..(skip + out.len()).div_ceil(4) {
            let counter = [
                index,
                index.map(|i| i >> 32),
                [at.stream; KEEP_LANES],
                [at.stream >> 32; KEEP_LANES],
            ];
            let words = rounds(counter, [at.seed as u32, (at.seed >> 32) as u32]);
            let mut bits = [0u16; 4];
            for (bits, words) in bits.iter_mut().zip(&words) {
                for (lane, &word) in words.iter().enumerate() {
                    *bits |= u16::from(word as u32 >= threshold) << lane;
                }
            }
            store(bits, block, skip, out);
            for index in &mut index {
                *index = index.wrapping_add(1);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::{MULTIPLIER_0, MULTIPLIER_1, round_keys};
    use super::{Counter, store};

    /// Of the queries 0, 2, 4 ... (the even ones) and 1, 3, 5 ... or, with `HALF`, of eight queries: `stride` in
    /// blocks.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn keep<const HALF: bool>(
        at: Counter,
        threshold: u32,
        stride: u64,
        out: &mut [u16],
    ) {
        let skip = (at.offset % 4) as usize;
        let keys = round_keys([at.seed as u32, (at.seed >> 32) as u32]);
        let lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let apart = _mm512_set1_epi64((if HALF { stride } else { stride.wrapping_mul(2) }) as i64);
        let mut even = _mm512_add_epi64(
            _mm512_set1_epi64((at.offset / 4) as i64),
            _mm512_mullo_epi64(lane, apart),
        );
        let stride = _mm512_set1_epi64(stride as i64);
        let stream = _mm512_set1_epi64(at.stream as i64);
        let stream = [stream, _mm512_srli_epi64::<32>(stream)];
        let limit = _mm512_set1_epi32(threshold as i32);
        for block in 0..(skip + out.len()).div_ceil(4) {
            let bits = if HALF {
                let [words] = rounds([even], stream, &keys);
                words.map(|word| {
                    let low = _mm512_cvtepi64_epi32(word);
                    u16::from(_mm256_cmpge_epu32_mask(low, _mm512_castsi512_si256(limit)))
                })
            } else {
                let [even, odd] = rounds([even, _mm512_add_epi64(even, stride)], stream, &keys);
                std::array::from_fn(|word| {
                    let both = _mm512_mask_shuffle_epi32::<0xa0>(even[word], 0xaaaa, odd[word]);
                    _mm512_cmpge_epu32_mask(both, limit)
                })
            };
            store(bits, block, skip, out);
            even = _mm512_add_epi64(even, _mm512_set1_epi64(1));
        }
    }

    /// The ten rounds on `N` vectors of eight counters, as in [`super::rounds`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rounds<const N: usize>(
        index: [__m512i; N],
        stream: [__m512i; 2],
        keys: &[[u32; 2]; 10],
    ) -> [[__m512i; 4]; N] {
        const XOR: i32 = 0x96;
        let (m0, m1) =
            (_mm512_set1_epi64(MULTIPLIER_0.into()), _mm512_set1_epi64(MULTIPLIER_1.into()));
        let mut c = index.map(|i| [i, _mm512_srli_epi64::<32>(i), stream[0], stream[1]]);
        for key in keys {
            let (key_0, key_1) =
                (_mm512_set1_epi64(key[0].into()), _mm512_set1_epi64(key[1].into()));
            for c in &mut c {
                let product_0 = _mm512_mul_epu32(c[0], m0);
                let product_1 = _mm512_mul_epu32(c[2], m1);
                let high_0 = _mm512_srli_epi64::<32>(product_0);
                let high_1 = _mm512_srli_epi64::<32>(product_1);
                *c = [
                    _mm512_ternarylogic_epi64::<XOR>(high_1, c[1], key_0),
                    product_1,
                    _mm512_ternarylogic_epi64::<XOR>(high_0, c[3], key_1),
                    product_0,
                ];
            }
        }
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_factors_decisions_at_every_place() {
        for (offset, stride) in [(0u64, 20u64), (3, 48), ((1 << 34) - 6, 132)] {
            let dropout =
                Dropout::new(0.3, Counter::new(0x1234_5678_9abc_def0, 77, offset)).unwrap();
            for (start, lanes, keys) in
                [(0u64, 16, 20), (5, 16, 13), (2, 8, 7), (7, 3, 1), (8, 1, 0), (1, 9, 64)]
            {
                let mut found = vec![0u16; keys];
                dropout.keep_bits(start, stride, lanes, &mut found);
                let mut loops = vec![0u16; keys];
                keep_loops(dropout.counter.skip(start), dropout.threshold, stride / 4, &mut loops);
                for i in 0..lanes {
                    let mut factors = vec![0f32; keys];
                    dropout.write_factors(start + i as u64 * stride, &mut factors);
                    for (j, &factor) in factors.iter().enumerate() {
                        let expected = factor != 0.0;
                        assert_eq!(found[j] >> i & 1 == 1, expected, "{offset} {start} {i} {j}");
                        assert_eq!(loops[j] >> i & 1 == 1, expected, "{offset} {start} {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "alike")]
    fn rows_that_begin_within_a_block_are_refused() {
        let dropout = Dropout::new(0.3, Counter::new(1, 2, 3)).unwrap();
        dropout.keep_bits(0, 6, 16, &mut [0; 4]);
    }
}
