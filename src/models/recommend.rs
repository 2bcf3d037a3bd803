//! Recommendation of a catalogue model for a machine. Pure arithmetic over what both declare.
//!
//! Takes the most able chat model that fits into memory with room for its requests and generates at
//! a readable speed; of equally able ones, the one that reads fewer bytes per token, which costs
//! less energy.

use serde::Serialize;

use super::catalogue::{Confidence, Entry, ModelKind};

/// Resources of a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Memory of the machine, or the limit of the process's control group.
    pub memory_bytes: u64,
    pub cores: usize,
    pub gpus: Vec<Gpu>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    pub name: String,
    pub memory: GpuMemory,
}

/// Memory that a GPU computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuMemory {
    /// Dedicated memory in bytes.
    Own(u64),
    /// Shares the machine's main memory.
    Shared,
    /// Not reported; such a GPU is not used.
    Unknown,
}

/// A model for a machine, and the configuration to run it with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation<'c> {
    pub model: &'c Entry,
    pub slots: u32,
    /// Per slot.
    pub context_tokens: u32,
    /// GPU that holds the model; `None` if the CPU computes.
    pub gpu: Option<Gpu>,
    pub weights_bytes: u64,
    /// Keys and values of all slots.
    pub kv_bytes: u64,
    /// Compute buffers and the process itself.
    pub working_bytes: u64,
    /// Memory that a model may use.
    pub budget_bytes: u64,
    /// Tokens per second of one answer: assumed bandwidth over bytes read; an order of magnitude.
    pub assumed_tokens_per_s: f64,
    /// `false` if even the smallest model exceeds its budget; it is recommended all the same.
    pub fits: bool,
}

/// Share of the main memory for a model; the rest is for the system, other programs and the file
/// cache.
const MEMORY_SHARE: f64 = 0.6;
/// Share of a GPU's own memory; the rest is for display and driver.
const GPU_MEMORY_SHARE: f64 = 0.9;

/// Bytes per second that one core reads: 79 tokens/s were measured on 2 cores with a model of 98
/// MB.
const CORE_BYTES_PER_S: f64 = 3.9e9;
/// ASSUMED bandwidth of main memory (two channels of DDR4 or DDR5), of memory shared with a GPU,
/// and of dedicated GPU memory: the low end of each class.
const MAIN_MEMORY_BYTES_PER_S: f64 = 40e9;
const SHARED_MEMORY_BYTES_PER_S: f64 = 100e9;
const GPU_MEMORY_BYTES_PER_S: f64 = 250e9;
/// People read 4 to 6 tokens per second, and a thinking model writes more than is read.
const TOKENS_PER_S_MIN: f64 = 10.0;

/// Compute buffers, tokenizer and process: ASSUMED from observed engines.
const WORKING_BYTES: u64 = 200 << 20;
const WORKING_SHARE_OF_WEIGHTS: u64 = 32;

/// Slots and tokens per slot, the most generous first. The last is the minimum worth serving.
const SHAPES: [(u32, u32); 6] =
    [(8, 32768), (8, 16384), (8, 8192), (8, 4096), (4, 4096), (2, 4096)];
/// Reading a longer prompt takes minutes on a CPU.
const CONTEXT_WITHOUT_GPU_MAX: u32 = 8192;
/// Shape for the smallest model where even it exceeds the budget.
const LAST_RESORT: (u32, u32) = (1, 2048);

/// A device that can run a model.
struct ComputeDevice<'m> {
    gpu: Option<&'m Gpu>,
    budget_bytes: u64,
    bytes_per_s: f64,
}

