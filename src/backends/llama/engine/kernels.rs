//! CPU replacements for parts of llama.cpp: products of quantised weights, and the barrier between
//! threads.

#[cfg(target_arch = "x86_64")]
mod mul_mat;
#[cfg(target_os = "linux")]
mod openmp_barrier;

/// Installs the parts that this CPU supports. Call once, before the first model is loaded.
pub(super) fn install() {
    #[cfg(target_os = "linux")]
    openmp_barrier::install();
    #[cfg(target_arch = "x86_64")]
    mul_mat::register();
}
