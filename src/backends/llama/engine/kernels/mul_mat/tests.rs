//! Tests of the products against plain arithmetic, and of the kernels against each other.

use proptest::prelude::*;

use super::*;

/// A matrix in GGUF's bytes, with the values they encode.
#[derive(Debug)]
struct Matrix {
    ggml_type: u32,
    columns: usize,
    rows: usize,
    plain: Vec<u8>,
    /// By row; exact.
    weights: Vec<f64>,
}

/// Powers of two, exact in 16 bits: sign, exponent 2^(bits − 15), no fraction.
fn half(exponent: u8, negative: bool) -> (u16, f64) {
    let exponent = u16::from(10 + exponent % 4);
    let value = f64::powi(2.0, i32::from(exponent) - 15);
    (exponent << 10 | u16::from(negative) << 15, if negative { -value } else { value })
}

fn q4_1(columns: usize, rows: usize, noise: &[u8]) -> Matrix {
    let (mut plain, mut weights) = (Vec::new(), Vec::new());
    let mut noise = noise.iter().copied().cycle();
    let mut next = || noise.next().unwrap();
    for _ in 0..rows * columns / BLOCK {
        let (scale, by) = half(next(), false);
        let (minimum, least) = half(next(), true);
        plain.extend(scale.to_le_bytes());
        plain.extend(minimum.to_le_bytes());
        let quants: Vec<u8> = (0..16).map(|_| next()).collect();
        let nibbles = quants.iter().map(|q| q & 15).chain(quants.iter().map(|q| q >> 4));
        weights.extend(nibbles.map(|quant| f64::from(quant) * by + least));
        plain.extend(quants);
    }
    Matrix { ggml_type: GGML_TYPE_Q4_1, columns, rows, plain, weights }
}

fn q8_0(columns: usize, rows: usize, noise: &[u8]) -> Matrix {
    let (mut plain, mut weights) = (Vec::new(), Vec::new());
    let mut noise = noise.iter().copied().cycle();
    let mut next = || noise.next().unwrap();
    for _ in 0..rows * columns / BLOCK {
        let (scale, by) = half(next(), false);
        plain.extend(scale.to_le_bytes());
        for _ in 0..BLOCK {
            let quant = next();
            plain.push(quant);
            weights.push(f64::from(quant.cast_signed()) * by);
        }
    }
    Matrix { ggml_type: GGML_TYPE_Q8_0, columns, rows, plain, weights }
}

impl Matrix {
    fn ggml_type(&self) -> c_int {
        c_int::try_from(self.ggml_type).unwrap()
    }

    fn packed(&self) -> Vec<u8> {
        let mut packed = vec![0; self.plain.len()];
        let (plain, into) = (self.plain.as_ptr().cast(), packed.as_mut_ptr().cast());
        // SAFETY: the buffers have the size of the matrix. Vectors of bytes from this allocator are
        // aligned to 16.
        unsafe { pack(self.ggml_type(), plain, into, self.columns, self.rows) };
        packed
    }

    /// The kernels' result, computed in three parts.
    fn times(&self, packed: &[u8], vectors: &[Vec<f32>]) -> Vec<f32> {
        let mut quantised = vec![Values::default(); vectors.len() * self.columns / BLOCK];
        for (vector, into) in vectors.iter().zip(quantised.chunks_mut(self.columns / BLOCK)) {
            // SAFETY: both have the length of a row.
            unsafe { quantise(vector.as_ptr(), into.as_mut_ptr().cast(), self.columns) };
        }
        let mut out = vec![f32::NAN; vectors.len() * self.rows];
        for part in 0..3 {
            // SAFETY: as the buffers above were made.
            unsafe {
                multiply(
                    self.ggml_type(),
                    packed.as_ptr().cast(),
                    self.columns,
                    self.rows,
                    quantised.as_ptr().cast(),
                    vectors.len(),
                    out.as_mut_ptr(),
                    self.rows,
                    part,
                    3,
                );
            }
        }
        out
    }

    /// The exact product, and the sum of the magnitudes of its terms.
    fn exactly(&self, vector: &[f32], row: usize) -> (f64, f64) {
        let weights = &self.weights[row * self.columns..][..self.columns];
        let terms = weights.iter().zip(vector).map(|(weight, &value)| weight * f64::from(value));
        terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
    }
}

