//! Kernels for AVX-512 with byte products (VNNI): sixteen rows in a register.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_add_epi32,
    _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_si512, _mm512_mask_add_epi8, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_storeu_ps,
};
use std::ptr;

use super::layout::{Block, Each, FifthBits, Fours, Nibbles, Q4_0, Q4_1, Q5_0, Q8_0, ROWS, Values};
use super::tiles::Job;

mod floats;
mod superblocks;

/// Distance of prefetched weights, and the bytes that a prefetch reads. Nearer ones would come too
/// late where sixteen answers share each weight.
const PREFETCH_BYTES: usize = 8192;
const LINE_BYTES: usize = 64;

/// A block that AVX-512 unpacks into unsigned bytes.
pub(super) trait Unpack: Block<Vector = Values> {
    /// Weight = scale × (quant − `OFFSET`) + minimum.
    const OFFSET: i32;
    /// Whether there are minima, which are zeros otherwise.
    const HAS_MINIMA: bool = false;
    /// Whether each half of the 32 columns has its own scales.
    const HAS_HALVES: bool = false;

    /// The weights of 32 columns; `step` is below `STEPS`.
    ///
    /// # Safety
    ///
    /// The CPU supports AVX-512 with VNNI.
    unsafe fn unpack(&self, step: usize) -> Weights;
}

/// Weights of sixteen rows and 32 columns.
pub(super) struct Weights {
    /// Four columns each.
    quants: [__m512i; 8],
    /// Of each half; the first is for both unless `HAS_HALVES`.
    scales: [__m512; 2],
    minima: __m512,
}

/// A block whose products AVX-512 computes.
pub(super) trait Product: Block {
    /// Products of sixteen rows with `N` consecutive vectors of `job`, from `first` on.
    ///
    /// The order of summation does not depend on `N`, so an answer does not depend on its batch.
    ///
    /// # Safety
    ///
    /// The CPU supports AVX-512 with what the block needs of it: VNNI, or BF16.
    unsafe fn product<const N: usize>(job: &Job<'_, Self>, group: usize, first: usize);
}

impl<B: Unpack> Product for B {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn product<const N: usize>(job: &Job<'_, B>, group: usize, first: usize) {
        let mut sums = [_mm512_setzero_ps(); N];
        for (place, block) in job.rows(group).iter().enumerate() {
            for step in 0..B::STEPS {
                prefetch_step(block, step);
                // SAFETY: the features are this function's.
                let weights = unsafe { block.unpack(step) };
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let values = job.values(first + vector, place * B::STEPS + step);
                    *sum = add::<B>(*sum, &weights, values);
                }
            }
        }
        store(job, group, first, &sums);
    }
}

/// Writes the results of a group of rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<B: Block>(job: &Job<'_, B>, group: usize, first: usize, sums: &[__m512]) {
    for (vector, &sum) in sums.iter().enumerate() {
        let mut products = [0.0; ROWS];
        // SAFETY: 64 bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(products.as_mut_ptr(), sum) };
        job.write(group, first + vector, 0, &products);
    }
}

