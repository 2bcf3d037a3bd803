//! CPU code of an engine: llama.cpp's backend for the instruction set, and Wattgate's replacements
//! for parts of it: products of quantised weights, and the barrier between threads. The
//! replacements are optional: by the cargo feature `cpu-kernels`, and by `[engines] kernels` at run
//! time.

#[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
mod mul_mat;
#[cfg(all(feature = "cpu-kernels", target_os = "linux"))]
mod openmp_barrier;
#[cfg(target_arch = "x86_64")]
mod variants;

use crate::backends::llama::wire::cpu::{CpuCode, Kernels};

/// Installs the code that this build has. Call once, before the first model is loaded.
pub(super) fn install(cpu: CpuCode) {
    #[cfg(target_arch = "x86_64")]
    variants::install(cpu);
    #[cfg(all(feature = "cpu-kernels", target_os = "linux"))]
    openmp_barrier::install(cpu.kernels == Kernels::Auto);
    #[cfg(not(any(target_arch = "x86_64", all(feature = "cpu-kernels", target_os = "linux"))))]
    let _not_built = cpu;
}

/// Number of weight tensors packed for own kernels since the start of the process.
pub(super) fn packed_tensors() -> u32 {
    #[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
    {
        mul_mat::packed_tensors()
    }
    #[cfg(not(all(feature = "cpu-kernels", target_arch = "x86_64")))]
    {
        0
    }
}
