//! The CPU code that an engine runs: llama.cpp's variant for an instruction set, and Wattgate's own
//! kernels on top.

use serde::{Deserialize, Serialize};

/// A build of llama.cpp's CPU backend for an instruction set, named as in llama.cpp. Builds for
/// other systems than Linux on x86-64 have one, whose name only tells what the CPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuVariant {
    /// Any CPU of the architecture.
    Portable,
    /// AVX2, FMA, F16C, BMI2: Intel since 2013, AMD since 2015.
    Haswell,
    /// AVX2 and AVX-VNNI: Intel's clients since 2021.
    AlderLake,
    /// AVX-512.
    SkylakeX,
    /// AVX-512 and its byte products (VNNI).
    CascadeLake,
    /// AVX-512, VNNI and BF16: Intel's servers since 2020 and 2023, AMD since Zen 4.
    CooperLake,
}

impl CpuVariant {
    /// From the least to the most demanding; of two with different instructions the faster is
    /// later.
    pub const ALL: [Self; 6] = [
        Self::Portable,
        Self::Haswell,
        Self::AlderLake,
        Self::SkylakeX,
        Self::CascadeLake,
        Self::CooperLake,
    ];

    /// The fastest variant that this CPU and its operating system run.
    pub fn best() -> Self {
        let best = Self::ALL.into_iter().rev().find(|variant| variant.runs_here());
        best.unwrap_or(Self::Portable)
    }

    pub fn has_avx2(self) -> bool {
        self != Self::Portable
    }

    pub fn has_avx512_vnni(self) -> bool {
        matches!(self, Self::CascadeLake | Self::CooperLake)
    }

    pub fn has_avx512_bf16(self) -> bool {
        self == Self::CooperLake
    }

    /// Whether this CPU has the variant's instructions and the operating system saves their
    /// registers.
    #[cfg(target_arch = "x86_64")]
    pub fn runs_here(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("fma")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
        };
        let vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
        match self {
            Self::Portable => true,
            Self::Haswell => avx2(),
            Self::AlderLake => avx2() && is_x86_feature_detected!("avxvnni"),
            Self::SkylakeX => avx512(),
            Self::CascadeLake => vnni(),
            Self::CooperLake => vnni() && is_x86_feature_detected!("avx512bf16"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn runs_here(self) -> bool {
        self == Self::Portable
    }
}

/// Use of Wattgate's own CPU kernels and thread barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// If the build has them and the CPU supports them.
    #[default]
    Auto,
    Off,
}

/// The CPU code of all engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCode {
    pub variant: CpuVariant,
    pub kernels: Kernels,
}

impl CpuCode {
    /// The variant and the kernels, unless configured otherwise.
    pub fn best() -> Self {
        Self { variant: CpuVariant::best(), kernels: Kernels::Auto }
    }

    /// Whether own kernels for AVX2 are on.
    pub fn has_avx2_kernels(self) -> bool {
        self.has_kernels() && self.variant.has_avx2()
    }

    /// Whether own kernels for AVX-512 with VNNI are on.
    pub fn has_avx512_kernels(self) -> bool {
        self.has_kernels() && self.variant.has_avx512_vnni()
    }

    /// Whether own kernels for AVX-512 with BF16 are on.
    pub fn has_avx512_bf16_kernels(self) -> bool {
        self.has_kernels() && self.variant.has_avx512_bf16()
    }

    fn has_kernels(self) -> bool {
        cfg!(all(feature = "cpu-kernels", target_arch = "x86_64")) && self.kernels == Kernels::Auto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_runs_a_variant_runs_those_that_it_contains() {
        let runs = CpuVariant::runs_here;
        assert!(runs(CpuVariant::Portable) && CpuVariant::best().runs_here());
        assert!(!runs(CpuVariant::CooperLake) || runs(CpuVariant::CascadeLake));
        assert!(!runs(CpuVariant::CascadeLake) || runs(CpuVariant::SkylakeX));
        assert!(!runs(CpuVariant::SkylakeX) || runs(CpuVariant::Haswell));
    }

    #[test]
    fn kernels_need_their_instructions_and_the_switch() {
        let code = |variant, kernels| CpuCode { variant, kernels };
        assert!(!code(CpuVariant::Portable, Kernels::Auto).has_avx2_kernels());
        assert!(!code(CpuVariant::CooperLake, Kernels::Off).has_avx512_kernels());
        assert!(!code(CpuVariant::AlderLake, Kernels::Auto).has_avx512_kernels());
        assert!(!code(CpuVariant::CascadeLake, Kernels::Auto).has_avx512_bf16_kernels());
    }
}
