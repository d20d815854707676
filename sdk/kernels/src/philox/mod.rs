//! Counted random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
//! easy as 1, 2, 3", 2011).
//!
//! The key is the seed, the counter is (block, stream), and element `i` of a stream is word `i % 4`
//! of block `i / 4`. A number is therefore a function of (seed, stream, offset): nothing is drawn,
//! nothing has a state, and dropout makes its decisions again in the backward pass instead of
//! storing a mask.

mod keep;

pub(crate) use keep::KEEP_LANES;

use crate::machine::simd::multiversion;
use crate::{Float, Result, blocks, check_range, for_each_task};

const MULTIPLIER_0: u32 = 0xd251_1f53;
const MULTIPLIER_1: u32 = 0xcd9e_8d57;
const WEYL_0: u32 = 0x9e37_79b9;
const WEYL_1: u32 = 0xbb67_ae85;

/// Blocks that are computed side by side, one per vector lane.
const GROUP: usize = 16;
/// Words of one group.
const GROUP_WORDS: usize = 4 * GROUP;

/// A place in a stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The key; the whole run has one.
    pub seed: u64,
    /// Streams of one seed are independent of each other.
    pub stream: u64,
    /// The first element to use.
    pub offset: u64,
}

impl Counter {
    /// Element `offset` of the stream.
    pub fn new(seed: u64, stream: u64, offset: u64) -> Self {
        Self { seed, stream, offset }
    }

    /// `elements` further on.
    #[inline(always)]
    pub fn skip(self, elements: u64) -> Self {
        Self { offset: self.offset.wrapping_add(elements), ..self }
    }
}

/// One application of Philox4x32-10.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    rounds(counter.map(|word| [u64::from(word)]), key).map(|lane| lane[0] as u32)
}

/// The keys of the ten rounds.
#[inline(always)]
fn round_keys(seed: [u32; 2]) -> [[u32; 2]; 10] {
    let mut key = seed;
    std::array::from_fn(|_| {
        let now = key;
        key = [key[0].wrapping_add(WEYL_0), key[1].wrapping_add(WEYL_1)];
        now
    })
}

/// The ten rounds on `N` counters side by side. Words stand in the low halves of 64-bit lanes,
/// where vector units multiply 32 by 32 bits without shuffling; the high halves hold remains of
/// products and are ignored.
#[inline(always)]
fn rounds<const N: usize>(c: [[u64; N]; 4], seed: [u32; 2]) -> [[u64; N]; 4] {
    const LOW: u64 = 0xffff_ffff;
    let [mut c0, mut c1, mut c2, mut c3] = c;
    for key in round_keys(seed) {
        let [key_0, key_1] = key.map(u64::from);
        for lane in 0..N {
            let product_0 = u64::from(MULTIPLIER_0) * (c0[lane] & LOW);
            let product_1 = u64::from(MULTIPLIER_1) * (c2[lane] & LOW);
            c0[lane] = (product_1 >> 32) ^ c1[lane] ^ key_0;
            c1[lane] = product_1;
            c2[lane] = (product_0 >> 32) ^ c3[lane] ^ key_1;
            c3[lane] = product_0;
        }
    }
    [c0, c1, c2, c3]
}

/// Writes the words of `GROUP` blocks from `block` on.
#[inline(always)]
fn group(seed: u64, stream: u64, block: u64, out: &mut [u32; GROUP_WORDS]) {
    let mut index = [block; GROUP];
    for (lane, index) in index.iter_mut().enumerate() {
        *index = index.wrapping_add(lane as u64);
    }
    let c = [index, index.map(|i| i >> 32), [stream; GROUP], [stream >> 32; GROUP]];
    let words = rounds(c, [seed as u32, (seed >> 32) as u32]);
    for lane in 0..GROUP {
        for word in 0..4 {
            out[4 * lane + word] = words[word][lane] as u32;
        }
    }
}

