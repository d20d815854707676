//! Packing: lines of a matrix (columns of B, rows of A) side by side in panels, so that one step in
//! k reads neighbours.

use crate::Float;
use crate::packed::{bf16_bits, bf16_value};

use super::micro::{Kernel, Words};

/// Elements by which a buffer must be longer than what is packed into it, so that [`align`] can move
/// its start.
pub(crate) const ALIGN_SLACK: usize = 16;

/// The part of `buffer` that starts at a cache line.
pub(crate) fn align<F: Float>(buffer: &mut [F]) -> &mut [F] {
    let skip = buffer.as_ptr().align_offset(64).min(buffer.len());
    &mut buffer[skip..]
}

/// Asks for a cache line that will be read soon: what lies behind the end of a matrix does no harm.
#[inline(always)]
fn prefetch<F>(place: *const F) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    let _ = place;
}

/// Lines to pack: element (line, p) is at `data + line * line_stride + p * k_stride`.
#[derive(Clone, Copy)]
pub(super) struct Lines<F> {
    pub data: *const F,
    pub line_stride: usize,
    pub k_stride: usize,
}

impl<F: Float> Lines<F> {
    /// The same lines from `line` and step `p` on.
    pub(super) fn from(self, line: usize, p: usize) -> Self {
        let data = self.data.wrapping_add(line * self.line_stride + p * self.k_stride);
        Self { data, ..self }
    }

    /// out[p * width + line] = word (line, p) for `lines` lines, at most `width`, and `k` steps; for lines up to
    /// `width` that there are not, zero or what stood there, which no product reads. A word is what the kernel says.
    ///
    /// # Safety
    /// The lines' elements can be read, `k * width` elements (half of them, rounded up to whole words, for pairs) can
    /// be written at `out`, and they do not overlap.
    pub(super) unsafe fn pack(
        self,
        kernel: &Kernel<F>,
        lines: usize,
        k: usize,
        width: usize,
        out: *mut F,
    ) {
        // SAFETY: the caller's promise. Only kernels of `f32` have other words than elements.
        unsafe {
            match kernel.words {
                Words::Elements => self.pack_elements(kernel, lines, k, width, out),
                Words::Rounded => {
                    self.pack_elements(kernel, lines, k, width, out);
                    for at in 0..k * width {
                        let place = out.cast::<f32>().add(at);
                        place.write(bf16_value(bf16_bits(place.read())));
                    }
                }
                Words::Pairs => self.pack_pairs(lines, k, width, out),
            }
        }
    }

    /// # Safety
    /// As [`Self::pack`] for pairs: `F` is `f32`, and the processor has AVX512_BF16.
    unsafe fn pack_pairs(self, lines: usize, k: usize, width: usize, out: *mut F) {
        let (data, out) = (self.data.cast::<f32>(), out.cast::<f32>());
        for first in (0..lines).step_by(16) {
            let count = (lines - first).min(16);
            let source = data.wrapping_add(first * self.line_stride);
            // SAFETY: the caller's promise, for some of the lines.
            unsafe {
                let out = out.add(first);
                #[cfg(target_arch = "x86_64")]
                match (self.line_stride, self.k_stride) {
                    (1, stride) => avx512::pairs_of_steps(source, stride, count, k, out, width),
                    (stride, 1) => avx512::pairs_of_lines(source, stride, count, k, out, width),
                    strides => pairs(source, strides, count, k, out, width),
                }
                #[cfg(not(target_arch = "x86_64"))]
                pairs(source, (self.line_stride, self.k_stride), count, k, out, width);
            }
        }
    }

    /// # Safety
    /// As [`Self::pack`] for elements.
    unsafe fn pack_elements(
        self,
        kernel: &Kernel<F>,
        lines: usize,
        k: usize,
        width: usize,
        out: *mut F,
    ) {
        // SAFETY: the caller's promise; the elements of line and step lie within it.
        unsafe {
            if self.line_stride == 1 {
                match (lines == width, width) {
                    (true, 32) => self.pack_rows::<32>(k, out),
                    (true, 16) => self.pack_rows::<16>(k, out),
                    (true, 8) => self.pack_rows::<8>(k, out),
                    (true, 4) => self.pack_rows::<4>(k, out),
                    _ => self.pack_part(lines, k, width, out),
                }
                return;
            }
            #[cfg(target_arch = "x86_64")]
            if self.k_stride == 1 && kernel.wide && width.is_multiple_of(16) {
                // Only kernels of `f32` are wide.
                let data = self.data.cast::<f32>();
                // Products read as many vectors of a step as their lines fill.
                for first in (0..lines).step_by(16) {
                    let lines = (lines - first).min(16);
                    let source = data.wrapping_add(first * self.line_stride);
                    let out = out.cast::<f32>().add(first);
                    avx512::transpose(source, self.line_stride, lines, k, out, width);
                }
                return;
            }
            let _ = kernel;
            self.pack_any(lines, k, width, out);
        }
    }