/// Returns the model for `machine`; `None` if `catalogue` has no chat model. `offload`: this build
/// can use GPUs.
pub fn recommend<'c>(
    catalogue: &'c [Entry],
    machine: &Machine,
    offload: bool,
) -> Option<Recommendation<'c>> {
    let usable =
        |entry: &&Entry| entry.kind == ModelKind::Chat && entry.confidence != Confidence::Likely;
    let compute_devices = compute_devices(machine, offload);
    let recommendations = catalogue
        .iter()
        .filter(usable)
        .flat_map(|entry| compute_devices.iter().filter_map(move |device| device.hold(entry)));
    let best = recommendations.max_by(|a, b| {
        let ability = |recommended: &Recommendation<'_>| {
            recommended.model.ability.unwrap_or(f64::NEG_INFINITY)
        };
        let active = |recommended: &Recommendation<'_>| recommended.model.active_bytes();
        (ability(a).total_cmp(&ability(b)))
            .then(active(b).cmp(&active(a)))
            .then(a.gpu.is_some().cmp(&b.gpu.is_some()))
            .then(a.budget_bytes.cmp(&b.budget_bytes))
    });
    best.or_else(|| {
        let smallest = catalogue.iter().filter(usable).min_by_key(|entry| entry.size_bytes)?;
        Some(compute_devices.first()?.shaped(smallest, LAST_RESORT))
    })
}

/// The CPU first, then each GPU whose memory is known.
fn compute_devices(machine: &Machine, offload: bool) -> Vec<ComputeDevice<'_>> {
    let memory_budget = share_of(machine.memory_bytes, MEMORY_SHARE);
    let cores_move = machine.cores as f64 * CORE_BYTES_PER_S;
    let cores = ComputeDevice {
        gpu: None,
        budget_bytes: memory_budget,
        bytes_per_s: cores_move.min(MAIN_MEMORY_BYTES_PER_S),
    };
    let gpus = machine.gpus.iter().filter(|_| offload).filter_map(|gpu| {
        let (budget_bytes, bytes_per_s) = match gpu.memory {
            GpuMemory::Own(bytes) => (share_of(bytes, GPU_MEMORY_SHARE), GPU_MEMORY_BYTES_PER_S),
            GpuMemory::Shared => (memory_budget, SHARED_MEMORY_BYTES_PER_S),
            GpuMemory::Unknown => return None,
        };
        Some(ComputeDevice { gpu: Some(gpu), budget_bytes, bytes_per_s })
    });
    std::iter::once(cores).chain(gpus).collect()
}

impl ComputeDevice<'_> {
    /// Returns the most generous shape that fits here; `None` if none fits or all are too slow.
    fn hold<'c>(&self, entry: &'c Entry) -> Option<Recommendation<'c>> {
        let context_max = if self.gpu.is_some() { u32::MAX } else { CONTEXT_WITHOUT_GPU_MAX };
        let shapes = SHAPES.iter().filter(|(_, context)| *context <= context_max);
        shapes.map(|&shape| self.shaped(entry, shape)).find(|recommended| {
            recommended.fits && recommended.assumed_tokens_per_s >= TOKENS_PER_S_MIN
        })
    }

    fn shaped<'c>(&self, entry: &'c Entry, (slots, context): (u32, u32)) -> Recommendation<'c> {
        let context_tokens = context.min(entry.context_tokens);
        let tokens = u64::from(slots) * u64::from(context_tokens);
        let mut recommended = Recommendation {
            model: entry,
            slots,
            context_tokens,
            gpu: self.gpu.cloned(),
            weights_bytes: entry.size_bytes,
            kv_bytes: tokens.saturating_mul(entry.kv_bytes_per_token),
            working_bytes: WORKING_BYTES + entry.size_bytes / WORKING_SHARE_OF_WEIGHTS,
            budget_bytes: self.budget_bytes,
            assumed_tokens_per_s: self.bytes_per_s / entry.active_bytes().max(1) as f64,
            fits: false,
        };
        recommended.fits = recommended.memory_bytes() <= self.budget_bytes;
        recommended
    }
}

impl Recommendation<'_> {
    /// Bytes of memory of the loaded model.
    pub fn memory_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.working_bytes)
    }
}

