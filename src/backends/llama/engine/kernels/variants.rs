//! llama.cpp's CPU backends for several instruction sets, linked side by side (`build.rs`), and the
//! choice of one. Builds without them have the one that llama.cpp was compiled with.

#![expect(unsafe_code, reason = "the backends are C functions")]

use crate::backends::llama::wire::cpu::CpuCode;

#[cfg(feature = "cpu-kernels")]
use super::mul_mat;

/// Entry points of one backend.
struct Backend {
    /// Returns the backend, to be registered with ggml.
    #[cfg(cpu_variants)]
    backend: unsafe extern "C" fn() -> llama_cpp_sys_2::ggml_backend_reg_t,
    /// Registers own kernels with the backend.
    #[cfg(feature = "cpu-kernels")]
    register_kernels: unsafe extern "C" fn(*const mul_mat::KernelTable),
}

/// Declares the entry points of a variant and evaluates to them.
#[cfg(cpu_variants)]
macro_rules! backend {
    ($backend:literal, $register_kernels:literal) => {{
        unsafe extern "C" {
            #[link_name = $backend]
            fn backend() -> llama_cpp_sys_2::ggml_backend_reg_t;
            #[cfg(feature = "cpu-kernels")]
            #[link_name = $register_kernels]
            fn register_kernels(kernels: *const mul_mat::KernelTable);
        }
        Backend {
            backend,
            #[cfg(feature = "cpu-kernels")]
            register_kernels,
        }
    }};
}

/// Replaces ggml's CPU backend by the variant's, and registers own kernels with it.
#[cfg(cpu_variants)]
pub(super) fn install(cpu: CpuCode) {
    use crate::backends::llama::wire::cpu::CpuVariant;
    let chosen = match cpu.variant {
        // The backend that ggml has registered itself.
        CpuVariant::Portable => return,
        CpuVariant::Haswell => {
            backend!("ggml_backend_cpu_reg_haswell", "wattgate_register_kernels_haswell")
        }
        CpuVariant::AlderLake => {
            backend!("ggml_backend_cpu_reg_alderlake", "wattgate_register_kernels_alderlake")
        }
        CpuVariant::SkylakeX => {
            backend!("ggml_backend_cpu_reg_skylakex", "wattgate_register_kernels_skylakex")
        }
        CpuVariant::CascadeLake => {
            backend!("ggml_backend_cpu_reg_cascadelake", "wattgate_register_kernels_cascadelake")
        }
        CpuVariant::CooperLake => {
            backend!("ggml_backend_cpu_reg_cooperlake", "wattgate_register_kernels_cooperlake")
        }
    };
    // SAFETY: no other thread uses llama.cpp yet, and the CPU has the variant's instructions.
    unsafe {
        let portable = llama_cpp_sys_2::ggml_backend_reg_by_name(c"CPU".as_ptr());
        llama_cpp_sys_2::ggml_backend_unload(portable);
        llama_cpp_sys_2::ggml_backend_register((chosen.backend)());
    }
    register_kernels(&chosen, cpu);
}

/// Registers own kernels with the one backend there is.
#[cfg(not(cpu_variants))]
pub(super) fn install(cpu: CpuCode) {
    #[cfg(feature = "cpu-kernels")]
    unsafe extern "C" {
        fn wattgate_register_kernels(kernels: *const mul_mat::KernelTable);
    }
    register_kernels(
        &Backend {
            #[cfg(feature = "cpu-kernels")]
            register_kernels: wattgate_register_kernels,
        },
        cpu,
    );
}

#[cfg(feature = "cpu-kernels")]
fn register_kernels(backend: &Backend, cpu: CpuCode) {
    if let Some(kernels) = mul_mat::table(cpu) {
        // SAFETY: the table is static, and no other thread uses llama.cpp yet.
        unsafe { (backend.register_kernels)(kernels) };
    }
}

#[cfg(not(feature = "cpu-kernels"))]
fn register_kernels(_: &Backend, _: CpuCode) {}
