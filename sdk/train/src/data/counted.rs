//! Counted random numbers for decisions on the host (orders of rows and batches): the n-th number is a function of
//! (seed, stream, n), so nothing but the three needs to be stored to go on from the middle.

/// The odd constant nearest to 2^64 divided by the golden ratio (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finishing function of SplitMix64 (the same paper).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A sequence of numbers fixed by a seed and a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    key: u64,
    count: u64,
}

impl Counted {
    /// The start of stream `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Counted {
        Counted { key: mix(mix(seed).wrapping_add(stream.wrapping_mul(STEP))), count: 0 }
    }

    /// The next 64 bits: `mix(key + n·STEP)`.
    pub fn next_bits(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        mix(self.key.wrapping_add(self.count.wrapping_mul(STEP)))
    }

    /// The next number in `0..bound` without bias (Lemire, "Fast random integer generation in an interval", 2019); 0
    /// when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_bits()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts `items` into a random order; every order is equally likely (Fisher and Yates, in Durstenfeld's form).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_are_even() {
        let mut counts = [[0u32; 4]; 4];
        for stream in 0..4000 {
            let mut items = [0, 1, 2, 3];
            Counted::new(5, stream).shuffle(&mut items);
            for (place, &item) in items.iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // 1000 expected; the standard deviation is 27.
        assert!(counts.iter().flatten().all(|&count| (860..1140).contains(&count)), "{counts:?}");
    }

    #[test]
    fn below_stays_below() {
        let mut random = Counted::new(1, 1);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
