//! Hashed character n-grams: signed counts in a fixed number of buckets, damped and scaled to unit
//! length.
//!
//! Pure. The trained weights depend on every bit of this: bucket, sign, damping and order of
//! summation.

use std::hint::black_box;
use std::sync::LazyLock;

/// Buckets of the hashed n-grams.
pub const BUCKETS: usize = 1 << 13;
/// N-grams are of four and of five characters, within one word and its surrounding spaces.
const SHORT: usize = 4;

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Counts below this are damped by a table.
const TABLED: usize = 64;

/// `1 + ln count`. `black_box` keeps the compiler from evaluating `ln` with another library's
/// rounding than counts beyond the table get at run time.
static DAMPED: LazyLock<[f32; TABLED]> = LazyLock::new(|| {
    std::array::from_fn(|count| damp(black_box(u16::try_from(count).unwrap_or(u16::MAX))))
});

fn damp(count: u16) -> f32 {
    1.0 + f32::from(count).ln()
}

/// Signed counts of the n-grams of a text.
pub(super) struct NgramCounts {
    counts: [i16; BUCKETS],
    /// One bit per bucket that was ever counted.
    touched: [u64; BUCKETS / 64],
    /// The word at hand, lower-cased and padded: `" word "`. Reused, as is `starts`.
    padded: Vec<u8>,
    /// Offsets of the characters in `padded`, and its length.
    starts: Vec<usize>,
}

impl Default for NgramCounts {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            touched: [0; BUCKETS / 64],
            padded: Vec::with_capacity(64),
            starts: Vec::new(),
        }
    }
}

impl NgramCounts {
    /// Counts the n-grams of the words of a text, which whitespace separates, and shows each word
    /// to `see`. A padded word shorter than an n-gram counts once, whole.
    pub(super) fn add<'t>(&mut self, text: &'t str, mut see: impl FnMut(&'t str)) {
        if !text.is_ascii() {
            return text.split_whitespace().for_each(|word| {
                self.add_word(word);
                see(word);
            });
        }
        // All words at once: the space after one is that before the next.
        let mut padded = Vec::with_capacity(text.len() + 2);
        padded.push(b' ');
        padded.extend_from_slice(text.as_bytes());
        padded.push(b' ');
        padded.make_ascii_lowercase();
        for byte in &mut padded {
            *byte = if matches!(byte, b'\t'..=b'\r') { b' ' } else { *byte };
        }
        let mut start = 0;
        for (end, &byte) in padded.iter().enumerate().skip(1) {
            if byte == b' ' {
                if end > start + 1 {
                    self.add_ascii(&padded[start..=end]);
                    see(&text[start..end - 1]);
                }
                start = end;
            }
        }
    }

    fn add_word(&mut self, word: &str) {
        let mut padded = std::mem::take(&mut self.padded);
        padded.clear();
        padded.push(b' ');
        if word.is_ascii() {
            padded.extend(word.bytes().map(|byte| byte.to_ascii_lowercase()));
            padded.push(b' ');
            self.add_ascii(&padded);
        } else {
            let mut starts = std::mem::take(&mut self.starts);
            starts.clear();
            starts.push(0);
            for lower in word.chars().flat_map(char::to_lowercase) {
                starts.push(padded.len());
                padded.extend_from_slice(lower.encode_utf8(&mut [0; 4]).as_bytes());
            }
            starts.push(padded.len());
            padded.push(b' ');
            starts.push(padded.len());
            self.add_padded(&padded, &starts);
            self.starts = starts;
        }
        self.padded = padded;
    }

    fn add_ascii(&mut self, padded: &[u8]) {
        match padded.len() {
            0..SHORT => self.count(fnv1a(padded)),
            // Shorter than five characters, too.
            SHORT => (0..2).for_each(|_| self.count(fnv1a(padded))),
            length => {
                for long in padded.windows(SHORT + 1) {
                    let hash = fnv1a(&long[..SHORT]);
                    self.count(hash);
                    self.count(fnv1a_step(hash, long[SHORT]));
                }
                self.count(fnv1a(&padded[length - SHORT..]));
            }
        }
    }

    /// The same for characters of several bytes.
    fn add_padded(&mut self, padded: &[u8], starts: &[usize]) {
        let chars = starts.len() - 1;
        match chars {
            0..SHORT => self.count(fnv1a(padded)),
            SHORT => (0..2).for_each(|_| self.count(fnv1a(padded))),
            _ => {
                for (first, bounds) in starts.windows(SHORT + 1).enumerate() {
                    let hash = fnv1a(&padded[bounds[0]..bounds[SHORT]]);
                    self.count(hash);
                    if let Some(&end) = starts.get(first + SHORT + 1) {
                        let fifth = &padded[bounds[SHORT]..end];
                        self.count(fifth.iter().fold(hash, |hash, &byte| fnv1a_step(hash, byte)));
                    }
                }
            }
        }
    }

