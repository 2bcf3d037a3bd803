//! Tests of the products against plain arithmetic, and of the kernels against each other.

use std::ptr;

use llama_cpp_sys_2::{
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_IQ4_XS, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K, GGML_TYPE_Q5_0, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0,
    ggml_get_type_traits,
};
use proptest::prelude::*;

use super::layout::{BLOCK, ROWS, Values, Vector};
use super::*;
use crate::backends::llama::wire::cpu::{CpuVariant, Kernels};

mod graphs;

/// A 16-bit float of two random bytes.
type Number = fn([u8; 2]) -> [u8; 2];

/// All types with kernels, with the bytes and columns of a block, the places of its 16-bit floats,
/// and how these are made.
const TYPES: [(u32, usize, usize, &[usize], Number); 10] = [
    (GGML_TYPE_Q4_0, 18, 32, &[0], f16),
    (GGML_TYPE_Q4_1, 20, 32, &[0, 2], f16),
    (GGML_TYPE_Q5_0, 22, 32, &[0], f16),
    (GGML_TYPE_Q8_0, 34, 32, &[0], f16),
    (GGML_TYPE_Q4_K, 144, 256, &[0, 2], f16),
    (GGML_TYPE_Q5_K, 176, 256, &[0, 2], f16),
    (GGML_TYPE_Q6_K, 210, 256, &[208], f16),
    (GGML_TYPE_IQ4_XS, 136, 256, &[0], f16),
    (GGML_TYPE_F16, 8, 4, &[0, 2, 4, 6], f16),
    (GGML_TYPE_BF16, 8, 4, &[0, 2, 4, 6], bf16),
];

/// A matrix in GGUF's bytes, with the values that llama.cpp reads from them.
#[derive(Debug)]
struct Matrix {
    ggml_type: u32,
    columns: usize,
    rows: usize,
    plain: Vec<u8>,
    /// By row.
    weights: Vec<f32>,
}

/// Between 2^-5 and 2^-1, with any sign and fraction.
fn f16([low, high]: [u8; 2]) -> [u8; 2] {
    [low, high & 0x83 | (10 + (high >> 2) % 4) << 2]
}

/// As [`f16`].
fn bf16([low, high]: [u8; 2]) -> [u8; 2] {
    let exponent = 122 + high % 4;
    [low & 0x7f | exponent << 7, high & 0x80 | exponent >> 1]
}

/// Blocks of random bytes, but for their f16.
fn matrix(which: usize, blocks: usize, rows: usize, noise: &[u8]) -> Matrix {
    let (ggml_type, bytes, block_columns, numbers, number) = TYPES[which];
    let columns = (blocks * block_columns).next_multiple_of(BLOCK);
    let mut noise = noise.iter().copied().cycle();
    let mut plain = Vec::new();
    for _ in 0..rows * columns / block_columns {
        let mut block: Vec<u8> = noise.by_ref().take(bytes).collect();
        for &at in numbers {
            let made = number([block[at], block[at + 1]]);
            block[at..at + 2].copy_from_slice(&made);
        }
        plain.extend(block);
    }
    let mut weights = vec![0.0; columns * rows];
    let count = i64::try_from(weights.len()).unwrap();
    // SAFETY: the traits are static.
    let to_float = unsafe { (*ggml_get_type_traits(ggml_type)).to_float.unwrap() };
    // SAFETY: `plain` holds blocks of the type for as many weights.
    unsafe { to_float(plain.as_ptr().cast(), weights.as_mut_ptr(), count) };
    Matrix { ggml_type, columns, rows, plain, weights }
}

impl Matrix {
    fn ggml_type(&self) -> c_int {
        c_int::try_from(self.ggml_type).unwrap()
    }

    /// Words, for their alignment.
    fn packed(&self) -> Vec<u64> {
        let bytes = packed_bytes(self.ggml_type(), self.columns, self.rows);
        let mut packed = vec![u64::MAX; bytes.div_ceil(8)];
        let (plain, into) = (self.plain.as_ptr().cast(), packed.as_mut_ptr().cast());
        // SAFETY: the buffers have the size of the matrix.
        unsafe { pack(self.ggml_type(), plain, into, self.columns, self.rows) };
        packed
    }