fn share_of(bytes: u64, share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share below 1")]
    let part = (bytes as f64 * share) as u64;
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::catalogue::catalogue;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(memory_gib: u64, cores: usize, gpu: Option<GpuMemory>) -> Machine {
        let gpu = gpu.map(|memory| Gpu { name: "GPU".into(), memory });
        Machine { memory_bytes: memory_gib * GIB, cores, gpus: gpu.into_iter().collect() }
    }

    #[test]
    fn each_machine_gets_a_model_that_it_can_run() {
        let own = |gib: u64| Some(GpuMemory::Own(gib * GIB));
        let shared = Some(GpuMemory::Shared);
        for (what, machine, offload, expected) in [
            (
                "256 MiB",
                Machine { memory_bytes: GIB / 4, ..machine(0, 1, None) },
                false,
                "smollm2-135m 1x2048",
            ),
            ("1 GiB", machine(1, 1, None), false, "smollm2-135m 2x4096"),
            ("2 GiB", machine(2, 2, None), false, "smollm2-360m 4x4096"),
            ("Pi, 4 GiB", machine(4, 4, None), false, "qwen3-0.6b 2x4096"),
            ("CI, 2 cores", machine(23, 2, None), false, "qwen3-0.6b 8x8192"),
            ("laptop, 16 GiB", machine(16, 8, None), false, "qwen3-4b-2507 8x4096"),
            ("desktop, 32 GiB", machine(32, 16, None), false, "qwen3-30b-a3b-2507 2x4096"),
            ("Mac, 16 GiB", machine(16, 8, shared), true, "qwen3-8b 8x4096 GPU"),
            ("Mac, 64 GiB", machine(64, 12, shared), true, "qwen3-30b-a3b-2507 8x16384 GPU"),
            ("GPU, 8 GiB", machine(16, 8, own(8)), true, "qwen3-8b 2x4096 GPU"),
            ("GPU, 24 GiB", machine(32, 16, own(24)), true, "qwen3-30b-a3b-2507 8x4096 GPU"),
            ("the same, built without GPU", machine(16, 8, own(24)), false, "qwen3-4b-2507 8x4096"),
            ("H200", machine(128, 16, own(140)), true, "qwen3-30b-a3b-2507 8x32768 GPU"),
            (
                "GPU of unknown memory",
                machine(16, 8, Some(GpuMemory::Unknown)),
                true,
                "qwen3-4b-2507 8x4096",
            ),
            ("no memory known to be there", machine(0, 0, None), true, "smollm2-135m 1x2048"),
        ] {
            let recommended = recommend(catalogue(), &machine, offload).unwrap();
            let gpu = if recommended.gpu.is_some() { " GPU" } else { "" };
            let Recommendation { model, slots, context_tokens, .. } = &recommended;
            assert_eq!(format!("{} {slots}x{context_tokens}{gpu}", model.name), expected, "{what}");
        }
    }

    #[test]
    fn a_catalogue_without_chat_models_yields_no_recommendation() {
        let others: Vec<Entry> =
            catalogue().iter().filter(|entry| entry.kind != ModelKind::Chat).cloned().collect();
        assert_eq!(recommend(&others, &machine(64, 16, None), true), None);
    }

    proptest! {
        #[test]
        fn the_recommendation_fits_and_more_memory_never_means_less_ability(
            memory in 0..2_000 * GIB, more in 0..200 * GIB, vram in 0..200 * GIB, cores in 1usize..200,
        ) {
            let gpus = vec![Gpu { name: "GPU".into(), memory: GpuMemory::Own(vram) }];
            let small = Machine { memory_bytes: memory, cores, gpus };
            let large = Machine { memory_bytes: memory + more, ..small.clone() };
            let chosen = |machine| recommend(catalogue(), machine, true).unwrap();
            let (small, large) = (chosen(&small), chosen(&large));
            for recommended in [&small, &large] {
                prop_assert_eq!(recommended.fits, recommended.memory_bytes() <= recommended.budget_bytes);
                prop_assert!(recommended.budget_bytes <= (memory + more).max(vram));
                prop_assert!(recommended.context_tokens <= recommended.model.context_tokens);
                prop_assert!(recommended.fits || recommended.model.name == "smollm2-135m");
            }
            prop_assert!(large.model.ability >= small.model.ability);
        }
    }
}
