//! Products of quantised weights with vectors on x86 CPUs, faster than llama.cpp's for types
//! without a tuned layout: `Q4_1` (AVX2, AVX-512) and `Q8_0` (AVX-512). CPU features are detected
//! at run time.
//!
//! llama.cpp multiplies these types row by row and vector by vector and unpacks the weights each
//! time. Here sixteen rows are interleaved when a model is loaded, and each unpacked weight is used
//! for up to eight vectors. The order of summation does not depend on the batch. `ggml_bridge.cpp`
//! is the interface to ggml.

#![expect(
    unsafe_code,
    reason = "llama.cpp calls in with pointers, and vector instructions are unsafe"
)]

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use llama_cpp_sys_2::{GGML_TYPE_Q4_1, GGML_TYPE_Q8_0};

use layout::{BLOCK, Bytes, Nibbles, ROWS, Values};
use tiles::Job;

use crate::backends::llama::memory::repack_table::{has_avx2_kernels, has_avx512_kernels};

mod avx2;
mod avx512;
mod layout;
mod tiles;

/// Function table for `ggml_bridge.cpp`; mirrors its `wattgate_kernels`.
#[repr(C)]
struct Kernels {
    packs: extern "C" fn(c_int, usize, usize) -> bool,
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

unsafe extern "C" {
    fn wattgate_register_kernels(kernels: *const Kernels);
}

/// Number of packed matrices.
static PACKED: AtomicU32 = AtomicU32::new(0);

static KERNELS: Kernels = Kernels { packs, pack, quantised_bytes, quantise, multiply };

/// Registers the kernels with llama.cpp if the CPU supports them. Call once, before the first model
/// is loaded.
pub(super) fn register() {
    if has_avx2_kernels() {
        // SAFETY: the table is static, and no other thread uses llama.cpp yet.
        unsafe { wattgate_register_kernels(&raw const KERNELS) };
    }
}

/// Number of matrices packed so far.
pub(super) fn packed_tensors() -> u32 {
    PACKED.load(Ordering::Relaxed)
}

/// Weight types with kernels.
#[derive(Clone, Copy)]
enum Type {
    Q4_1,
    Q8_0,
}

impl Type {
    fn of(ggml_type: c_int) -> Option<Self> {
        match u32::try_from(ggml_type).ok()? {
            GGML_TYPE_Q4_1 => Some(Self::Q4_1),
            GGML_TYPE_Q8_0 if has_avx512_kernels() => Some(Self::Q8_0),
            _ => None,
        }
    }
}

extern "C" fn packs(ggml_type: c_int, columns: usize, rows: usize) -> bool {
    Type::of(ggml_type).is_some() && columns.is_multiple_of(BLOCK) && rows.is_multiple_of(ROWS)
}

/// # Safety
///
/// `plain` and `packed` have the size of a matrix for which [`packs`] is true.
unsafe extern "C" fn pack(
    ggml_type: c_int,
    plain: *const c_void,
    packed: *mut c_void,
    columns: usize,
    rows: usize,
) {
    PACKED.fetch_add(1, Ordering::Relaxed);
    let (blocks, packed_blocks) = (columns / BLOCK, columns / BLOCK * rows / ROWS);
    // SAFETY: a packed matrix has the size of a plain one, which the caller guarantees.
    unsafe {
        match Type::of(ggml_type) {
            Some(Type::Q4_1) => {
                let plain =
                    slice::from_raw_parts(plain.cast(), packed_blocks * size_of::<Nibbles>());
                let packed = slice::from_raw_parts_mut(packed.cast(), packed_blocks);
                layout::pack_q4_1(plain, blocks, packed);
            }
            Some(Type::Q8_0) => {
                let plain = slice::from_raw_parts(plain.cast(), packed_blocks * size_of::<Bytes>());
                let packed = slice::from_raw_parts_mut(packed.cast(), packed_blocks);
                layout::pack_q8_0(plain, blocks, packed);
            }
            None => {}
        }
    }
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
    let blocks = columns / BLOCK;
    let packed_blocks = rows / ROWS * blocks;
    // SAFETY: guaranteed by the caller; kernels are called only on CPUs that support them.
    unsafe {
        let vectors = slice::from_raw_parts(quantised.cast(), vectors * blocks);
        match Type::of(ggml_type) {
            Some(Type::Q4_1) => {
                let packed = slice::from_raw_parts(packed.cast(), packed_blocks);
                let job = Job::new(packed, vectors, blocks, out, stride);
                if has_avx512_kernels() {
                    multiply_q4_1_512(&job, part, parts);
                } else {
                    multiply_q4_1_256(&job, part, parts);
                }
            }
            Some(Type::Q8_0) => {
                let packed = slice::from_raw_parts(packed.cast(), packed_blocks);
                let job = Job::new(packed, vectors, blocks, out, stride);
                multiply_q8_0_512(&job, part, parts);
            }
            None => {}
        }
    }
}

/// A function that computes its part of a job, in tiles of the listed widths.
macro_rules! multiply {
    ($name:ident, $features:literal, $block:ty, $module:ident::$kernel:ident, $($width:literal)+) => {
        #[target_feature(enable = $features)]
        fn $name(job: &Job<'_, $block>, part: usize, parts: usize) {
            const MOST: usize = [$($width),+].len();
            for group in job.part(part, parts) {
                job.tiles(MOST, |first, width| match width {
                    $($width => $module::$kernel::<$width>(job, group, first),)+
                    _ => {}
                });
            }
        }
    };
}

multiply!(multiply_q4_1_512, "avx512f,avx512bw,avx512vnni", Nibbles, avx512::q4_1, 1 2 3 4 5 6 7 8);
multiply!(multiply_q8_0_512, "avx512f,avx512bw,avx512vnni", Bytes, avx512::q8_0, 1 2 3 4 5 6 7 8);
multiply!(multiply_q4_1_256, "avx2,fma,f16c", Nibbles, avx2::q4_1, 1 2 3 4);

#[cfg(test)]
mod tests;