/// Writes the random words of the elements from `counter` on. To be inlined into `multiversion!`
/// bodies.
#[inline(always)]
pub fn words(counter: Counter, out: &mut [u32]) {
    let mut block = counter.offset / 4;
    let skip = (counter.offset % 4) as usize;
    let mut scratch = [0u32; GROUP_WORDS];
    let mut out = out;
    if skip != 0 && !out.is_empty() {
        group(counter.seed, counter.stream, block, &mut scratch);
        let head = out.len().min(GROUP_WORDS - skip);
        let (first, rest) = out.split_at_mut(head);
        first.copy_from_slice(&scratch[skip..skip + head]);
        out = rest;
        block = block.wrapping_add(GROUP as u64);
    }
    let (chunks, rest) = out.as_chunks_mut::<GROUP_WORDS>();
    for chunk in chunks {
        group(counter.seed, counter.stream, block, chunk);
        block = block.wrapping_add(GROUP as u64);
    }
    if !rest.is_empty() {
        group(counter.seed, counter.stream, block, &mut scratch);
        rest.copy_from_slice(&scratch[..rest.len()]);
    }
}

multiversion! {
    fn words_block(counter: Counter, out: &mut [u32]) {
        words(counter, out);
    }

    fn uniform_block<F: Float>(counter: Counter, lo: F, hi: F, out: &mut [F]) {
        let mut buffer = [0u32; CHUNK];
        let mut at = counter;
        let width = hi - lo;
        for chunk in out.chunks_mut(CHUNK) {
            words(at, &mut buffer[..chunk.len()]);
            for (value, &word) in chunk.iter_mut().zip(&buffer) {
                *value = lo + width * F::from_word(word);
            }
            at = at.skip(CHUNK as u64);
        }
    }

    fn normal_block<F: Float>(counter: Counter, mean: F, deviation: F, out: &mut [F]) {
        let mut buffer = [0u32; CHUNK];
        let mut even = [0f32; CHUNK / 2];
        let mut odd = [0f32; CHUNK / 2];
        // Pairs start at even offsets.
        let skip = (counter.offset % 2) as usize;
        let mut at = Counter { offset: counter.offset - skip as u64, ..counter };
        let mut written = 0;
        let mut first = skip;
        while written < out.len() {
            words(at, &mut buffer);
            for pair in 0..CHUNK / 2 {
                (even[pair], odd[pair]) = box_muller(buffer[2 * pair], buffer[2 * pair + 1]);
            }
            for i in first..CHUNK.min(first + out.len() - written) {
                let z = if i % 2 == 0 { even[i / 2] } else { odd[i / 2] };
                out[written] = mean + deviation * F::from_f32(z);
                written += 1;
            }
            first = 0;
            at = at.skip(CHUNK as u64);
        }
    }

    fn dropout_factors_block<F: Float>(dropout: Dropout, start: u64, out: &mut [F]) {
        dropout.factors(start, out);
    }
}

/// Elements whose words are held on the stack at a time.
const CHUNK: usize = 256;

/// Two standard normal numbers from two words (Box and Muller, 1958).
#[inline(always)]
fn box_muller(first: u32, second: u32) -> (f32, f32) {
    // In (0, 1], so that the logarithm is finite; the largest radius is 5.8.
    let u = ((first >> 8) as i32 + 1) as f32 * (1.0 / 16_777_216.0);
    let radius = (-2.0 * Float::ln(u)).sqrt();
    // The upper two bits choose the quadrant, the others an angle in [-1/2, 1/2) of a quadrant,
    // centred.
    let quadrant = second >> 30;
    let f = ((second << 2) as i32 >> 8) as f32 * (1.0 / 16_777_216.0);
    let z = f * f;
    // sin and cos of f * pi / 2; errors 6e-9 and 1e-10.
    let sin = f
        * (std::f32::consts::FRAC_PI_2
            + z * (-6.459_634e-1 + z * (7.967_922e-2 + z * -4.599_020_5e-3)));
    let cos =
        1.0 + z * (-1.233_700_5 + z * (2.536_691_7e-1 + z * (-2.085_979_5e-2 + z * 9.030_116e-4)));
    let swap = quadrant & 1 == 1;
    let (x, y) = (if swap { sin } else { cos }, if swap { cos } else { sin });
    let negative_x = quadrant == 1 || quadrant == 2;
    let negative_y = quadrant >= 2;
    (radius * if negative_x { -x } else { x }, radius * if negative_y { -y } else { y })
}

