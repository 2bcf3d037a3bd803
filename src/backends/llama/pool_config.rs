//! The `[engines]` section of the config: settings shared by all local models.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;

use crate::backends::llama::memory::keep_alive::Bounds;
use crate::backends::llama::wire::cpu::{CpuCode, CpuVariant, Kernels};
use crate::models::{Roots, memory_bytes};
use crate::units::Watts;
use crate::validate::{Diagnostics, Validate};

/// Settings of all engines together.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnginesConfig {
    /// Memory budget of loaded models, MiB. Absent: 80 % of the memory of the machine or of its
    /// control group.
    pub memory_budget_mib: Option<NonZeroU64>,
    /// Minimum idle time before a model is unloaded, seconds. Default 300.
    pub unload_after_min_s: u64,
    /// Maximum idle time before a model is unloaded, seconds. Default 3600.
    pub unload_after_max_s: u64,
    /// Watts of keeping a GiB of a model in memory; an estimate. Default 0.42.
    pub warm_watts_per_gib: f64,
    /// Wattgate's own CPU kernels and thread barrier: `auto` or `off`. Default `auto`.
    pub kernels: Kernels,
    /// llama.cpp's code for an instruction set: `portable`, `haswell`, `alderlake`, `skylakex`,
    /// `cascadelake` or `cooperlake`. Absent: the fastest that the CPU runs. Linux on x86-64.
    pub cpu_variant: Option<CpuVariant>,
}

impl Default for EnginesConfig {
    fn default() -> Self {
        Self {
            memory_budget_mib: None,
            unload_after_min_s: 300,
            unload_after_max_s: 3600,
            warm_watts_per_gib: WARM_WATTS_PER_GIB,
            kernels: Kernels::Auto,
            cpu_variant: None,
        }
    }
}

impl Validate for EnginesConfig {
    fn validate(&self, out: &mut Diagnostics) {
        let most = self.unload_after_max_s;
        out.range("unload_after_min_s", self.unload_after_min_s, ..=most, " seconds")
            .hint("`unload_after_min_s` is at most `unload_after_max_s`");
        if let Some(variant) = self.cpu_variant.filter(|variant| !variant.runs_here()) {
            let best = CpuVariant::best();
            out.reject("cpu_variant", format!("this CPU does not run {variant:?} code"))
                .hint(format!("without `cpu_variant`, engines here run {best:?} code"));
        }
        out.range("warm_watts_per_gib", self.warm_watts_per_gib, 0.0..=10_000.0, " W");
    }
}

/// Power of memory in use. Cloud Carbon Footprint's coefficient for memory, 0.392 W per GB: the
/// mean of the figures of two makers of memory modules (about 0.375 and 0.41 W per GB). An
/// assumption, not a measurement: installed memory draws much of it anyway. A GPU's share is many
/// times this; set the model's own `warm_watts` there.
const WARM_WATTS_PER_GIB: f64 = 0.42;

/// Share of the machine's memory for models; the rest is for the system, the gateway and its
/// requests.
const BUDGET_PERCENT: u64 = 80;

const MIB: u64 = 1 << 20;

impl EnginesConfig {
    /// Memory budget in bytes; unlimited if neither the config nor the machine sets one.
    pub fn budget_bytes(&self) -> u64 {
        match self.memory_budget_mib {
            Some(mib) => mib.get().saturating_mul(MIB),
            None => memory_bytes(&Roots::default())
                .map_or(u64::MAX, |bytes| bytes / 100 * BUDGET_PERCENT),
        }
    }

    /// The CPU code of all engines.
    pub fn cpu(&self) -> CpuCode {
        let variant = self.cpu_variant.unwrap_or_else(CpuVariant::best);
        CpuCode { variant, kernels: self.kernels }
    }

    pub fn bounds(&self) -> Bounds {
        Bounds {
            min: Duration::from_secs(self.unload_after_min_s),
            max: Duration::from_secs(self.unload_after_max_s),
        }
    }

    /// Estimated power of keeping `bytes` of a model loaded.
    pub fn warm_watts(&self, bytes: u64) -> Watts {
        Watts(self.warm_watts_per_gib * bytes as f64 / (1024 * MIB) as f64)
    }
}
