//! Table of the weight types that kernels multiply, with their functions.

use std::ffi::{c_int, c_void};
use std::slice;

use llama_cpp_sys_2::{
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_IQ4_XS, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K, GGML_TYPE_Q5_0, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0,
};

use super::floats::{Bf16, F16};
use super::layout::{self, BLOCK, Block, Q4_0, Q4_1, Q5_0, Q8_0, ROWS, Vector, vector_blocks};
use super::superblocks::{Iq4Xs, Q4K, Q5K, Q6K};
use super::tiles::{Job, Results};
use super::{avx2, avx512};
use crate::backends::llama::wire::cpu::CpuCode;

/// The functions of a type, by the code that they need.
pub(super) struct Type {
    id: u32,
    block_bytes: usize,
    /// Columns of a block.
    columns: usize,
    vector_block_bytes: usize,
    pub(super) pack: Pack,
    pub(super) convert: Convert,
    by_avx2: Option<Multiply>,
    by_avx512: Option<Multiply>,
    by_avx512_bf16: Option<Multiply>,
}

/// Packs a matrix of so many columns and rows.
///
/// # Safety
///
/// The first pointer is to the matrix in GGUF's layout, the second to [`Type::packed_bytes`],
/// aligned to 8.
type Pack = unsafe fn(*const c_void, *mut c_void, usize, usize);

/// Converts a vector into [`Type::vector_bytes`], aligned to 4.
///
/// # Safety
///
/// The CPU runs a kernel of this type, and the pointer is to so many bytes.
type Convert = unsafe fn(&[f32], *mut c_void);

/// Multiplies one part of so many.
///
/// # Safety
///
/// The operands are as [`Operands`] says, for this type; each thread has its own part, and the CPU
/// runs the code.
pub(super) type Multiply = unsafe fn(&Operands, usize, usize);

/// Operands of a product; mirrors `wattgate_operands` in `ggml_bridge.cpp`.
#[repr(C)]
pub(super) struct Operands {
    /// Made by [`Type::pack`].
    pub(super) packed: *const c_void,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Made by [`Type::convert`], [`Type::vector_bytes`] apart.
    pub(super) vectors: *const c_void,
    pub(super) count: usize,
    /// Has `stride` floats, at least `rows`, for each place.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    /// A place for the results of each vector, no two the same; null for their own order.
    pub(super) places: *const u32,
}

static TYPES: [Type; 10] = [
    Type::of::<Q4_0>(GGML_TYPE_Q4_0).avx2::<Q4_0>().avx512::<Q4_0>(),
    Type::of::<Q4_1>(GGML_TYPE_Q4_1).avx2::<Q4_1>().avx512::<Q4_1>(),
    Type::of::<Q4K>(GGML_TYPE_Q4_K).avx2::<Q4K>().avx512::<Q4K>(),
    Type::of::<Q5_0>(GGML_TYPE_Q5_0).avx512::<Q5_0>(),
    Type::of::<Q5K>(GGML_TYPE_Q5_K).avx512::<Q5K>(),
    Type::of::<Q6K>(GGML_TYPE_Q6_K).avx512::<Q6K>(),
    Type::of::<Q8_0>(GGML_TYPE_Q8_0).avx512::<Q8_0>(),
    Type::of::<Iq4Xs>(GGML_TYPE_IQ4_XS).avx512::<Iq4Xs>(),
    Type::of::<F16>(GGML_TYPE_F16).avx512::<F16>(),
    Type::of::<Bf16>(GGML_TYPE_BF16).avx512_bf16::<Bf16>(),
];

/// The type with this id of ggml's, with the fastest code for the CPU; `None` without kernels.
pub(super) fn find(ggml_type: c_int, cpu: CpuCode) -> Option<(&'static Type, Multiply)> {
    let found = TYPES.iter().find(|each| Ok(each.id) == u32::try_from(ggml_type))?;
    Some((found, found.multiply(cpu)?))
}

impl Type {
    const fn of<B: Block>(id: u32) -> Self {
        Self {
            id,
            block_bytes: size_of::<B>(),
            columns: B::STEPS * BLOCK,
            vector_block_bytes: size_of::<B::Vector>(),
            pack: pack::<B>,
            convert: convert::<B::Vector>,
            by_avx2: None,
            by_avx512: None,
            by_avx512_bf16: None,
        }
    }

    const fn avx2<B: avx2::Product>(self) -> Self {
        Self { by_avx2: Some(multiply_256::<B>), ..self }
    }

    const fn avx512<B: avx512::Product>(self) -> Self {
        Self { by_avx512: Some(multiply_512::<B>), ..self }
    }

    const fn avx512_bf16<B: avx512::Product>(self) -> Self {
        Self { by_avx512_bf16: Some(multiply_512::<B>), ..self }
    }

