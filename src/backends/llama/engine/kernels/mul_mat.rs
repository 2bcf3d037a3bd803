//! Products of quantised weights with vectors on x86 CPUs: 4-bit types with AVX2, and these, 5- and
//! 6-bit types and `Q8_0` with AVX-512 (VNNI). `memory/repack_table.rs` lists them.
//!
//! llama.cpp multiplies many types row by row and vector by vector and unpacks the weights each
//! time. Here sixteen rows are interleaved when a model is loaded, and each unpacked weight is used
//! for up to eight vectors. The order of summation does not depend on the batch. `ggml_bridge.cpp`
//! is the interface to ggml.

#![expect(
    unsafe_code,
    reason = "llama.cpp calls in with pointers, and vector instructions are unsafe"
)]

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use llama_cpp_sys_2::{
    GGML_TYPE_IQ4_XS, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0,
};

use layout::{BLOCK, Block, Q4_0, Q4_1, Q5_0, Q8_0, ROWS, Values};
use superblocks::{Iq4Xs, Q4K, Q5K, Q6K};
use tiles::Job;

use crate::backends::llama::memory::repack_table::kernels_pack;
use crate::backends::llama::wire::cpu::CpuCode;

mod avx2;
mod avx512;
mod layout;
mod superblocks;
mod tiles;

/// Function table for `ggml_bridge.cpp`; mirrors its `wattgate_kernels`.
#[repr(C)]
pub(super) struct KernelTable {
    packs: extern "C" fn(c_int, usize, usize) -> bool,
    packed_bytes: extern "C" fn(c_int, usize, usize) -> usize,
    pack: unsafe extern "C" fn(c_int, *const c_void, *mut c_void, usize, usize),
    quantised_bytes: extern "C" fn(usize) -> usize,
    quantise: unsafe extern "C" fn(*const f32, *mut c_void, usize),
    multiply: unsafe extern "C" fn(
        c_int,
        *const c_void,
        usize,
        usize,
        *const c_void,
        usize,
        *mut f32,
        usize,
        usize,
        usize,
    ),
}

/// Number of packed matrices.
static PACKED: AtomicU32 = AtomicU32::new(0);

/// Set when the kernels are registered.
static CODE: OnceLock<CpuCode> = OnceLock::new();

static KERNELS: KernelTable =
    KernelTable { packs, packed_bytes, pack, quantised_bytes, quantise, multiply };

/// The table of the kernels that `code` has, if it has any. They do not change any more.
pub(super) fn table(code: CpuCode) -> Option<&'static KernelTable> {
    let code = *CODE.get_or_init(|| code);
    code.has_avx2_kernels().then_some(&KERNELS)
}

/// Number of matrices packed so far.
pub(super) fn packed_tensors() -> u32 {
    PACKED.load(Ordering::Relaxed)
}

/// Evaluates an expression with `$block` as the packed block of a ggml type, or gives `None` for a
/// type without kernels.
macro_rules! with_block {
    ($ggml_type:expr, $block:ident => $then:expr) => {
        with_block!($ggml_type, $block => $then,
            GGML_TYPE_Q4_0 Q4_0, GGML_TYPE_Q4_1 Q4_1, GGML_TYPE_Q4_K Q4K, GGML_TYPE_Q5_0 Q5_0,
            GGML_TYPE_Q5_K Q5K, GGML_TYPE_Q6_K Q6K, GGML_TYPE_Q8_0 Q8_0, GGML_TYPE_IQ4_XS Iq4Xs)
    };
    ($ggml_type:expr, $block:ident => $then:expr, $($id:ident $type:ident),+) => {
        match packed_type($ggml_type) {
            $(Some($id) => {
                type $block = $type;
                Some($then)
            })+
            _ => None,
        }
    };
}

/// The type's id, if kernels multiply it.
fn packed_type(ggml_type: c_int) -> Option<u32> {
    let id = u32::try_from(ggml_type).ok()?;
    CODE.get().is_some_and(|&code| kernels_pack(id, code)).then_some(id)
}

extern "C" fn packs(ggml_type: c_int, columns: usize, rows: usize) -> bool {
    let steps = with_block!(ggml_type, Packed => Packed::STEPS);
    steps.is_some_and(|steps| columns.is_multiple_of(BLOCK * steps) && rows.is_multiple_of(ROWS))
}

extern "C" fn packed_bytes(ggml_type: c_int, columns: usize, rows: usize) -> usize {
    with_block!(ggml_type, Packed => blocks::<Packed>(columns, rows) * size_of::<Packed>())
        .unwrap_or(0)
}