    /// Adds ±1 to the n-gram's bucket: with signs, n-grams that share a bucket cancel on average.
    fn count(&mut self, hash: u64) {
        let hash = fmix64(hash);
        let bucket = usize::try_from(hash & (BUCKETS as u64 - 1)).unwrap_or(0);
        let sign = if hash >> 63 == 0 { 1 } else { -1 };
        self.counts[bucket] = self.counts[bucket].saturating_add(sign);
        self.touched[bucket / 64] |= 1 << (bucket % 64);
    }

    /// `(bucket, ±(1 + ln count))` scaled to unit length, buckets ascending.
    pub(super) fn weights(&self) -> Vec<(u16, f32)> {
        let touched: u32 = self.touched.iter().map(|bits| bits.count_ones()).sum();
        let mut weights = Vec::with_capacity(usize::try_from(touched).unwrap_or(BUCKETS));
        for (at, &bits) in self.touched.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                let bucket = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let count = self.counts[bucket];
                if count == 0 {
                    continue;
                }
                let size = count.unsigned_abs();
                let size = DAMPED.get(usize::from(size)).copied().unwrap_or_else(|| damp(size));
                let bucket = u16::try_from(bucket).unwrap_or(u16::MAX);
                weights.push((bucket, size.copysign(f32::from(count))));
            }
        }
        let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        for (_, weight) in &mut weights {
            *weight /= length;
        }
        weights
    }
}

/// FNV-1a, 64 bits: offset basis and prime as published by Fowler, Noll and Vo.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET_BASIS, |hash, &byte| fnv1a_step(hash, byte))
}

fn fnv1a_step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// The finaliser of `MurmurHash3` (Appleby): makes the low bits, which choose the bucket, depend on
/// all of the input.
pub fn fmix64(mut hash: u64) -> u64 {
    for prime in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(prime);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The definition: every n-gram cut out and hashed by itself.
    fn by_definition(text: &str) -> Vec<(u16, f32)> {
        let mut counts = BTreeMap::<u16, i16>::new();
        let mut add = |ngram: &[char]| {
            let hash = fmix64(fnv1a(ngram.iter().collect::<String>().as_bytes()));
            let bucket = u16::try_from(hash % BUCKETS as u64).unwrap();
            *counts.entry(bucket).or_default() += if hash >> 63 == 0 { 1 } else { -1 };
        };
        for word in text.split_whitespace() {
            let lower = word.chars().flat_map(char::to_lowercase);
            let padded: Vec<char> = [' '].into_iter().chain(lower).chain([' ']).collect();
            for length in [SHORT, SHORT + 1] {
                if padded.len() < length {
                    add(&padded);
                    break;
                }
                padded.windows(length).for_each(&mut add);
            }
        }
        let damped = |(bucket, count): (u16, i16)| {
            let size = 1.0 + f32::from(count.unsigned_abs()).ln();
            (count != 0).then_some((bucket, size.copysign(f32::from(count))))
        };
        let mut weights: Vec<(u16, f32)> = counts.into_iter().filter_map(damped).collect();
        let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        for (_, weight) in &mut weights {
            *weight /= length;
        }
        weights
    }

    fn of(text: &str) -> Vec<(u16, u32)> {
        let (mut counts, mut words) = (NgramCounts::default(), Vec::new());
        counts.add(text, |word| words.push(word));
        assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
        bits(counts.weights())
    }

    fn bits(weights: Vec<(u16, f32)>) -> Vec<(u16, u32)> {
        weights.into_iter().map(|(bucket, weight)| (bucket, weight.to_bits())).collect()
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors from the authors' reference code.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn words_of_every_length_and_script_have_the_weights_of_the_definition() {
        let many = "again ".repeat(200);
        let spaces = " a\tbc\n\u{b}def\u{c}ghij\r\n\u{1c}k \u{1f}  l\u{0}m ";
        for text in ["", "a", "ab", "abc", "A bcd ÉTÉ x", "Straße İ ΣΑΣ 什么是天空", spaces, &many]
        {
            assert_eq!(of(text), bits(by_definition(text)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_the_weights_of_the_definition(text in "([a-eA-E]{1,6}|\\PC| ){0,200}") {
            prop_assert_eq!(of(&text), bits(by_definition(&text)));
        }

        #[test]
        fn any_ascii_text_has_the_weights_of_the_definition(text in "([a-eA-E]{1,6}|[\\x00-\\x7f]| ){0,200}") {
            prop_assert_eq!(of(&text), bits(by_definition(&text)));
        }
    }
}