/// Asks for the line of memory at some distance from `weights`: an answer alone waits for memory,
/// and the processor's own prefetching stops at the end of each page of 4 KiB.
#[inline]
fn prefetch<T>(weights: *const T) {
    let address = weights.cast::<i8>().wrapping_add(PREFETCH_BYTES);
    // SAFETY: a prefetch may be of any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

/// Asks for the weights that follow `step` at that distance.
#[inline]
fn prefetch_step<B: Block>(block: &B, step: usize) {
    let bytes = size_of::<B>() / B::STEPS;
    let start = ptr::from_ref(block).cast::<u8>().wrapping_add(step * bytes);
    for offset in (0..bytes).step_by(LINE_BYTES) {
        prefetch(start.wrapping_add(offset));
    }
}

/// `sum` plus the products of 32 columns of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add<B: Unpack>(sum: __m512, weights: &Weights, values: &Values) -> __m512 {
    let scale = _mm512_set1_ps(values.scale);
    // A multiplication by a power of two, which is a shift.
    let offset = |negative_sum| _mm512_mullo_epi32(negative_sum, _mm512_set1_epi32(B::OFFSET));
    let [low_sum, high_sum] = values.negative_sums.map(|sum| _mm512_set1_epi32(sum));
    let ([low, high], [low_values, high_values]) =
        (halves(&weights.quants), halves(&values.quants));
    let sum = if B::HAS_HALVES {
        let low = dot(offset(low_sum), low, low_values);
        let high = dot(offset(high_sum), high, high_values);
        let low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), weights.scales[0]);
        let both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), weights.scales[1], low);
        _mm512_fmadd_ps(both, scale, sum)
    } else {
        let start = offset(_mm512_add_epi32(low_sum, high_sum));
        let dot = dot(dot(start, low, low_values), high, high_values);
        let scales = _mm512_mul_ps(weights.scales[0], scale);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scales, sum)
    };
    if B::HAS_MINIMA {
        _mm512_fmadd_ps(weights.minima, _mm512_set1_ps(values.sum), sum)
    } else {
        sum
    }
}

/// `start` plus the products of 16 columns of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(start: __m512i, quants: &[__m512i], values: &[i32]) -> __m512i {
    let mut sum = start;
    for (&quants, &four) in quants.iter().zip(values) {
        sum = _mm512_dpbusd_epi32(sum, quants, _mm512_set1_epi32(four));
    }
    sum
}

#[inline]
fn halves<T>(whole: &[T; 8]) -> [&[T]; 2] {
    let (low, high) = whole.split_at(4);
    [low, high]
}

impl Unpack for Q4_0 {
    const OFFSET: i32 = 8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, _: usize) -> Weights {
        plain(&nibbles(&self.nibbles), float(&self.scales))
    }
}

impl Unpack for Q4_1 {
    const OFFSET: i32 = 0;
    const HAS_MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, _: usize) -> Weights {
        Weights {
            minima: float(&self.minima),
            ..plain(&nibbles(&self.nibbles), float(&self.scales))
        }
    }
}

impl Unpack for Q5_0 {
    const OFFSET: i32 = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, _: usize) -> Weights {
        plain(&five_bits(&self.nibbles, &self.fifth_bits), float(&self.scales))
    }
}

impl Unpack for Q8_0 {
    const OFFSET: i32 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn unpack(&self, _: usize) -> Weights {
        let mut quants = [_mm512_setzero_si512(); 8];
        for (quants, bytes) in quants.iter_mut().zip(&self.bytes) {
            *quants = load(bytes);
        }
        plain(&quants, float(&self.scales))
    }
}

/// Weights with one scale for 32 columns, without minima.
#[inline]
#[target_feature(enable = "avx512f")]
fn plain(quants: &[__m512i; 8], scales: __m512) -> Weights {
    Weights { quants: *quants, scales: [scales; 2], minima: _mm512_setzero_ps() }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(nibbles: &Nibbles) -> [__m512i; 8] {
    let low = _mm512_set1_epi8(15);
    let mut quants = [_mm512_setzero_si512(); 8];
    for (part, both) in nibbles.iter().enumerate() {
        let both = load(both);
        quants[2 * part] = _mm512_and_si512(both, low);
        quants[2 * part + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
    }
    quants
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn five_bits(low: &Nibbles, fifth: &FifthBits) -> [__m512i; 8] {
    let sixteen = _mm512_set1_epi8(16);
    let mut quants = nibbles(low);
    for (quants, &bits) in quants.iter_mut().zip(fifth) {
        *quants = _mm512_mask_add_epi8(*quants, bits, *quants, sixteen);
    }
    quants
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &Fours) -> __m512i {
    // SAFETY: 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Numbers of 16 bits as floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn float(numbers: &Each<u16>) -> __m512 {
    // SAFETY: 32 bytes, and the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}