/// Packed blocks of a matrix.
fn blocks<B: Block>(columns: usize, rows: usize) -> usize {
    columns / (BLOCK * B::STEPS) * (rows / ROWS)
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
    PACKED.fetch_add(1, Ordering::Relaxed);
    let _no_kernel = with_block!(ggml_type, Packed => {
        let blocks = blocks::<Packed>(columns, rows);
        // SAFETY: guaranteed by the caller; any bytes are valid blocks.
        let (plain, packed) = unsafe {
            let bytes = blocks * ROWS * Packed::PLAIN_BYTES;
            (
                slice::from_raw_parts(plain.cast(), bytes),
                slice::from_raw_parts_mut(packed.cast::<Packed>(), blocks),
            )
        };
        layout::pack(plain, columns, packed);
    });
}

extern "C" fn quantised_bytes(columns: usize) -> usize {
    columns / BLOCK * size_of::<Values>()
}

/// # Safety
///
/// `vector` has `columns` floats, `quantised` has [`quantised_bytes`], and kernels are registered.
unsafe extern "C" fn quantise(vector: *const f32, quantised: *mut c_void, columns: usize) {
    // SAFETY: guaranteed by the caller; kernels are registered only on CPUs with AVX2.
    unsafe {
        let vector = slice::from_raw_parts(vector, columns);
        let blocks = slice::from_raw_parts_mut(quantised.cast(), columns / BLOCK);
        avx2::quantise(vector, blocks);
    }
}

/// # Safety
///
/// `packed` was written by [`pack`] for this type and size, `quantised` holds `vectors` results of
/// [`quantise`], `out` has `stride` (at least `rows`) floats for each of them, and each thread has
/// its own `part`.
unsafe extern "C" fn multiply(
    ggml_type: c_int,
    packed: *const c_void,
    columns: usize,
    rows: usize,
    quantised: *const c_void,
    vectors: usize,
    out: *mut f32,
    stride: usize,
    part: usize,
    parts: usize,
) {
    let Some(code) = CODE.get() else { return };
    // SAFETY: guaranteed by the caller.
    unsafe {
        let vectors = slice::from_raw_parts(quantised.cast(), vectors * columns / BLOCK);
        let place = Place { packed, columns, rows, vectors, out, stride };
        if code.has_avx512_kernels() {
            // SAFETY: the variant has AVX-512 with VNNI.
            let _no_kernel = with_block!(ggml_type, Packed => {
                multiply_512(&place.job::<Packed>(), part, parts);
            });
        } else {
            place.multiply_256(ggml_type, part, parts);
        }
    }
}

/// The arguments of [`multiply`] before the type is known.
struct Place<'a> {
    packed: *const c_void,
    columns: usize,
    rows: usize,
    vectors: &'a [Values],
    out: *mut f32,
    stride: usize,
}

impl<'a> Place<'a> {
    /// # Safety
    ///
    /// As [`multiply`], for a matrix of this block.
    unsafe fn job<B: Block>(&self) -> Job<'a, B> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let blocks = blocks::<B>(self.columns, self.rows);
            let packed = slice::from_raw_parts(self.packed.cast::<B>(), blocks);
            Job::new(packed, self.vectors, self.columns, self.out, self.stride)
        }
    }

    /// # Safety
    ///
    /// As [`multiply`]; the CPU has AVX2, FMA and F16C.
    unsafe fn multiply_256(&self, ggml_type: c_int, part: usize, parts: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match u32::try_from(ggml_type) {
                Ok(GGML_TYPE_Q4_0) => multiply_256(&self.job::<Q4_0>(), part, parts),
                Ok(GGML_TYPE_Q4_1) => multiply_256(&self.job::<Q4_1>(), part, parts),
                Ok(GGML_TYPE_Q4_K) => multiply_256(&self.job::<Q4K>(), part, parts),
                _ => {}
            }
        }
    }
}

/// A function that computes its part of a job, in tiles of the listed widths. The sums of the
/// widest and the weights fill the registers.
macro_rules! multiply {
    ($name:ident, $features:literal, $module:ident, $($width:literal)+) => {
        #[target_feature(enable = $features)]
        fn $name<B: $module::Unpack>(job: &Job<'_, B>, part: usize, parts: usize) {
            for group in job.part(part, parts) {
                job.tiles(&[$($width),+], |first, width| match width {
                    $($width => $module::product::<B, $width>(job, group, first),)+
                    _ => {}
                });
            }
        }
    };
}

multiply!(multiply_512, "avx512f,avx512bw,avx512vnni", avx512, 1 2 3 4 5 6 7 8 12 16);
multiply!(multiply_256, "avx2,fma,f16c", avx2, 1 2 3 4);

#[cfg(test)]
mod tests;
