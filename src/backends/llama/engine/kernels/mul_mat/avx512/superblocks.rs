//! Unpacking of the types with 256 columns to a block.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_mul_ps, _mm512_or_si512,
    _mm512_set1_epi8, _mm512_setzero_ps, _mm512_shuffle_epi8, _mm512_slli_epi16, _mm512_srli_epi16,
    _mm512_sub_ps,
};

use super::{Unpack, Weights, five_bits, float, load, nibbles, plain};
use crate::backends::llama::engine::kernels::mul_mat::layout::{Each, Fours};
use crate::backends::llama::engine::kernels::mul_mat::superblocks::{Iq4Xs, Q4K, Q5K, Q6K};

impl Unpack for Q4K {
    const OFFSET: i32 = 0;
    const HAS_MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, step: usize) -> Weights {
        with_minima(self, step, &nibbles(&self.nibbles[step]))
    }
}

impl Unpack for Q5K {
    const OFFSET: i32 = 0;
    const HAS_MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, step: usize) -> Weights {
        let quants = five_bits(&self.low.nibbles[step], &self.fifth_bits[step]);
        with_minima(&self.low, step, &quants)
    }
}

impl Unpack for Q6K {
    const OFFSET: i32 = 32;
    const HAS_HALVES: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, step: usize) -> Weights {
        let mut quants = nibbles(&self.nibbles[step]);
        for (half, upper) in quants.as_chunks_mut::<4>().0.iter_mut().zip(&self.upper[step]) {
            let upper = upper_bits(upper);
            for (quants, upper) in half.iter_mut().zip(upper) {
                *quants = _mm512_or_si512(*quants, upper);
            }
        }
        let (scale, [low, high]) = (float(&self.scale), &self.scales[step]);
        let scales = [_mm512_mul_ps(scale, signed(low)), _mm512_mul_ps(scale, signed(high))];
        Weights { quants, scales, minima: _mm512_setzero_ps() }
    }
}

impl Unpack for Iq4Xs {
    /// The table's values plus this are unsigned.
    const OFFSET: i32 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, step: usize) -> Weights {
        // SAFETY: 16 bytes, and the load needs no alignment.
        let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(VALUES.as_ptr().cast()) });
        let quants = nibbles(&self.nibbles[step]).map(
            #[inline]
            |quants| _mm512_shuffle_epi8(table, quants),
        );
        let scales = _mm512_mul_ps(float(&self.scale), signed(&self.scales[step]));
        plain(&quants, scales)
    }
}

/// llama.cpp's table of the values of four bits (`kvalues_iq4nl`), plus 128.
const VALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

#[inline]
#[target_feature(enable = "avx512f")]
fn with_minima(block: &Q4K, step: usize, quants: &[__m512i; 8]) -> Weights {
    let scales = _mm512_mul_ps(float(&block.scale), unsigned(&block.scales[step]));
    let minima = _mm512_mul_ps(float(&block.least), unsigned(&block.minima[step]));
    Weights { minima: _mm512_sub_ps(_mm512_setzero_ps(), minima), ..plain(quants, scales) }
}

/// Bits 4 and 5 of the quants of 16 columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn upper_bits(upper: &Fours) -> [__m512i; 4] {
    let (upper, mask) = (load(upper), _mm512_set1_epi8(0x30));
    [
        _mm512_and_si512(_mm512_slli_epi16::<4>(upper), mask),
        _mm512_and_si512(_mm512_slli_epi16::<2>(upper), mask),
        _mm512_and_si512(upper, mask),
        _mm512_and_si512(_mm512_srli_epi16::<2>(upper), mask),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn unsigned(numbers: &Each<u8>) -> __m512 {
    // SAFETY: 16 bytes, and the load needs no alignment.
    let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) };
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(numbers))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn signed(numbers: &Each<i8>) -> __m512 {
    // SAFETY: 16 bytes, and the load needs no alignment.
    let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) };
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(numbers))
}
