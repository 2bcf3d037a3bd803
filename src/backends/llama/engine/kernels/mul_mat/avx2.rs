//! Kernels for AVX2, and the quantising of vectors for all CPUs with kernels.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_ps, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_ps, _mm256_mul_ps, _mm256_packs_epi16,
    _mm256_packs_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps,
};

use super::layout::{BLOCK, Block, Each, Fours, Nibbles, Q4_0, Q4_1, ROWS, Values, Vector};
use super::superblocks::Q4K;
use super::tiles::Job;

/// Rows in one register.
const LANES: usize = ROWS / 2;

/// A block whose quants have four bits. Sums of more bits would not fit into 16.
pub(super) trait Unpack: Block<Vector = Values> {
    /// Weight = scale × (quant − `OFFSET`) + minimum.
    const OFFSET: i32;
    /// Whether there are minima, which are zeros otherwise.
    const HAS_MINIMA: bool = false;

    fn nibbles(&self, step: usize) -> &Nibbles;

    /// Scales and minima of eight rows; `step` is below `STEPS`.
    ///
    /// # Safety
    ///
    /// The CPU supports AVX2 and F16C.
    unsafe fn scales(&self, step: usize, half: usize) -> [__m256; 2];
}

/// A block whose products AVX2 computes.
pub(super) trait Product: Block {
    /// Products of sixteen rows with `N` consecutive vectors of `job`, from `first` on.
    ///
    /// The order of summation does not depend on `N`, so an answer does not depend on its batch.
    ///
    /// # Safety
    ///
    /// The CPU supports AVX2, FMA and F16C.
    unsafe fn product<const N: usize>(job: &Job<'_, Self>, group: usize, first: usize);
}

impl<B: Unpack> Product for B {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn product<const N: usize>(job: &Job<'_, B>, group: usize, first: usize) {
        for half in 0..2 {
            let mut sums = [_mm256_setzero_ps(); N];
            for (place, block) in job.rows(group).iter().enumerate() {
                for step in 0..B::STEPS {
                    let quants = unpack(block.nibbles(step), half);
                    // SAFETY: the features are this function's.
                    let [scales, minima] = unsafe { block.scales(step, half) };
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let values = job.values(first + vector, place * B::STEPS + step);
                        let dot = _mm256_cvtepi32_ps(dot(&quants, values, B::OFFSET));
                        let scales = _mm256_mul_ps(scales, _mm256_set1_ps(values.scale));
                        *sum = _mm256_fmadd_ps(dot, scales, *sum);
                        if B::HAS_MINIMA {
                            *sum = _mm256_fmadd_ps(minima, _mm256_set1_ps(values.sum), *sum);
                        }
                    }
                }
            }
            for (vector, &sum) in sums.iter().enumerate() {
                job.write(group, first + vector, half * LANES, &lanes(sum));
            }
        }
    }
}

/// Products of 32 columns of each row.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(quants: &[__m256i; 8], values: &Values, offset: i32) -> __m256i {
    // Sixteen products of at most 15 × 127 fit into 16 bits.
    let mut pairs = _mm256_setzero_si256();
    for (&quants, &four) in quants.iter().zip(&values.quants) {
        let products = _mm256_maddubs_epi16(quants, _mm256_set1_epi32(four));
        pairs = _mm256_add_epi16(pairs, products);
    }
    let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let negative_sum = values.negative_sums[0] + values.negative_sums[1];
    _mm256_add_epi32(sums, _mm256_set1_epi32(offset * negative_sum))
}