fn matrices() -> impl Strategy<Value = Matrix> {
    let sizes = (1..6_usize, 1..8_usize);
    (sizes, prop::collection::vec(any::<u8>(), 997), any::<bool>()).prop_map(
        |((blocks, groups), noise, nibbles)| {
            let make = if nibbles { q4_1 } else { q8_0 };
            make(blocks * BLOCK, groups * ROWS, &noise)
        },
    )
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
        count in 1..20_usize,
        noise in prop::collection::vec(any::<i8>(), 331),
    ) {
        // Without kernels llama.cpp computes the product.
        prop_assume!(has_avx2_kernels());
        prop_assume!(packs(matrix.ggml_type(), matrix.columns, matrix.rows));
        let (packed, vectors) = (matrix.packed(), vectors(matrix.columns, count, &noise));
        let products = matrix.times(&packed, &vectors);
        for (vector, products) in vectors.iter().zip(products.chunks(matrix.rows)) {
            for (row, &product) in products.iter().enumerate() {
                let (exact, magnitude) = matrix.exactly(vector, row);
                let error = (f64::from(product) - exact).abs();
                prop_assert!(error <= magnitude * 1e-5, "row {row}: {product} for {exact}");
            }
            let alone = matrix.times(&packed, std::slice::from_ref(vector));
            prop_assert!(alone == products);
        }
    }

    /// The AVX2 kernel on a CPU with AVX-512.
    #[test]
    fn both_kernels_of_q4_1_give_the_same(
        noise in prop::collection::vec(any::<u8>(), 997),
        numbers in prop::collection::vec(any::<i8>(), 331),
        count in 1..10_usize,
    ) {
        prop_assume!(has_avx2_kernels() && has_avx512_kernels());
        let matrix = q4_1(5 * BLOCK, 3 * ROWS, &noise);
        let vectors = vectors(matrix.columns, count, &numbers);
        let mut quantised = vec![Values::default(); count * 5];
        for (vector, into) in vectors.iter().zip(quantised.chunks_mut(5)) {
            // SAFETY: the CPU was asked.
            unsafe { avx2::quantise(vector, into) };
        }
        let mut packed = vec![Nibbles { scales: [0; 16], minima: [0; 16], quants: [[0; 64]; 4] }; 15];
        layout::pack_q4_1(&matrix.plain, 5, &mut packed);
        let mut out = vec![f32::NAN; count * matrix.rows];
        // SAFETY: the job has room for all results, and the CPU was asked.
        unsafe {
            let job = Job::new(&packed, &quantised, 5, out.as_mut_ptr(), matrix.rows);
            multiply_q4_1_256(&job, 0, 1);
        }
        let bytes = matrix.packed();
        prop_assert!(out == matrix.times(&bytes, &vectors));
    }

    /// Rounded to the nearest of 255 steps, and its sums are those of the steps.
    #[test]
    fn quantised_vectors_are_near_the_vectors(numbers in prop::collection::vec(-9.0..9.0_f32, 2 * BLOCK)) {
        prop_assume!(has_avx2_kernels());
        let mut blocks = [Values::default(); 2];
        // SAFETY: the CPU was asked.
        unsafe { avx2::quantise(&numbers, &mut blocks) };
        for (numbers, block) in numbers.chunks(BLOCK).zip(&blocks) {
            let quants: Vec<i8> = block.quants.iter().flat_map(|four| four.to_le_bytes()).map(u8::cast_signed).collect();
            for (&number, &quant) in numbers.iter().zip(&quants) {
                prop_assert!((number - block.scale * f32::from(quant)).abs() <= block.scale * 0.5001);
            }
            let sum: i32 = quants.iter().copied().map(i32::from).sum();
            prop_assert_eq!(block.excess, -128 * sum);
            prop_assert!((block.sum - block.scale * sum as f32).abs() < 1e-3);
        }
    }
}

#[test]
fn a_zero_vector_quantises_to_zeros() {
    if has_avx2_kernels() {
        let mut blocks = [Values { scale: 7.0, ..Values::default() }];
        // SAFETY: the CPU was asked.
        unsafe { avx2::quantise(&[0.0; BLOCK], &mut blocks) };
        assert_eq!(blocks, [Values::default()]);
    }
}

#[test]
fn only_whole_groups_of_rows_are_packed() {
    let q4_1 = c_int::try_from(GGML_TYPE_Q4_1).unwrap();
    assert!(packs(q4_1, 64, 32));
    assert_eq!((packs(q4_1, 64, 24), packs(q4_1, 48, 32), packs(0, 64, 32)), (false, false, false));
}