    /// The kernels' result, computed in three parts.
    fn times(&self, packed: &[u64], vectors: &[Vec<f32>]) -> Vec<f32> {
        let places: Vec<u32> = (0..).take(vectors.len()).collect();
        self.times_at(find(self.ggml_type()).unwrap().1, packed, vectors, &places)
    }

    /// Each vector's results are at its place.
    fn times_at(
        &self,
        multiply: Multiply,
        packed: &[u64],
        vectors: &[Vec<f32>],
        places: &[u32],
    ) -> Vec<f32> {
        let converted = self.converted(vectors);
        let mut out = vec![f32::NAN; vectors.len() * self.rows];
        let operands = Operands {
            packed: packed.as_ptr().cast(),
            columns: self.columns,
            rows: self.rows,
            vectors: converted.as_ptr().cast(),
            count: vectors.len(),
            out: out.as_mut_ptr(),
            stride: self.rows,
            places: if places.is_sorted() { ptr::null() } else { places.as_ptr() },
        };
        for part in 0..3 {
            // SAFETY: the buffers were made for the matrix, and the CPU was asked.
            unsafe { multiply(&operands, part, 3) };
        }
        out
    }

    fn converted(&self, vectors: &[Vec<f32>]) -> Vec<u32> {
        let words = vector_bytes(self.ggml_type(), self.columns) / 4;
        let mut converted = vec![u32::MAX; vectors.len() * words];
        for (vector, into) in vectors.iter().zip(converted.chunks_mut(words)) {
            let into = into.as_mut_ptr().cast();
            // SAFETY: both have the length of a row.
            unsafe { convert(self.ggml_type(), vector.as_ptr(), into, self.columns) };
        }
        converted
    }

    /// The exact product, and the sum of the magnitudes of its terms.
    fn exactly(&self, vector: &[f32], row: usize) -> (f64, f64) {
        let weights = &self.weights[row * self.columns..][..self.columns];
        let terms = weights.iter().zip(vector);
        let terms = terms.map(|(&weight, &value)| f64::from(weight) * f64::from(value));
        terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
    }
}

fn matrices() -> impl Strategy<Value = Matrix> {
    let sizes = (0..TYPES.len(), 1..4_usize, ROWS..10 * ROWS);
    (sizes, prop::collection::vec(any::<u8>(), 997))
        .prop_map(|((which, blocks, rows), noise)| matrix(which, blocks, rows, &noise))
}

/// Registers the kernels that this CPU runs. Without them llama.cpp computes the product.
fn registered() -> bool {
    table(CpuCode::best()).is_some()
}

