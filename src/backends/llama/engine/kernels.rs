//! CPU replacements for parts of llama.cpp: products of quantised weights, and the barrier between
//! threads. Optional: by the cargo feature `cpu-kernels`, and by `[engines] kernels` at run time.

#[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
mod mul_mat;
#[cfg(all(feature = "cpu-kernels", target_os = "linux"))]
mod openmp_barrier;

use crate::backends::llama::wire::settings::Kernels;

/// Installs the parts that this build and CPU support, or removes them. Call once, before the first
/// model is loaded.
pub(super) fn install(kernels: Kernels) {
    let own = kernels == Kernels::Auto;
    #[cfg(all(feature = "cpu-kernels", target_os = "linux"))]
    openmp_barrier::install(own);
    #[cfg(all(feature = "cpu-kernels", target_arch = "x86_64"))]
    if own {
        mul_mat::register();
    }
    #[cfg(not(all(feature = "cpu-kernels", any(target_os = "linux", target_arch = "x86_64"))))]
    let _not_built = own;
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
