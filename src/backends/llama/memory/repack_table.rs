//! Which weights an engine copies into another layout when it loads them, so that they take memory beside what else uses
//! them in the file's layout. Knows the CPU, nothing of models.

use super::gguf::Tensor;
#[cfg(all(feature = "llama", target_arch = "x86_64"))]
use super::kernels::takes as packs;

/// How ggml numbers and writes the types that are copied: number, weights of a block, bytes of a block.
const Q4_0: (u32, u64, u64) = (2, 32, 18);
const Q4_1: (u32, u64, u64) = (3, 32, 20);
const Q8_0: (u32, u64, u64) = (8, 32, 34);
const Q4_K: (u32, u64, u64) = (12, 256, 144);
const Q5_K: (u32, u64, u64) = (13, 256, 176);
const Q6_K: (u32, u64, u64) = (14, 256, 210);
const IQ4_NL: (u32, u64, u64) = (20, 32, 18);
const MXFP4: (u32, u64, u64) = (39, 32, 17);

/// What llama.cpp b11434 itself copies (`ggml_repack_get_optimal_repack_type`): on x86 with AVX2, on ARM with the dot
/// product or the matrix instructions.
const BY_LLAMA_CPP: &[(u32, u64, u64)] = if cfg!(target_arch = "x86_64") {
    &[Q4_0, Q4_K, IQ4_NL, MXFP4]
} else {
    &[Q4_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4]
};

/// Bytes of the copy of `tensor`; 0 if there is none.
pub(super) fn copied_bytes(tensor: Tensor) -> u64 {
    let own = [Q4_1, Q8_0].into_iter().filter(|(kind, ..)| packs(*kind));
    let copied = BY_LLAMA_CPP.iter().copied().chain(own).find(|(kind, ..)| *kind == tensor.kind);
    copied.map_or(0, |(_, weights, bytes)| (tensor.weights / weights).saturating_mul(bytes))
}

/// Whether Wattgate's own kernels take the type on this CPU.
#[cfg(not(all(feature = "llama", target_arch = "x86_64")))]
fn packs(_: u32) -> bool {
    false
}