/// Values that bytes hold exactly (the greatest of each block is 127): then only the kernels' sums
/// are inexact.
fn vectors(columns: usize, count: usize, noise: &[i8]) -> Vec<Vec<f32>> {
    let mut noise = noise.iter().map(|&number| f32::from(number.max(-127))).cycle();
    let mut vector = || {
        let mut vector: Vec<f32> = noise.by_ref().take(columns).collect();
        vector.iter_mut().step_by(BLOCK).for_each(|first| *first = 127.0);
        vector
    };
    (0..count).map(|_| vector()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_right_and_do_not_depend_on_their_neighbours(
        matrix in matrices(),
        count in 1..40_usize,
        noise in prop::collection::vec(any::<i8>(), 331),
    ) {
        prop_assume!(registered());
        prop_assume!(packs(matrix.ggml_type(), matrix.columns, matrix.rows));
        let (packed, vectors) = (matrix.packed(), vectors(matrix.columns, count, &noise));
        let products = matrix.times(&packed, &vectors);
        for (vector, products) in vectors.iter().zip(products.chunks(matrix.rows)) {
            for (row, &product) in products.iter().enumerate() {
                let (exact, magnitude) = matrix.exactly(vector, row);
                let error = (f64::from(product) - exact).abs();
                // The sums are of floats; minima and quants may cancel.
                prop_assert!(error <= magnitude * 2e-5 + 1e-3, "row {row}: {product} for {exact}");
            }
            let alone = matrix.times(&packed, std::slice::from_ref(vector));
            prop_assert!(alone == products);
        }
    }

    /// The AVX2 kernels on a CPU with AVX-512.
    #[test]
    fn both_kernels_of_four_bits_give_the_same(
        noise in prop::collection::vec(any::<u8>(), 997),
        numbers in prop::collection::vec(any::<i8>(), 331),
        count in 1..10_usize,
    ) {
        prop_assume!(registered() && CpuCode::best().has_avx512_kernels());
        let avx2 = CpuCode { variant: CpuVariant::Haswell, kernels: Kernels::Auto };
        for which in 0..TYPES.len() {
            let matrix = matrix(which, 2, 41, &noise);
            let Some((_, by_avx2)) = types::find(matrix.ggml_type(), avx2) else { continue };
            let vectors = vectors(matrix.columns, count, &numbers);
            let packed = matrix.packed();
            let places: Vec<u32> = (0..).take(count).collect();
            let by_avx2 = matrix.times_at(by_avx2, &packed, &vectors, &places);
            let by_avx512 = matrix.times(&packed, &vectors);
            for (&a, &b) in by_avx2.iter().zip(&by_avx512) {
                prop_assert!((a - b).abs() <= 1e-5 * a.abs().max(b.abs()) + 1e-5, "{a} {b}");
            }
        }
    }

    /// As the vectors of an expert, which belong to any tokens.
    #[test]
    fn results_go_to_their_places(
        matrix in matrices(),
        places in (1..40_u32).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()),
        noise in prop::collection::vec(any::<i8>(), 331),
    ) {
        prop_assume!(registered());
        let found = find(matrix.ggml_type());
        prop_assume!(found.is_some());
        let (packed, vectors) = (matrix.packed(), vectors(matrix.columns, places.len(), &noise));
        let in_order = matrix.times(&packed, &vectors);
        let placed = matrix.times_at(found.unwrap().1, &packed, &vectors, &places);
        for (products, &place) in in_order.chunks(matrix.rows).zip(&places) {
            prop_assert_eq!(products, &placed[place as usize * matrix.rows..][..matrix.rows]);
        }
    }

    /// Rounded to the nearest of 255 steps, and its sums are those of the steps.
    #[test]
    fn quantised_vectors_are_near_the_vectors(numbers in prop::collection::vec(-9.0..9.0_f32, 2 * BLOCK)) {
        prop_assume!(registered());
        let mut blocks = [Values::default(); 2];
        // SAFETY: the CPU was asked.
        unsafe { Values::convert(&numbers, &mut blocks) };
        for (numbers, block) in numbers.chunks(BLOCK).zip(&blocks) {
            let quants: Vec<i8> = block.quants.iter().flat_map(|four| four.to_le_bytes()).map(u8::cast_signed).collect();
            for (&number, &quant) in numbers.iter().zip(&quants) {
                prop_assert!((number - block.scale * f32::from(quant)).abs() <= block.scale * 0.5001);
            }
            let sums = [&quants[..16], &quants[16..]]
                .map(|half| half.iter().copied().map(i32::from).sum::<i32>());
            let sum: i32 = sums.iter().sum();
            prop_assert_eq!(block.negative_sums, sums.map(|sum| -sum));
            prop_assert!((block.sum - block.scale * sum as f32).abs() < 1e-3);
        }
    }
}

#[test]
fn a_zero_vector_quantises_to_zeros() {
    if registered() {
        let mut blocks = [Values { scale: 7.0, ..Values::default() }];
        // SAFETY: the CPU was asked.
        unsafe { Values::convert(&[0.0; BLOCK], &mut blocks) };
        assert_eq!(blocks, [Values::default()]);
    }
}

#[test]
fn only_whole_blocks_of_columns_and_at_least_a_group_of_rows_are_packed() {
    let has_kernels = registered();
    let [q4_1, q4_k] = [GGML_TYPE_Q4_1, GGML_TYPE_Q4_K].map(|id| c_int::try_from(id).unwrap());
    assert_eq!((packs(q4_1, 64, 35), packs(q4_k, 512, 16)), (has_kernels, has_kernels));
    assert_eq!(
        (packs(q4_1, 64, 15), packs(q4_1, 48, 32), packs(10, 64, 32)),
        (false, false, false)
    );
    assert!(!packs(q4_k, 288, 16) && !packs(q4_k, 576, 16));
}
