//! Compiles what Wattgate adds to llama.cpp, against the sources of the linked version, so that a
//! change there is a build error and not a crash:
//! - On x86-64 Linux, llama.cpp's CPU backend once more for each CPU variant, all in one binary.
//!   The engine chooses one at run time (`src/backends/llama/engine/cpu_variant.rs`).
//! - With the feature `cpu-kernels`, the C++ bridge between ggml and the kernels.

#[cfg(feature = "llama")]
#[path = "build/cpu_backend.rs"]
mod cpu_backend;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(cpu_variants)");
    #[cfg(feature = "llama")]
    cpu_backend::build();
}