/// Elements that one task fills.
const FILL_BLOCK: usize = 64 * 1024;

fn fill<F: Send>(counter: Counter, out: &mut [F], f: impl Fn(Counter, &mut [F]) + Send + Sync) {
    let starts = blocks(out.len(), FILL_BLOCK);
    let tasks = starts.into_iter().zip(out.chunks_mut(FILL_BLOCK)).collect();
    for_each_task(tasks, |(range, part)| f(counter.skip(range.start as u64), part));
}

/// Writes the random 32-bit words of the elements from `counter` on.
pub fn fill_words(counter: Counter, out: &mut [u32]) {
    fill(counter, out, words_block);
}

/// Writes uniform numbers in [`lo`, `hi`) (`hi` itself only through rounding), one word per
/// element.
pub fn fill_uniform<F: Float>(counter: Counter, lo: F, hi: F, out: &mut [F]) {
    fill(counter, out, |at, part| uniform_block(at, lo, hi, part));
}

/// Writes normal numbers, one word per element: the elements `2 j` and `2 j + 1` of the stream are
/// the two numbers that Box and Muller's formula makes of their words. Made in `f32`; `f64` gets
/// the same numbers.
pub fn fill_normal<F: Float>(counter: Counter, mean: F, deviation: F, out: &mut [F]) {
    fill(counter, out, |at, part| normal_block(at, mean, deviation, part));
}

/// Dropout with counted decisions: element `i` is kept if its word is at least `p * 2^32`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    counter: Counter,
    threshold: u32,
    scale: f64,
}

impl Dropout {
    /// Drops with probability `p` in [0, 1) and multiplies what is kept by `1 / (1 - p)`. Element
    /// `i` of the tensor uses element `counter.offset + i` of the stream.
    ///
    /// # Errors
    /// [`crate::KernelError::Value`] if `p` is outside [0, 1) or not a number.
    pub fn new(p: f64, counter: Counter) -> Result<Self> {
        check_range("dropout", "p", "at least 0 and below 1", 0.0..1.0, p)?;
        let threshold = (p * 4_294_967_296.0).round().min(4_294_967_295.0) as u32;
        Ok(Self { counter, threshold, scale: 1.0 / (1.0 - p) })
    }

    /// Where its numbers begin, and the smallest word that keeps an element.
    pub fn parts(&self) -> (Counter, u32) {
        (self.counter, self.threshold)
    }

    /// What kept elements are multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Writes the factors (0 or `scale`) of the elements from `start` on. To be inlined into
    /// `multiversion!` bodies.
    #[inline(always)]
    pub fn factors<F: Float>(&self, start: u64, out: &mut [F]) {
        let scale = F::from_f64(self.scale);
        let mut buffer = [0u32; CHUNK];
        let mut at = self.counter.skip(start);
        for chunk in out.chunks_mut(CHUNK) {
            words(at, &mut buffer[..chunk.len()]);
            for (factor, &word) in chunk.iter_mut().zip(&buffer) {
                *factor = if word >= self.threshold { scale } else { F::ZERO };
            }
            at = at.skip(CHUNK as u64);
        }
    }

