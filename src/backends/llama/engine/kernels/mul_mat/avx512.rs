//! Kernels for AVX-512 with byte products (VNNI): a block of sixteen rows in ten instructions.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_storeu_ps,
};

use super::layout::{Bytes, Nibbles, ROWS, Values};
use super::tiles::Job;

/// Products of sixteen rows of `Q4_1` with `N` consecutive vectors of `job.vectors`, from `first`
/// on.
///
/// The order of summation does not depend on `N`, so an answer does not depend on its batch.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn q4_1<const N: usize>(job: &Job<'_, Nibbles>, group: usize, first: usize) {
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); N];
    for (place, block) in job.rows(group).iter().enumerate() {
        let mut quants = [_mm512_setzero_si512(); 8];
        for (part, both) in block.quants.iter().enumerate() {
            let both = load(both);
            quants[2 * part] = _mm512_and_si512(both, low);
            quants[2 * part + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
        }
        let (scales, minima) = (halves(&block.scales), halves(&block.minima));
        for (vector, sum) in sums.iter_mut().enumerate() {
            let values = job.values(first + vector, place);
            let dot = dot(_mm512_setzero_si512(), &quants, values);
            *sum = scaled(*sum, dot, scales, values);
            *sum = _mm512_fmadd_ps(minima, _mm512_set1_ps(values.sum), *sum);
        }
    }
    store(job, group, first, &sums);
}

/// As [`q4_1`], for `Q8_0`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn q8_0<const N: usize>(job: &Job<'_, Bytes>, group: usize, first: usize) {
    let mut sums = [_mm512_setzero_ps(); N];
    for (place, block) in job.rows(group).iter().enumerate() {
        let mut quants = [_mm512_setzero_si512(); 8];
        for (quants, bytes) in quants.iter_mut().zip(&block.quants) {
            *quants = load(bytes);
        }
        let scales = halves(&block.scales);
        for (vector, sum) in sums.iter_mut().enumerate() {
            let values = job.values(first + vector, place);
            let dot = dot(_mm512_set1_epi32(values.excess), &quants, values);
            *sum = scaled(*sum, dot, scales, values);
        }
    }
    store(job, group, first, &sums);
}

/// `start` plus the products of a block's 32 weights of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(start: __m512i, quants: &[__m512i; 8], values: &Values) -> __m512i {
    let mut sum = start;
    for (&quants, &four) in quants.iter().zip(&values.quants) {
        sum = _mm512_dpbusd_epi32(sum, quants, _mm512_set1_epi32(four));
    }
    sum
}

#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(sum: __m512, dot: __m512i, scales: __m512, values: &Values) -> __m512 {
    let scales = _mm512_mul_ps(scales, _mm512_set1_ps(values.scale));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scales, sum)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 4 * ROWS]) -> __m512i {
    // SAFETY: 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(numbers: &[u16; ROWS]) -> __m512 {
    // SAFETY: 32 bytes, and the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<B>(job: &Job<'_, B>, group: usize, first: usize, sums: &[__m512]) {
    for (vector, &sum) in sums.iter().enumerate() {
        // SAFETY: `place` points to sixteen floats that no other thread writes.
        unsafe { _mm512_storeu_ps(job.place(group, first + vector), sum) };
    }
}
