//! Products of 16-bit floats: `F16` with floats, `BF16` with pairs of its kind.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm256_storeu_si256, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps,
};
use std::{mem, ptr};

use super::{Product, float, prefetch, store};
use crate::backends::llama::engine::kernels::mul_mat::floats::{Bf16, F16, Floats, Pairs};
use crate::backends::llama::engine::kernels::mul_mat::layout::{BLOCK, Each, Vector};
use crate::backends::llama::engine::kernels::mul_mat::tiles::Job;

/// Implements [`Product`] for a block: `$load` makes a register of what `$parts` holds at a place,
/// and `$add` adds its products with what a vector has there.
macro_rules! product {
    ($block:ident, $features:literal, $parts:ident, $load:ident, $add:ident) => {
        impl Product for $block {
            #[target_feature(enable = $features)]
            unsafe fn product<const N: usize>(job: &Job<'_, Self>, group: usize, first: usize) {
                let mut sums = [_mm512_setzero_ps(); N];
                for (place, block) in job.rows(group).iter().enumerate() {
                    for (part, weights) in block.$parts.iter().enumerate() {
                        prefetch(ptr::from_ref(weights));
                        let weights = $load(weights);
                        for (vector, sum) in sums.iter_mut().enumerate() {
                            let values = job.values(first + vector, place);
                            *sum = $add(*sum, weights, values.0[part]);
                        }
                    }
                }
                store(job, group, first, &sums);
            }
        }
    };
}

product!(F16, "avx512f,avx512bw", columns, float, add);
product!(Bf16, "avx512f,avx512bw,avx512bf16", pairs, pairs, add_pairs);

#[inline]
#[target_feature(enable = "avx512f")]
fn add(sum: __m512, weights: __m512, value: f32) -> __m512 {
    _mm512_fmadd_ps(weights, _mm512_set1_ps(value), sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_pairs(sum: __m512, weights: __m512bh, values: i32) -> __m512 {
    // SAFETY: both types are 64 bytes of any value.
    let values = unsafe { mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(values)) };
    _mm512_dpbf16_ps(sum, weights, values)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(pairs: &Each<[u16; 2]>) -> __m512bh {
    // SAFETY: 64 bytes, and the load needs no alignment; any value is valid in both types.
    unsafe { mem::transmute(_mm512_loadu_si512(pairs.as_ptr().cast())) }
}

impl Vector for Floats {
    unsafe fn convert(values: &[f32], blocks: &mut [Self]) {
        for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            block.0 = *values;
        }
    }
}

/// Rounded to the nearest as llama.cpp does for this type.
impl Vector for Pairs {
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn convert(values: &[f32], blocks: &mut [Self]) {
        for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            for half in 0..2 {
                // SAFETY: 64 bytes are read and 32 written, neither needs alignment, and any value
                // is valid in both types.
                unsafe {
                    let floats = _mm512_loadu_ps(values.as_ptr().add(half * BLOCK / 2));
                    let rounded = mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(floats));
                    _mm256_storeu_si256(block.0.as_mut_ptr().add(half * BLOCK / 4).cast(), rounded);
                }
            }
        }
    }
}
