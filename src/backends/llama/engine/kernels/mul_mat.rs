//! Products of weights with vectors on x86 CPUs: 4-bit types with AVX2, and these, 5- and 6-bit
//! types, `Q8_0` and 16-bit floats with AVX-512. `types.rs` lists them.
//!
//! llama.cpp multiplies many types row by row and vector by vector and unpacks the weights each
//! time. Here sixteen rows are interleaved when a model is loaded, and each unpacked weight is used
//! for many vectors. The order of summation does not depend on the batch. `ggml_bridge.cpp` is the
//! interface to ggml.

#![expect(
    unsafe_code,
    reason = "llama.cpp calls in with pointers, and vector instructions are unsafe"
)]

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use types::{Multiply, Operands, Type};

use crate::backends::llama::wire::cpu::CpuCode;

mod avx2;
mod avx512;
mod floats;
mod layout;
mod superblocks;
mod tiles;
mod types;

/// Function table for `ggml_bridge.cpp`; mirrors its `wattgate_kernels`.
#[repr(C)]
pub(super) struct KernelTable {
    packs: extern "C" fn(c_int, usize, usize) -> bool,
    packed_bytes: extern "C" fn(c_int, usize, usize) -> usize,
    pack: unsafe extern "C" fn(c_int, *const c_void, *mut c_void, usize, usize),
    vector_bytes: extern "C" fn(c_int, usize) -> usize,
    convert: unsafe extern "C" fn(c_int, *const f32, *mut c_void, usize),
    multiply: unsafe extern "C" fn(c_int, *const Operands, usize, usize),
}

/// Number of packed matrices.
static PACKED: AtomicU32 = AtomicU32::new(0);

/// Set when the kernels are registered.
static CODE: OnceLock<CpuCode> = OnceLock::new();

static KERNELS: KernelTable =
    KernelTable { packs, packed_bytes, pack, vector_bytes, convert, multiply };

/// The table of the kernels that `code` has, if it has any. They do not change any more.
pub(super) fn table(code: CpuCode) -> Option<&'static KernelTable> {
    let code = *CODE.get_or_init(|| code);
    code.has_avx2_kernels().then_some(&KERNELS)
}

/// Number of matrices packed so far.
pub(super) fn packed_tensors() -> u32 {
    PACKED.load(Ordering::Relaxed)
}

fn find(ggml_type: c_int) -> Option<(&'static Type, Multiply)> {
    types::find(ggml_type, *CODE.get()?)
}

extern "C" fn packs(ggml_type: c_int, columns: usize, rows: usize) -> bool {
    find(ggml_type).is_some_and(|(found, _)| found.fits(columns, rows))
}

extern "C" fn packed_bytes(ggml_type: c_int, columns: usize, rows: usize) -> usize {
    find(ggml_type).map_or(0, |(found, _)| found.packed_bytes(columns, rows))
}

/// # Safety
///
/// `plain` is a matrix for which [`packs`] is true, `packed` has [`packed_bytes`], aligned to 8.
unsafe extern "C" fn pack(
    ggml_type: c_int,
    plain: *const c_void,
    packed: *mut c_void,
    columns: usize,
    rows: usize,
) {
    let Some((found, _)) = find(ggml_type) else { return };
    PACKED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: guaranteed by the caller.
    unsafe { (found.pack)(plain, packed, columns, rows) };
}

extern "C" fn vector_bytes(ggml_type: c_int, columns: usize) -> usize {
    find(ggml_type).map_or(0, |(found, _)| found.vector_bytes(columns))
}

/// # Safety
///
/// `vector` has `columns` floats, and `converted` has [`vector_bytes`], aligned to 4.
unsafe extern "C" fn convert(
    ggml_type: c_int,
    vector: *const f32,
    converted: *mut c_void,
    columns: usize,
) {
    let Some((found, _)) = find(ggml_type) else { return };
    // SAFETY: guaranteed by the caller; the CPU runs the type's kernel, or there would be none.
    unsafe { (found.convert)(slice::from_raw_parts(vector, columns), converted) };
}

/// # Safety
///
/// As [`Multiply`], for operands of this type.
unsafe extern "C" fn multiply(
    ggml_type: c_int,
    operands: *const Operands,
    part: usize,
    parts: usize,
) {
    let Some((_, multiply)) = find(ggml_type) else { return };
    // SAFETY: guaranteed by the caller; the CPU runs the type's kernel, or there would be none.
    unsafe { multiply(&*operands, part, parts) };
}

#[cfg(test)]
mod tests;