#[inline]
#[target_feature(enable = "avx2")]
fn unpack(nibbles: &Nibbles, half: usize) -> [__m256i; 8] {
    let low = _mm256_set1_epi8(15);
    let mut quants = [_mm256_setzero_si256(); 8];
    for (part, both) in nibbles.iter().enumerate() {
        let both = load(both, half);
        quants[2 * part] = _mm256_and_si256(both, low);
        quants[2 * part + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
    }
    quants
}

impl Unpack for Q4_0 {
    const OFFSET: i32 = 8;

    fn nibbles(&self, _: usize) -> &Nibbles {
        &self.nibbles
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(&self, _: usize, half: usize) -> [__m256; 2] {
        [floats(&self.scales, half), _mm256_setzero_ps()]
    }
}

impl Unpack for Q4_1 {
    const OFFSET: i32 = 0;
    const HAS_MINIMA: bool = true;

    fn nibbles(&self, _: usize) -> &Nibbles {
        &self.nibbles
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(&self, _: usize, half: usize) -> [__m256; 2] {
        [floats(&self.scales, half), floats(&self.minima, half)]
    }
}

impl Unpack for Q4K {
    const OFFSET: i32 = 0;
    const HAS_MINIMA: bool = true;

    fn nibbles(&self, step: usize) -> &Nibbles {
        &self.nibbles[step]
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(&self, step: usize, half: usize) -> [__m256; 2] {
        let scales = _mm256_mul_ps(floats(&self.scale, half), unsigned(&self.scales[step], half));
        let minima = _mm256_mul_ps(floats(&self.least, half), unsigned(&self.minima[step], half));
        [scales, _mm256_sub_ps(_mm256_setzero_ps(), minima)]
    }
}

impl Vector for Values {
    unsafe fn convert(values: &[f32], blocks: &mut [Self]) {
        // SAFETY: all CPUs with kernels that read these blocks have AVX2.
        unsafe { quantise(values, blocks) };
    }
}

/// Quantises a vector to bytes, each block by its greatest magnitude, like llama.cpp's `Q8_0` and
/// `Q8_1`, but without rounding the scales to 16 bits.
#[target_feature(enable = "avx2")]
fn quantise(vector: &[f32], blocks: &mut [Values]) {
    let in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    for (values, block) in vector.as_chunks::<BLOCK>().0.iter().zip(blocks) {
        let mut eights = [_mm256_setzero_ps(); BLOCK / 8];
        let mut most = _mm256_setzero_ps();
        for (eight, values) in eights.iter_mut().zip(values.as_chunks::<8>().0) {
            // SAFETY: 32 bytes, and the load needs no alignment.
            *eight = unsafe { _mm256_loadu_ps(values.as_ptr()) };
            most = _mm256_max_ps(most, _mm256_and_ps(*eight, no_sign));
        }
        let most = lanes(most).into_iter().fold(0.0, f32::max);
        let finer = if most > 0.0 { 127.0 / most } else { 0.0 };
        let mut quants = [_mm256_setzero_si256(); BLOCK / 8];
        for (quants, &eight) in quants.iter_mut().zip(&eights) {
            *quants = _mm256_cvtps_epi32(_mm256_mul_ps(eight, _mm256_set1_ps(finer)));
        }
        let [a, b, c, d] = quants;
        let sum = |quants| whole(quants).into_iter().sum::<i32>();
        let sums = [sum(_mm256_add_epi32(a, b)), sum(_mm256_add_epi32(c, d))];
        // Packing operates on halves of registers and leaves groups of four out of order.
        let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let scale = most / 127.0;
        *block = Values {
            scale,
            negative_sums: sums.map(|sum| -sum),
            sum: scale * (sums[0] + sums[1]) as f32,
            quants: whole(_mm256_permutevar8x32_epi32(bytes, in_order)),
        };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &Fours, half: usize) -> __m256i {
    let half = &bytes.as_chunks::<{ 4 * LANES }>().0[half];
    // SAFETY: 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

/// Numbers of 16 bits of eight rows as floats.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn floats(numbers: &Each<u16>, half: usize) -> __m256 {
    let half = &numbers.as_chunks::<LANES>().0[half];
    // SAFETY: 16 bytes, and the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(half.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn unsigned(numbers: &Each<u8>, half: usize) -> __m256 {
    let half = &numbers.as_chunks::<LANES>().0[half];
    // SAFETY: 8 bytes, and the load needs no alignment.
    let numbers = unsafe { _mm_loadl_epi64(half.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(numbers))
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes(register: __m256) -> [f32; 8] {
    let mut floats = [0.0; 8];
    // SAFETY: 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_ps(floats.as_mut_ptr(), register) };
    floats
}

#[inline]
#[target_feature(enable = "avx2")]
fn whole(register: __m256i) -> [i32; 8] {
    let mut numbers = [0; 8];
    // SAFETY: 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), register) };
    numbers
}