    fn multiply(&self, cpu: CpuCode) -> Option<Multiply> {
        let by_bf16 = self.by_avx512_bf16.filter(|_| cpu.has_avx512_bf16_kernels());
        let by_avx512 = || self.by_avx512.filter(|_| cpu.has_avx512_kernels());
        let by_avx2 = || self.by_avx2.filter(|_| cpu.has_avx2_kernels());
        by_bf16.or_else(by_avx512).or_else(by_avx2)
    }

    /// Whether a matrix can be packed: its rows have whole blocks, and are enough for a group.
    pub(super) fn fits(&self, columns: usize, rows: usize) -> bool {
        columns.is_multiple_of(self.columns) && rows >= ROWS
    }

    pub(super) fn packed_bytes(&self, columns: usize, rows: usize) -> usize {
        columns / self.columns * rows.div_ceil(ROWS) * self.block_bytes
    }

    pub(super) fn vector_bytes(&self, columns: usize) -> usize {
        vector_blocks(columns) * self.vector_block_bytes
    }
}

/// Packed blocks of a matrix.
fn blocks<B: Block>(columns: usize, rows: usize) -> usize {
    columns / (BLOCK * B::STEPS) * rows.div_ceil(ROWS)
}

/// A [`Pack`].
unsafe fn pack<B: Block>(plain: *const c_void, packed: *mut c_void, columns: usize, rows: usize) {
    let plain_blocks = columns / (BLOCK * B::STEPS) * rows;
    let blocks = blocks::<B>(columns, rows);
    // SAFETY: guaranteed by the caller; any bytes are valid blocks, and zeros stand for the rows
    // that the last group lacks.
    let (plain, packed) = unsafe {
        if !rows.is_multiple_of(ROWS) {
            packed.cast::<B>().write_bytes(0, blocks);
        }
        (
            slice::from_raw_parts(plain.cast(), plain_blocks * B::PLAIN_BYTES),
            slice::from_raw_parts_mut(packed.cast::<B>(), blocks),
        )
    };
    layout::pack(plain, columns, packed);
}

/// A [`Convert`].
unsafe fn convert<V: Vector>(values: &[f32], converted: *mut c_void) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        V::convert(values, slice::from_raw_parts_mut(converted.cast(), values.len() / BLOCK));
    }
}

impl Operands {
    /// # Safety
    ///
    /// As [`Multiply`], for a matrix of this block.
    unsafe fn job<B: Block>(&self) -> Job<'_, B> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let blocks = blocks::<B>(self.columns, self.rows);
            let places =
                (!self.places.is_null()).then(|| slice::from_raw_parts(self.places, self.count));
            Job::new(
                slice::from_raw_parts(self.packed.cast(), blocks),
                slice::from_raw_parts(
                    self.vectors.cast(),
                    self.count * vector_blocks(self.columns),
                ),
                (self.columns, self.rows),
                Results { out: self.out, stride: self.stride, places },
            )
        }
    }
}

/// A [`Multiply`] in tiles of the listed widths. The sums of the widest and the weights fill the
/// registers.
macro_rules! multiply {
    ($name:ident, $module:ident, $($width:literal)+) => {
        unsafe fn $name<B: $module::Product>(operands: &Operands, part: usize, parts: usize) {
            // SAFETY: guaranteed by the caller.
            let job = unsafe { operands.job::<B>() };
            job.tiles((part, parts), &[$($width),+], |group, first, width| match width {
                $($width => {
                    // SAFETY: guaranteed by the caller; tiles are of the job.
                    unsafe { B::product::<$width>(&job, group, first) };
                })+
                _ => {}
            });
        }
    };
}

multiply!(multiply_512, avx512, 1 2 3 4 5 6 7 8 12 16 24);
multiply!(multiply_256, avx2, 1 2 3 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::llama::memory::gguf::Tensor;
    use crate::backends::llama::memory::repack_table::{copied_bytes, kernels_pack};
    use crate::backends::llama::wire::cpu::{CpuVariant, Kernels};

    /// The memory estimate's table is data that the gateway's process has too.
    #[test]
    fn the_memory_estimate_knows_what_is_packed() {
        let codes = CpuVariant::ALL.map(|variant| CpuCode { variant, kernels: Kernels::Auto });
        for (id, cpu) in (0..64).flat_map(|id| codes.map(|cpu| (id, cpu))) {
            let found = find(c_int::try_from(id).unwrap(), cpu);
            assert_eq!(found.is_some(), kernels_pack(id, cpu), "type {id} by {cpu:?}");
            let bytes = found.map(|(found, _)| found.packed_bytes(256, 16) as u64);
            let tensor = Tensor { kind: id, weights: 256 * 16 };
            assert!(bytes.is_none_or(|bytes| bytes == copied_bytes(tensor, cpu)), "type {id}");
        }
    }
}