    /// # Safety
    /// As [`Self::pack`], with `line_stride` 1 and `WIDTH` lines.
    unsafe fn pack_rows<const WIDTH: usize>(self, k: usize, out: *mut F) {
        for p in 0..k {
            prefetch(self.data.wrapping_add((p + 16) * self.k_stride));
            prefetch(self.data.wrapping_add((p + 16) * self.k_stride + WIDTH - 1));
            // SAFETY: a step has `WIDTH` neighbours that can be read, and `k` times `WIDTH` elements
            // can be written.
            unsafe {
                let row = self.data.add(p * self.k_stride).cast::<[F; WIDTH]>().read();
                out.add(p * WIDTH).cast::<[F; WIDTH]>().write(row);
            }
        }
    }

    /// # Safety
    /// As [`Self::pack`], with `line_stride` 1.
    unsafe fn pack_part(self, lines: usize, k: usize, width: usize, out: *mut F) {
        for p in 0..k {
            // SAFETY: a step has `lines` neighbours that can be read, and `k * width` elements can be
            // written.
            unsafe {
                let (row, out) = (self.data.add(p * self.k_stride), out.add(p * width));
                for line in 0..lines {
                    out.add(line).write(row.add(line).read());
                }
                for line in lines..width {
                    out.add(line).write(F::ZERO);
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::pack`].
    unsafe fn pack_any(self, lines: usize, k: usize, width: usize, out: *mut F) {
        // Steps that are handled line by line before the next, so that both sides stay in cache.
        const STEPS: usize = 16;
        for first in (0..k).step_by(STEPS) {
            for line in 0..width {
                for p in first..k.min(first + STEPS) {
                    // SAFETY: line and step exist, and `k * width` elements can be written.
                    unsafe {
                        let value = if line < lines {
                            self.data.add(line * self.line_stride + p * self.k_stride).read()
                        } else {
                            F::ZERO
                        };
                        out.add(p * width + line).write(value);
                    }
                }
            }
        }
    }
}

/// Pairs of steps of lines of any strides.
///
/// # Safety
/// `lines` lines of `k` elements with the strides of [line, step] can be read and as many words written at each pair
/// of steps.
unsafe fn pairs(
    source: *const f32,
    (line_stride, k_stride): (usize, usize),
    lines: usize,
    k: usize,
    out: *mut f32,
    width: usize,
) {
    for line in 0..lines {
        let half = |p: usize| {
            if p == k {
                return 0;
            }
            // SAFETY: line and step exist.
            u32::from(bf16_bits(unsafe { *source.add(line * line_stride + p * k_stride) }))
        };
        for p in (0..k).step_by(2) {
            let word = f32::from_bits(half(p) | half(p + 1) << 16);
            // SAFETY: the word of this line and pair of steps can be written.
            unsafe { out.add(p / 2 * width + line).write(word) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    /// out[p * width + line] = source[line * stride + p] for p below `k` and 16 lines, of which
    /// those from `lines` on are zero.
    ///
    /// # Safety
    /// The processor has AVX-512 F; `lines` lines of `k` elements can be read and 16 elements
    /// written at every step.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose(
        source: *const f32,
        stride: usize,
        lines: usize,
        k: usize,
        out: *mut f32,
        width: usize,
    ) {
        for first in (0..k).step_by(16) {
            let steps = (k - first).min(16);
            let mask: __mmask16 = 0xffff >> (16 - steps);
            let mut rows = [_mm512_setzero_ps(); 16];
            for (line, row) in rows.iter_mut().enumerate() {
                if line < lines {
                    let ahead = source.wrapping_add(line * stride + first + 64);
                    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                    // SAFETY: the line exists, and the mask hides what lies behind its end.
                    *row =
                        unsafe { _mm512_maskz_loadu_ps(mask, source.add(line * stride + first)) };
                }
            }
            let columns = transposed(rows);
            for (p, column) in columns.iter().enumerate() {
                if p < steps {
                    // SAFETY: 16 elements can be written at every step.
                    unsafe { _mm512_storeu_ps(out.add((first + p) * width), *column) };
                }
            }
        }
    }

    /// 32 bfloat16 of two vectors of f32, `low` first.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn rounded(low: __m512, high: __m512) -> __m512i {
        // SAFETY: these are names for the same 512 bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// Pairs of steps whose lines are neighbours: word (line, p) of the steps 2 p and 2 p + 1 goes to out[p * width +
    /// line], zero for the lines from `lines` to 16.
    ///
    /// # Safety
    /// The processor has AVX512_BF16; `lines` neighbours can be read at each of `k` steps, `stride` apart, and 16
    /// words written at every pair of steps.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn pairs_of_steps(
        source: *const f32,
        stride: usize,
        lines: usize,
        k: usize,
        out: *mut f32,
        width: usize,
    ) {
        let mask: __mmask16 = 0xffff >> (16 - lines);
        // Element l of the first step, then of the second, for every l.
        let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: the array has 64 bytes.
        let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
        for p in (0..k).step_by(2) {
            let row = source.wrapping_add(p * stride);
            // The same steps of the next panel are packed next.
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(32).cast());
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(stride + 32).cast());
            // SAFETY: the steps exist, the mask hides what is not a line, and 16 words can be written.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask, row);
                let high = if p + 1 < k {
                    _mm512_maskz_loadu_ps(mask, row.add(stride))
                } else {
                    _mm512_setzero_ps()
                };
                let words = _mm512_permutexvar_epi16(order, rounded(low, high));
                _mm512_storeu_si512(out.add(p / 2 * width).cast(), words);
            }
        }
    }

    /// The same for lines whose steps are neighbours, the lines being `stride` apart.
    ///
    /// # Safety
    /// The processor has AVX512_BF16; `lines` lines of `k` elements can be read and 16 words written at every pair of
    /// steps.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn pairs_of_lines(
        source: *const f32,
        stride: usize,
        lines: usize,
        k: usize,
        out: *mut f32,
        width: usize,
    ) {
        for first in (0..k).step_by(32) {
            let steps = (k - first).min(32);
            let mask = u32::MAX >> (32 - steps);
            let mut rows = [_mm512_setzero_ps(); 16];
            // All 16, because a loop of a known length keeps the rows in registers.
            for (line, row) in rows.iter_mut().enumerate() {
                if line < lines {
                    let from = source.wrapping_add(line * stride + first);
                    _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(64).cast());
                    _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(80).cast());
                    // SAFETY: the line exists, and the masks hide what lies behind its end.
                    *row = unsafe {
                        let low = _mm512_maskz_loadu_ps(mask as u16, from);
                        let high =
                            _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
                        _mm512_castsi512_ps(rounded(low, high))
                    };
                }
            }
            for (p, column) in transposed(rows).iter().enumerate().take(steps.div_ceil(2)) {
                // SAFETY: 16 words can be written at every pair of steps.
                unsafe { _mm512_storeu_ps(out.add((first / 2 + p) * width), *column) };
            }
        }
    }

    /// The transposed square of 16 rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(r: [__m512; 16]) -> [__m512; 16] {
        let zero = _mm512_setzero_ps();
        // Pairs of rows, then fours: every 128-bit lane holds four rows of one column.
        let mut fours = [zero; 16];
        for i in 0..4 {
            let [a, b, c, d] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
            let low_ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
            let high_ab = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
            let low_cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
            let high_cd = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
            fours[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low_ab, low_cd));
            fours[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low_ab, low_cd));
            fours[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high_ab, high_cd));
            fours[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high_ab, high_cd));
        }
        // Lane l of fours[4 i + q] holds rows 4 i to 4 i + 3 of column 4 l + q: a transposition of
        // 4 x 4 lanes for every q.
        let mut out = [zero; 16];
        for q in 0..4 {
            let [a, b, c, d] = [fours[q], fours[4 + q], fours[8 + q], fours[12 + q]];
            let even_ab = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            let odd_ab = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            let even_cd = _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
            let odd_cd = _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
            out[q] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even_ab, even_cd);
            out[4 + q] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_ab, odd_cd);
            out[8 + q] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even_ab, even_cd);
            out[12 + q] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_ab, odd_cd);
        }
        out
    }
}
