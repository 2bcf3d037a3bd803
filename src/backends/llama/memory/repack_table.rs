//! Table of the weight types that an engine copies into another layout at load. The copy adds to
//! the file's layout if that is still used. Data about llama.cpp and the kernels, which use it too.
//! Pure.

use super::gguf::Tensor;
use crate::backends::llama::wire::cpu::CpuCode;

/// ggml's id, weights per block and bytes per block of the types that are copied.
const F16: (u32, u64, u64) = (1, 1, 2);
const Q4_0: (u32, u64, u64) = (2, 32, 18);
const Q4_1: (u32, u64, u64) = (3, 32, 20);
const Q5_0: (u32, u64, u64) = (6, 32, 22);
const Q8_0: (u32, u64, u64) = (8, 32, 34);
const Q4_K: (u32, u64, u64) = (12, 256, 144);
const Q5_K: (u32, u64, u64) = (13, 256, 176);
const Q6_K: (u32, u64, u64) = (14, 256, 210);
const IQ4_NL: (u32, u64, u64) = (20, 32, 18);
const IQ4_XS: (u32, u64, u64) = (23, 256, 136);
const BF16: (u32, u64, u64) = (30, 1, 2);
const MXFP4: (u32, u64, u64) = (39, 32, 17);

/// Types that llama.cpp b11434 copies (`ggml_repack_get_optimal_repack_type`): on x86 with AVX2, on
/// ARM with the dot product or the matrix instructions.
const BY_LLAMA_CPP: &[(u32, u64, u64)] = if cfg!(target_arch = "x86_64") {
    &[Q4_0, Q4_K, IQ4_NL, MXFP4]
} else {
    &[Q4_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4]
};

/// Code that a kernel needs.
type Needs = fn(CpuCode) -> bool;
const AVX2: Needs = CpuCode::has_avx2_kernels;
const AVX512: Needs = CpuCode::has_avx512_kernels;
const AVX512_BF16: Needs = CpuCode::has_avx512_bf16_kernels;

/// Types that Wattgate's kernels copy. Packed blocks of 256 columns have their scales in whole
/// bytes: 148 bytes for the 144 of `Q4_K`.
const BY_KERNELS: &[((u32, u64, u64), Needs)] = &[
    (Q4_0, AVX2),
    (Q4_1, AVX2),
    ((Q4_K.0, 256, 148), AVX2),
    (Q5_0, AVX512),
    (Q8_0, AVX512),
    ((Q5_K.0, 256, 180), AVX512),
    (Q6_K, AVX512),
    ((IQ4_XS.0, 256, 138), AVX512),
    (F16, AVX512),
    (BF16, AVX512_BF16),
];

/// Bytes of the copy of `tensor`; 0 if there is none.
pub(in crate::backends::llama) fn copied_bytes(tensor: Tensor, cpu: CpuCode) -> u64 {
    let by_llama_cpp = if copies_by_llama_cpp(cpu) { BY_LLAMA_CPP } else { &[] };
    let mut copied = by_kernels(cpu).chain(by_llama_cpp.iter().copied());
    let copied = copied.find(|(kind, ..)| *kind == tensor.kind);
    copied.map_or(0, |(_, weights, bytes)| (tensor.weights / weights).saturating_mul(bytes))
}

/// Whether Wattgate's kernels pack weights with this ggml type id.
pub fn kernels_pack(ggml_type: u32, cpu: CpuCode) -> bool {
    by_kernels(cpu).any(|(kind, ..)| kind == ggml_type)
}

fn by_kernels(cpu: CpuCode) -> impl Iterator<Item = (u32, u64, u64)> {
    BY_KERNELS.iter().filter(move |(_, needs)| needs(cpu)).map(|(copied, _)| *copied)
}

/// The portable variant of x86 copies nothing.
fn copies_by_llama_cpp(cpu: CpuCode) -> bool {
    cfg!(not(target_arch = "x86_64")) || cpu.variant.has_avx2()
}
