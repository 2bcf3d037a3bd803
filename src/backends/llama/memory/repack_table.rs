//! Table of the weight types that an engine copies into another layout at load. The copy adds to
//! the file's layout if that is still used. Data about llama.cpp and the CPU; Wattgate's kernels
//! use it too.

use super::gguf::Tensor;
use crate::backends::llama::wire::settings::Kernels;

/// ggml's id, weights per block and bytes per block of the types that are copied.
const Q4_0: (u32, u64, u64) = (2, 32, 18);
const Q4_1: (u32, u64, u64) = (3, 32, 20);
const Q8_0: (u32, u64, u64) = (8, 32, 34);
const Q4_K: (u32, u64, u64) = (12, 256, 144);
const Q5_K: (u32, u64, u64) = (13, 256, 176);
const Q6_K: (u32, u64, u64) = (14, 256, 210);
const IQ4_NL: (u32, u64, u64) = (20, 32, 18);
const MXFP4: (u32, u64, u64) = (39, 32, 17);

/// Types that llama.cpp b11434 copies (`ggml_repack_get_optimal_repack_type`): on x86 with AVX2, on
/// ARM with the dot product or the matrix instructions.
const BY_LLAMA_CPP: &[(u32, u64, u64)] = if cfg!(target_arch = "x86_64") {
    &[Q4_0, Q4_K, IQ4_NL, MXFP4]
} else {
    &[Q4_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4]
};

/// Bytes of the copy of `tensor`; 0 if there is none.
pub(super) fn copied_bytes(tensor: Tensor, kernels: Kernels) -> u64 {
    let is_packed = |kind| kernels == Kernels::Auto && kernels_pack(kind);
    let own = [Q4_1, Q8_0].into_iter().filter(|(kind, ..)| is_packed(*kind));
    let copied = BY_LLAMA_CPP.iter().copied().chain(own).find(|(kind, ..)| *kind == tensor.kind);
    copied.map_or(0, |(_, weights, bytes)| (tensor.weights / weights).saturating_mul(bytes))
}

/// Whether Wattgate's kernels pack weights with this ggml type id on this CPU: `Q4_1` with AVX2,
/// `Q8_0` with AVX-512.
pub fn kernels_pack(ggml_type: u32) -> bool {
    match ggml_type {
        kind if kind == Q4_1.0 => has_avx2_kernels(),
        kind if kind == Q8_0.0 => has_avx512_kernels(),
        _ => false,
    }
}

/// Whether this build has kernels for AVX2 and this CPU runs them.
#[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
pub fn has_avx2_kernels() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether this build has kernels for AVX-512 and its byte products (VNNI), and this CPU runs them.
#[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
pub fn has_avx512_kernels() -> bool {
    has_avx2_kernels()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(all(feature = "cpu-kernels", target_arch = "x86_64")))]
fn has_avx2_kernels() -> bool {
    false
}

#[cfg(not(all(feature = "cpu-kernels", target_arch = "x86_64")))]
fn has_avx512_kernels() -> bool {
    false
}