    /// [`Dropout::factors`], compiled for the best instruction set: for callers outside
    /// `multiversion!`.
    pub fn write_factors<F: Float>(&self, start: u64, out: &mut [F]) {
        dropout_factors_block(*self, start, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, with_one_and_three_threads};

    /// The known answers that Random123 publishes for philox4x32-10.
    #[test]
    fn philox_matches_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn words_are_the_blocks_in_order_from_any_offset() {
        let (seed, stream) = (0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321);
        for offset in [0u64, 1, 2, 3, 4, 63, (1 << 34) - 2] {
            for len in [0usize, 1, 3, 61, 64, 65, 200] {
                let mut found = vec![0; len];
                fill_words(Counter::new(seed, stream, offset), &mut found);
                for (i, &word) in found.iter().enumerate() {
                    let element = offset + i as u64;
                    let block = element / 4;
                    let counter =
                        [block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32];
                    let expected = philox(counter, [seed as u32, (seed >> 32) as u32]);
                    assert_eq!(word, expected[(element % 4) as usize], "offset {offset} len {len}");
                }
            }
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let n = 400_000;
        let mut u = vec![0f32; n];
        fill_uniform(Counter::new(1, 2, 0), -1.0, 3.0, &mut u);
        let mean = u.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        assert!((mean - 1.0).abs() < 0.01 && u.iter().all(|&x| (-1.0..=3.0).contains(&x)));
        let mut z = vec![0f32; n];
        fill_normal(Counter::new(1, 2, 0), 0.0, 1.0, &mut z);
        let moment = |p: i32| z.iter().map(|&x| f64::from(x).powi(p)).sum::<f64>() / n as f64;
        let (m1, m2, m3, m4) = (moment(1), moment(2), moment(3), moment(4));
        assert!(m1.abs() < 0.01 && (m2 - 1.0).abs() < 0.01 && m3.abs() < 0.03, "{m1} {m2} {m3}");
        assert!((m4 - 3.0).abs() < 0.06, "{m4}");
        let pairs: f64 = z.chunks(2).map(|p| f64::from(p[0]) * f64::from(p[1])).sum();
        assert!((pairs / (n / 2) as f64).abs() < 0.01);
    }

    #[test]
    fn box_muller_matches_its_formula() {
        for i in 0..10_000u32 {
            let (a, b) = (i.wrapping_mul(0x9e37_79b9), i.wrapping_mul(0x85eb_ca6b));
            let (x, y) = box_muller(a, b);
            let u = f64::from((a >> 8) + 1) / 16_777_216.0;
            let radius = (-2.0 * u.ln()).sqrt();
            // Within the quadrant the angle is centred on a multiple of a quarter turn.
            let f = f64::from((b << 2) as i32 >> 8) / 16_777_216.0;
            let angle = std::f64::consts::FRAC_PI_2 * (f64::from(b >> 30) + f);
            let expected = (radius * angle.cos(), radius * angle.sin());
            assert!((f64::from(x) - expected.0).abs() < 2e-6, "{a:x} {b:x} {x} {expected:?}");
            assert!((f64::from(y) - expected.1).abs() < 2e-6, "{a:x} {b:x} {y} {expected:?}");
        }
    }

    #[test]
    fn normal_depends_on_the_offset_only() {
        let mut whole = vec![0f32; 2000];
        fill_normal(Counter::new(7, 0, 5), 0.0, 1.0, &mut whole);
        for start in [1usize, 2, 3, 255, 256, 1001] {
            let mut part = vec![0f32; 400];
            fill_normal(Counter::new(7, 0, 5 + start as u64), 0.0, 1.0, &mut part);
            assert_same_bits(&part, &whole[start..start + 400]);
        }
    }

    #[test]
    fn dropout_keeps_the_stated_share_and_repeats() {
        for p in [0.0, 0.1, 0.5, 0.9] {
            let dropout = Dropout::new(p, Counter::new(3, 4, 17)).unwrap();
            let mut factors = vec![0f32; 200_000];
            dropout.write_factors(0, &mut factors);
            let kept = factors.iter().filter(|&&f| f != 0.0).count() as f64 / 200_000.0;
            assert!((kept - (1.0 - p)).abs() < 0.005, "p {p} kept {kept}");
            assert!(factors.iter().all(|&f| f == 0.0 || f == (1.0 / (1.0 - p)) as f32));
            let mut part = vec![0f32; 1000];
            dropout.write_factors(777, &mut part);
            assert_same_bits(&part, &factors[777..1777]);
        }
        assert!(Dropout::new(1.0, Counter::new(0, 0, 0)).is_err());
        assert!(Dropout::new(f64::NAN, Counter::new(0, 0, 0)).is_err());
    }

    #[test]
    fn fill_does_not_depend_on_threads() {
        let (one, three) = with_one_and_three_threads(|| {
            let mut out = vec![0f32; 3 * FILL_BLOCK + 5];
            fill_normal(Counter::new(1, 1, 3), 0.0, 1.0, &mut out);
            out
        });
        assert_same_bits(&one, &three);
    }
}
